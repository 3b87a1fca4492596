"""Anchors of ratios, the chain of corrections and what its rejections leave to be counted: by hand and by identity."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import AGGREGATORS, VARIANTS, Batch, Variant, correction
from core.errors import GrpoLabError
from core.loop.correct import correct
from core.loop.loss import counted_rows, step_loss
from core.loop.rows import RowTensors
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean, token_sum
from estimators.corrections import sequence_masked, token_truncated
from estimators.kl import k3
from estimators.objectives import clip, policy_gradient
from estimators.rejections import rejection

WIDE = clip.using(eps_low=1.0, eps_high=math.inf)
UNCAPPED = token_truncated.using(cap=math.inf)
seeds = st.integers(0, 200)


def variant(**more: Any) -> Variant:
    return Variant(**{"advantage": group_mean, "objective": clip, "aggregator": token_mean, **more})


def batch_of(seed: int, age: int | None = None) -> tuple[Batch, Tensor, Tensor]:
    """Two groups of three ragged responses, in float64, whose sampler, trainer and present policy differ."""
    draw = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(2, 3, 4, generator=draw, dtype=torch.float64)

    logps = -2 + noise()
    lengths = torch.randint(1, 5, (2, 3), generator=draw)
    lengths[0, 0] = 4
    batch = Batch.of(
        torch.randn(2, 3, generator=draw, dtype=torch.float64),
        lengths=lengths,
        old_logps=logps + 0.3 * noise(),
        behaviour_logps=logps + 0.3 * noise(),
        ref_logps=logps + 0.3 * noise(),
    )
    if age is not None:
        batch = batch.having(token_version=torch.full((2, 3, 4), 10 - age))
    return batch, logps, batch.rewards[..., None].expand(2, 3, 4)


def value_and_gradient(made: Variant, batch: Batch, logps: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logps.clone().requires_grad_()
    loss = step_loss(made, batch, leaf, advantages, version=10)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def assert_alike(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@given(seeds)
def test_without_a_clip_decoupled_and_sampler_anchored_are_the_same(seed: int) -> None:
    """pi / old times old / behaviour is pi / behaviour; a clip separates them."""
    batch = batch_of(seed)
    decoupled = value_and_gradient(variant(objective=WIDE, correction=UNCAPPED), *batch)
    anchored = value_and_gradient(variant(objective=WIDE, anchor="sampler"), *batch)
    assert_alike(decoupled, anchored)
    clipped = [value_and_gradient(v, *batch_of(3)) for v in (variant(correction=UNCAPPED), variant(anchor="sampler"))]
    assert not torch.allclose(clipped[0][1], clipped[1][1])


@given(seeds)
def test_where_all_three_policies_agree_so_do_all_anchors(seed: int) -> None:
    batch, logps, advantages = batch_of(seed, age=0)
    batch = batch.having(old_logps=logps, behaviour_logps=logps)
    plain = value_and_gradient(variant(), batch, logps, advantages)
    for made in (variant(correction=token_truncated), variant(anchor="sampler"), variant(anchor="loglinear")):
        assert_alike(value_and_gradient(made, batch, logps, advantages), plain)


def test_loglinear_by_hand() -> None:
    """Age 3, alpha = 2/3: of a difference of .3 nats the ratio has .1 and the weight .2; 1.1052 times 1.2214."""
    behaviour = torch.full((1, 1, 1), -1.0, dtype=torch.float64)
    batch = Batch.of(torch.ones(1, 1).double(), behaviour_logps=behaviour, token_version=torch.full((1, 1, 1), 7))
    logps, advantages = behaviour + 0.3, torch.ones(1, 1, 1).double()
    made = variant(objective=WIDE, anchor="loglinear", aggregator=token_sum)
    value, gradient = value_and_gradient(made, batch, logps, advantages)
    assert (float(value), gradient.item()) == pytest.approx((-math.exp(0.1), -math.exp(0.1)))  # the anchor has none
    weighed = replace(made, correction=UNCAPPED)
    assert float(value_and_gradient(weighed, batch, logps, advantages)[0]) == pytest.approx(-math.exp(0.3))
    # one update old: the sampler is the anchor
    young = batch.having(token_version=torch.full((1, 1, 1), 9))
    assert float(value_and_gradient(made, young, logps, advantages)[0]) == pytest.approx(-math.exp(0.3))


def test_loglinear_needs_ages() -> None:
    with pytest.raises(GrpoLabError, match=r"anchor='loglinear' goes by the age of tokens, which is not known here"):
        value_and_gradient(variant(anchor="loglinear"), *batch_of(0))


def test_a_ratio_is_not_counted_twice() -> None:
    with pytest.raises(GrpoLabError, match=r"correction 'token_truncated' would count it twice"):
        variant(anchor="sampler", correction=token_truncated)
    variant(anchor="sampler", correction=rejection)  # takes out, and weighs nothing


def test_an_anchor_that_nothing_reads_is_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"objective 'policy_gradient' takes no old_logps"):
        variant(objective=policy_gradient, anchor="sampler")


@given(seeds)
def test_denominators_differ_by_the_share_that_is_kept(seed: int) -> None:
    batch, logps, advantages = batch_of(seed)
    keep = rejection.using(high=1.2)
    rows = correct(variant(correction=keep), RowTensors.of(batch, advantages))
    kept, of_all = int(rows["mask"].sum()), int(batch.mask.sum())
    assert rows.denominator.equal(batch.rows("mask"))
    step = (batch, logps, advantages)
    whole = value_and_gradient(variant(correction=keep), *step)
    fewer = value_and_gradient(variant(correction=keep, denominator="kept"), *step)
    assert_alike((fewer[0] * kept, fewer[1] * kept), (whole[0] * of_all, whole[1] * of_all))
    sums = [
        value_and_gradient(variant(correction=keep, aggregator=token_sum, denominator=which), *step)
        for which in ("all", "kept")
    ]
    assert_alike(*sums)


@given(seeds)
def test_where_nothing_is_rejected_denominators_are_the_same(seed: int) -> None:
    batch, logps, advantages = batch_of(seed)
    for part in AGGREGATORS.values():
        plain = value_and_gradient(variant(aggregator=part), batch, logps, advantages)
        for which in ("all", "kept"):
            made = variant(aggregator=part, correction=rejection.using(high=1e9), denominator=which)
            assert_alike(value_and_gradient(made, batch, logps, advantages), plain)


def test_what_is_taken_out_has_neither_loss_nor_kl_nor_gradient() -> None:
    batch, logps, advantages = batch_of(1)
    made = variant(correction=rejection.using(high=1.2), kl=k3, kl_coef=0.5)
    _, gradient = value_and_gradient(made, batch, logps, advantages)
    rows = correct(made, RowTensors.of(batch, advantages))
    out = batch.rows("mask") & ~rows["mask"]
    assert out.any()
    assert gradient.flatten(0, 1)[out].eq(0).all()
    assert gradient.flatten(0, 1)[rows["mask"]].ne(0).all()


def test_a_step_of_which_nothing_is_kept_has_no_row_to_count() -> None:
    batch, logps, advantages = batch_of(2)
    made = variant(correction=rejection.using(high=1.0 + 1e-12), denominator="kept")
    loss, gradient = value_and_gradient(made, batch, logps, advantages)
    assert float(loss) == 0
    assert gradient.eq(0).all()
    rows = correct(made, RowTensors.of(batch, advantages))
    assert not counted_rows(made, batch, rows).any()


def test_factors_of_a_chain_multiply_and_what_all_keep_stays() -> None:
    batch, _, advantages = batch_of(4)
    rows = RowTensors.of(batch, advantages)

    def alone(part: Any) -> RowTensors:
        return correct(variant(correction=part), rows)

    chained = correct(variant(correction=(token_truncated, sequence_masked, rejection)), rows)
    first, second, third = map(alone, (token_truncated, sequence_masked, rejection))
    torch.testing.assert_close(chained["factors"], first["factors"] * second["factors"])
    assert chained["mask"].equal(third["mask"])


def test_a_correction_reads_advantages_and_ages_of_all_rows_of_the_step() -> None:
    @correction(weights=False)
    def young_and_good(mask: Tensor, advantages: Tensor, token_age: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps good tokens of at most two updates."""
        return torch.ones_like(advantages), mask & (token_age <= 2) & (advantages > 0)

    batch, _, advantages = batch_of(5)
    versions = torch.arange(6, 12).view(2, 3, 1).expand(2, 3, 4)
    rows = RowTensors.of(batch.having(token_version=versions), advantages, version=10)
    made = correct(variant(correction=young_and_good), rows)
    young = (versions >= 8).flatten(0, 1)
    assert made["mask"].equal(batch.rows("mask") & young & (advantages > 0).flatten(0, 1))


