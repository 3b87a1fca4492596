"""The lens on a model: one pool for all variants, and gradients that are those of training."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import core.parts.registry as registry
from core.loop.recipe import Recipe
from core.model.loading import EMBEDDED
from core.model.policy import PolicySettings, load_policy
from experiments.lens.card import model_to_json
from experiments.lens.measures import Estimate
from experiments.lens.named import named_variant
from experiments.lens.on_model import SPLITS, OnModel, measure_on_model
from experiments.study.configs import (
    CONFIGS,
    build,
)

NAMES = ("rloo", "dr_grpo", "grpo", "remax", "dapo")


def recipes(*names: str, prompts: int = 12) -> list[Recipe]:
    with registry.config([CONFIGS / "embedded.gin"]):
        return [build("train", variant=named_variant(name), prompts=prompts, group_size=4) for name in names]


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, OnModel], list[str]]:
    steps: list[str] = []
    lenses, _ = measure_on_model(recipes(*NAMES), seed=0, advance=steps.append)
    return {each.variant: each for each in lenses}, steps


def test_variants_that_differ_by_a_constant_have_one_direction(measured: tuple[dict[str, OnModel], list[str]]) -> None:
    lenses, _ = measured
    rloo, dr_grpo = lenses["rloo"], lenses["dr_grpo"]
    assert rloo.cosines["dr_grpo"] == pytest.approx(1, abs=1e-5)
    assert dr_grpo.norm / rloo.norm == pytest.approx(3 / 4 / 56, rel=1e-4)  # (G - 1) / G, over max_tokens
    assert rloo.split_cosine.value == pytest.approx(dr_grpo.split_cosine.value, abs=1e-5)
    assert 0.5 < lenses["grpo"].cosines["rloo"] < 0.9999


def test_cosines_are_symmetric_and_progress_counts_every_gradient(
    measured: tuple[dict[str, OnModel], list[str]],
) -> None:
    lenses, steps = measured
    for one in NAMES:
        assert lenses[one].cosines[one] == pytest.approx(1)
        for other in NAMES:
            assert lenses[one].cosines[other] == pytest.approx(lenses[other].cosines[one])
    assert steps == ["pool", *(name for name in NAMES for _ in range(2 * SPLITS + 1))]


def test_all_that_was_sampled_is_counted(measured: tuple[dict[str, OnModel], list[str]]) -> None:
    lenses, _ = measured
    assert lenses["remax"].tokens > lenses["rloo"].tokens == lenses["dapo"].tokens
    assert lenses["rloo"].groups == 12


def test_dynamic_sampling_drops_groups_and_pays_for_them() -> None:
    rloo, dapo = measure_on_model([replace(each, group_size=2) for each in recipes("rloo", "dapo")], seed=0)[0]
    assert dapo.groups < rloo.groups == 12
    assert dapo.tokens == rloo.tokens


def test_a_gradient_of_nothing_has_no_direction_in_the_file_either() -> None:
    """Where all rewards of every group are equal."""
    nothing = Estimate(math.nan, math.nan)
    lens = OnModel("rloo", 4, 100, 0.0, split_cosine=nothing, variance=nothing, cosines={"rloo": math.nan, "grpo": 0.5})
    content = model_to_json([lens], recipes("rloo")[0], "embedded", 0.5, 0)
    assert content["variants"]["rloo"]["cosines"] == {"rloo": None, "grpo": 0.5}
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_episodes_are_a_pool_too() -> None:
    with registry.config([CONFIGS / "lookups.gin"]):
        named = [build("train", variant=named_variant(name), prompts=8, group_size=4) for name in ("rloo", "grpo")]
    lenses, accuracy = measure_on_model(named, seed=0)
    assert 0 < accuracy < 1
    assert all(lens.norm > 0 for lens in lenses)


def test_split_half_numbers_by_hand() -> None:
    from experiments.lens.on_model import _split_half

    one, other = torch.tensor([2.0, 1.0]), torch.tensor([2.0, -1.0])
    numbers = _split_half([(one, other)] * 2, cost=2.0)
    assert numbers["split_cosine"].value == pytest.approx(3 / 5)
    # half their difference, squared, is 1; their product 3; twice the tokens
    assert numbers["variance"].value == pytest.approx(2 * 1 / 3)
    against: list[tuple[Tensor, Tensor]] = [(one, -one)] * 2
    assert math.isnan(_split_half(against, cost=1.0)["variance"].value)


def test_at_a_checkpoint_the_reference_is_still_the_base(tmp_path: Path) -> None:
    moved = load_policy(PolicySettings(str(EMBEDDED), "float32"))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in moved.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.05 * float(weight.std()))
    moved.model.save_pretrained(tmp_path)
    moved.tokenizer.save_pretrained(tmp_path)

    (plain,) = recipes("grpo", prompts=4)
    with registry.config([CONFIGS / "embedded.gin"]):
        variant = replace(plain.variant, kl_coef=10.0)
        penalised: Recipe = build("train", variant=variant, prompts=4, group_size=4)

    def norm(recipe: Recipe, checkpoint: str | None) -> float:
        return measure_on_model([recipe], seed=0, checkpoint=checkpoint)[0][0].norm

    # where policy and reference are one, k3 has no gradient
    assert norm(penalised, None) == pytest.approx(norm(plain, None), rel=1e-3)
    assert norm(penalised, str(tmp_path)) > 1.1 * norm(plain, str(tmp_path))
