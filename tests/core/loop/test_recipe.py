"""A recipe's correction of the mismatch between sampler and trainer."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import core.loop.train  # noqa: F401 - registers generators, settings and tasks
from core import CORRECTIONS, SETTINGS, VARIANTS, GrpoLabError, Part, Variant, provider, variant
from core.loop.recipe import Recipe
from core.parts.registry import config
from estimators.credit import top_entropy


def recipe(*bindings: str, variant: str = "grpo") -> Recipe:
    bound = (f"train.variant = @{variant}()", "train.task = @chain_sums()", "train.generator = @native()", *bindings)
    with config(bindings=bound):
        made: Recipe = SETTINGS["train"]()
    return made


def test_a_recipe_corrects_variants_that_do_not_correct_themselves() -> None:
    assert recipe().variant.corrections == ()
    made = recipe("train.correction = @token_truncated", "token_truncated.cap = 3.0").variant
    assert made.name == "grpo"
    assert repr(made.corrections) == repr((CORRECTIONS["token_truncated"].using(cap=3.0).resolved(),))
    assert "behaviour_logps" in made.needs


def test_a_variants_own_correction_stays() -> None:
    @variant
    def corrected(*, correction: Part = CORRECTIONS["sequence_masked"]) -> Variant:
        """GRPO with a correction of its own."""
        made: Variant = VARIANTS["grpo"]()
        return replace(made, correction=correction)

    own = recipe("train.correction = @token_truncated", variant="corrected").variant.corrections
    assert [part.name for part in own] == ["sequence_masked"]


def test_what_is_no_correction_is_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"train.correction"):
        recipe("train.correction = @token_mean")


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ("train.generator = @vllm()", r"'thoughtful' takes the entropies of what .* drawn from, which this"),
        ("train.source = @worked_solutions()", r"'thoughtful' needs behaviour_entropy, but with train\.source"),
    ],
)
def test_a_part_that_asks_for_entropies_is_refused_where_nobody_knows_them(binding: str, said: str) -> None:
    @variant
    def thoughtful() -> Variant:
        """GRPO on the tokens at which it hesitated."""
        made: Variant = VARIANTS["grpo"]()
        return replace(made, credit=top_entropy)

    assert "behaviour_entropy" in recipe(variant="thoughtful").variant.needs
    with pytest.raises(GrpoLabError, match=said):
        recipe(binding, variant="thoughtful")


def test_of_two_providers_of_a_field_one_must_be_chosen() -> None:
    """Else whoever imports a module would train against another reference, in every arm and unsaid."""

    @provider(fills="ref_logps", cost="none")
    def another_reference(run: Any) -> Any:
        """Zeros."""
        return lambda batch: torch.zeros(batch.response_mask.shape)

    assert recipe().providers == ()  # nothing asks for it
    with pytest.raises(
        GrpoLabError,
        match=r"needs the batch field 'ref_logps', which is filled by 'reference' \(.*shipped.py:\d+\) and "
        r"'another_reference' \(.*test_recipe.py:\d+\): choose one, train.providers = \[@another_reference\]",
    ):
        recipe("grpo.kl_coef = 0.1")
    for name in ("reference", "another_reference"):
        chosen = recipe("grpo.kl_coef = 0.1", f"train.providers = [@{name}]").providers
        assert [part.name for part in chosen] == [name]
    with pytest.raises(GrpoLabError, match=r"'reference' .* and 'another_reference' .*: choose one"):
        recipe("grpo.kl_coef = 0.1", "train.providers = [@reference, @another_reference]")
    assert recipe("train.providers = [@reference]").providers == ()


def test_a_chat_template_counts_as_data_and_without_one_nothing_does() -> None:
    with_template = recipe("policy.chat_template = '{{ messages }}'")
    assert with_template.data == with_template.policy.digest != ""
    assert recipe().data == ""