def test_with_ratios_against_the_sampler_tokens_without_its_log_probability_are_taken_out() -> None:
    batch, logps, advantages = batch_of(6)
    behaviour = batch.require("behaviour_logps").clone()
    behaviour[0, 0, 0] = math.nan
    unknown = batch.having(behaviour_logps=behaviour)
    for denominator, mask in (("all", batch.mask), ("kept", batch.mask & ~behaviour.isnan())):
        made = variant(anchor="sampler", denominator=denominator)
        loss, gradient = value_and_gradient(made, unknown, logps, advantages)
        assert gradient[0, 0, 0] == 0
        without = batch.having(mask=batch.mask & ~behaviour.isnan())
        expected = value_and_gradient(made, without, logps, advantages)
        share = int(without.mask.sum()) / int(mask.sum())
        assert_alike((loss, gradient), (expected[0] * share, expected[1] * share))


def test_a_correction_by_age_alone_needs_no_sampler_and_says_so_where_there_are_no_ages() -> None:
    @correction(weights=False)
    def of_two_updates(mask: Tensor, token_age: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps tokens of at most two updates."""
        return torch.ones(mask.shape), mask & (token_age <= 2)

    batch, logps, advantages = batch_of(8, age=3)
    made = variant(correction=of_two_updates)
    alone = batch.having(behaviour_logps=None)
    # its ones are float32 beside log-probabilities in float64
    for rows in (alone, batch):
        assert float(value_and_gradient(made, rows, logps, advantages)[0]) == 0
    with pytest.raises(GrpoLabError, match=r"'of_two_updates' .* asks for token_age, which is not known here"):
        value_and_gradient(made, alone.having(token_version=None), logps, advantages)


def test_keep_must_be_bool() -> None:
    @correction
    def keeps_by_numbers(mask: Tensor) -> tuple[Tensor, Tensor]:
        """Wrong."""
        return torch.ones(mask.shape), torch.ones(mask.shape)

    batch, _, advantages = batch_of(7)
    with pytest.raises(GrpoLabError, match=r"'keeps_by_numbers' .* returned keep as torch.float32: it must be bool"):
        correct(variant(correction=keeps_by_numbers), RowTensors.of(batch, advantages))


def test_the_card_says_what_is_set_and_nothing_else() -> None:
    plain = VARIANTS["grpo"]()
    assert not {"anchor", "credit", "selection"} & set(plain.card())
    made = replace(plain, anchor="sampler", correction=rejection, denominator="kept")
    assert made.card()["anchor"] == "the sampler's log-probabilities"
    assert made.card()["correction"].endswith(", tokens that are kept are those counted")
