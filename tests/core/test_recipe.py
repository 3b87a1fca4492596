"""A recipe's correction of the mismatch between sampler and trainer."""

from dataclasses import replace

import pytest

import core.train  # noqa: F401 - registers generators, settings and tasks
from core import CORRECTIONS, SETTINGS, VARIANTS, GrpoLabError, Part, Variant, variant
from core.recipe import Recipe
from core.registry import config


def recipe(*bindings: str, variant: str = "grpo") -> Recipe:
    given = (f"train.variant = @{variant}()", "train.task = @chain_sums()", "train.generator = @native()", *bindings)
    with config(bindings=given):
        made: Recipe = SETTINGS["train"]()
    return made


def test_a_recipe_corrects_variants_that_do_not_correct_themselves() -> None:
    assert recipe().variant.correction is None
    made = recipe("train.correction = @token_truncated", "token_truncated.cap = 3.0").variant
    assert made.name == "grpo"
    assert repr(made.correction) == repr(CORRECTIONS["token_truncated"].using(cap=3.0).resolved())
    assert "behaviour_logps" in made.needs


@pytest.mark.usefixtures("fresh_registry")
def test_a_variants_own_correction_stays() -> None:
    @variant
    def corrected(*, correction: Part = CORRECTIONS["sequence_masked"]) -> Variant:
        """GRPO with a correction of its own."""
        made: Variant = VARIANTS["grpo"]()
        return replace(made, correction=correction)

    own = recipe("train.correction = @token_truncated", variant="corrected").variant.correction
    assert own is not None
    assert own.name == "sequence_masked"


def test_what_is_no_correction_is_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"train.correction"):
        recipe("train.correction = @token_mean")
