"""Identities of what corrects for another sampler: rules among themselves, in whole steps, and under truncation."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import CORRECTIONS, Batch, Part, Variant
from core.loop.loss import learned_responses, step_loss
from core.loop.rows import RowTensors
from estimators.advantages.group import group_mean
from estimators.aggregators import prompt_mean, segment_mean, seq_mean_token_mean, token_mean, token_sum
from estimators.corrections import geometric_mean_masked, sequence_truncated, token_truncated, vaco
from estimators.credit import advantage_clip, top_entropy
from estimators.kl import k3
from estimators.objectives import clip, policy_gradient
from estimators.objectives.divergence import dppo_tv_mask
from estimators.objectives.off_policy import m2po, topr
from estimators.objectives.token import off_policy_masked_clip
from estimators.rejections import rejection, second_moment_rejection

seeds = st.integers(0, 300)
SHIPPED = [part for part in CORRECTIONS.values() if part.module.startswith("estimators.")]


def variant(**more: Any) -> Variant:
    return Variant(**{"advantage": group_mean, "objective": clip, "aggregator": token_mean, **more})


def batch_of(seed: int) -> tuple[Batch, Tensor]:
    """Two groups of three responses with holes, in float64, whose sampler, trainer and present policy differ."""
    draw = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(2, 3, 5, generator=draw, dtype=torch.float64)

    logps, mask = -2 + noise(), torch.rand(2, 3, 5, generator=draw) < 0.7
    mask[..., 0] = True
    batch = Batch.of(
        torch.randn(2, 3, generator=draw, dtype=torch.float64),
        mask,
        old_logps=logps + 0.4 * noise(),
        behaviour_logps=logps + 0.4 * noise(),
        ref_logps=logps + 0.4 * noise(),
        behaviour_entropy=torch.rand(2, 3, 5, generator=draw, dtype=torch.float64),
        token_version=torch.zeros(2, 3, 5, dtype=torch.long),
    )
    return batch, logps


def step(made: Variant, batch: Batch, logps: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    batch, advantages, _ = learned_responses(made, batch, None)
    leaf = logps.clone().requires_grad_()
    loss = step_loss(made, batch, leaf, advantages, version=0)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


# rules


def ratios(*rows: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Old and behaviour log-probabilities of these log-ratios, and the mask; shorter rows are padded."""
    T = max(map(len, rows))
    mask = torch.arange(T) < torch.tensor([[len(row)] for row in rows])
    behaviour = torch.full(mask.shape, -1.0, dtype=torch.float64)
    apart = torch.tensor([row + [0.0] * (T - len(row)) for row in rows], dtype=torch.float64)
    return behaviour + apart, behaviour, mask


EXAMPLE = ratios([0.3, -0.1, 0.2], [-0.9, 0.05])


@pytest.mark.parametrize(
    ("estimator", "over", "values"),
    [
        ("k1", "sum", (-0.4, 0.85)),
        ("k1", "mean", (-0.1333, 0.425)),
        ("k2", "sum", (0.07, 0.4062)),
        ("k2", "mean", (0.0233, 0.2031)),
        ("k2", "max", (0.045, 0.405)),
        ("k3", "sum", (0.0761, 0.3078)),
        ("k3", "mean", (0.0254, 0.1539)),
        ("k3", "max", (0.0499, 0.3066)),
    ],
)
def test_statistics_of_responses_by_hand(estimator: str, over: str, values: tuple[float, float]) -> None:
    """To four digits: a bound just above keeps the response, one just below does not."""
    for row, value in enumerate(values):
        for beyond, stays in ((1e-4, True), (-1e-4, False)):
            if estimator == "k1":  # bounds are on e^k1, from either side
                bound = math.exp(abs(value) + beyond)
                bounds = {"high": bound, "low": 0.0} if value > 0 else {"high": 10.0, "low": 1 / bound}
            else:
                bounds = {"high": value + beyond}
            keep = rejection(*EXAMPLE, estimator=estimator, over=over, **bounds)[1]
            assert bool(keep[row, 0]) is stays
            assert keep[row].equal(EXAMPLE[2][row] & keep[row, 0])


def test_ratios_of_responses_by_hand() -> None:
    """Products 1.4918 and .4274, geometric means 1.1426 and .6538."""
    assert sequence_truncated(*EXAMPLE)[:, 0].tolist() == pytest.approx([1.4918, 0.4274], abs=5e-5)
    for bounds, kept in (({"low": 0.6537}, [1, 1]), ({"low": 0.6539}, [1, 0]), ({"high": 1.1425}, [0, 1])):
        weights = geometric_mean_masked(*EXAMPLE, **{"low": 0.1, "high": 9.0, **bounds})
        assert weights[:, 0].ne(0).tolist() == kept
    assert geometric_mean_masked(*EXAMPLE, low=0.1, high=1.1427)[0, 0] > 0


def test_a_hole_shrinks_what_is_kept_and_not_what_was_there() -> None:
    """`token_k1` takes one of five tokens: a token weighs 1/4 instead of 1/5, of its row 1 instead of 1/2."""
    old, behaviour, mask = (x[None] for x in EXAMPLE)
    batch = Batch.of(torch.tensor([[1.0, 1.0]]).double(), mask, old_logps=old, behaviour_logps=behaviour)
    for aggregator, of_all, kept in ((token_mean, 1 / 5, 1 / 4), (seq_mean_token_mean, 1 / 4, 1 / 2)):
        for denominator, weight in (("all", of_all), ("kept", kept)):
            made = variant(
                objective=policy_gradient, aggregator=aggregator, correction=rejection, denominator=denominator
            )
            leaf = old.clone().requires_grad_()
            loss = step_loss(made, batch, leaf, torch.ones_like(old))
            (slope,) = torch.autograd.grad(loss, leaf)
            assert slope[0, 1].tolist() == pytest.approx([0, -weight, 0])


@given(seeds, st.sampled_from(["k2", "k3"]), st.floats(0.01, 0.5))
def test_no_token_has_a_negative_divergence(seed: int, estimator: str, high: float) -> None:
    """So a sum within the bound has its largest within it, and that is every token's."""
    rows = RowTensors.of(batch_of(seed)[0], torch.zeros(2, 3, 5))
    tensors = (rows["old_logps"], rows["behaviour_logps"], rows["mask"])
    token, largest, mean, total = (
        rejection(*tensors, estimator=estimator, over=over, high=high)[1] for over in ("token", "max", "mean", "sum")
    )
    assert (largest | ~total).all()
    assert (mean | ~largest).all()
    assert largest.equal(tensors[2] & (token | ~tensors[2]).all(-1, keepdim=True))


# whole steps


@pytest.mark.parametrize("part", SHIPPED, ids=lambda part: part.name)
def test_a_sampler_that_agrees_changes_no_bit(part: Part) -> None:
    batch, logps = batch_of(0)
    batch = batch.having(behaviour_logps=batch.old_logps)
    for denominator in ("all", "kept"):
        corrected = step(variant(correction=part, denominator=denominator), batch, logps)
        for one, other in zip(corrected, step(variant(), batch, logps), strict=True):
            assert torch.equal(one, other)


@given(seeds)
def test_bounds_that_nothing_reaches_are_none(seed: int) -> None:
    """OPSM, VACO and both readings of M2PO; OPSM of good responses too."""
    batch, logps = batch_of(seed)
    plain = step(variant(), batch, logps)
    for made in (
        variant(objective=off_policy_masked_clip.using(threshold=math.inf)),
        variant(correction=second_moment_rejection.using(threshold=math.inf)),
    ):
        for one, other in zip(step(made, batch, logps), plain, strict=True):
            torch.testing.assert_close(one, other)
    unbounded = step(variant(correction=vaco.using(bound=math.inf)), batch, logps)
    for one, other in zip(unbounded, step(variant(correction=token_truncated), batch, logps), strict=True):
        torch.testing.assert_close(one, other)
    wide = variant(objective=clip.using(eps_low=1.0, eps_high=math.inf), anchor="sampler")
    loose = variant(objective=m2po.using(threshold=math.inf), anchor="sampler")
    for one, other in zip(step(loose, batch, logps), step(wide, batch, logps), strict=True):
        torch.testing.assert_close(one, other)
    rows = RowTensors.of(batch, torch.ones(2, 3, 5).double())
    good = [logps.flatten(0, 1), *(rows[name] for name in ("old_logps", "advantages", "mask", "behaviour_logps"))]
    low, none = (off_policy_masked_clip(*good, threshold=bound).loss for bound in (1e-9, math.inf))
    assert torch.equal(low, none)


@given(seeds, st.floats(0.001, 0.3))
def test_outward_tokens_that_stay_have_a_second_moment_within_the_threshold(seed: int, threshold: float) -> None:
    """And the one that is nearest among those left out would be too many."""
    batch, logps = batch_of(seed)
    rows = RowTensors.of(batch, batch.rewards[..., None].expand(2, 3, 5))
    difference = (logps.flatten(0, 1) - rows["behaviour_logps"]).where(rows["mask"], 0.0)
    outward = rows["mask"] & (rows["advantages"] * difference > 0)
    made = variant(objective=m2po.using(threshold=threshold), anchor="sampler", aggregator=token_sum)
    leaf = logps.clone().requires_grad_()
    (slope,) = torch.autograd.grad(step_loss(made, batch, leaf, batch.rewards[..., None].expand(2, 3, 5)), leaf)
    kept = slope.flatten(0, 1).ne(0)
    assert kept[rows["mask"] & ~outward].all()
    stay, out = difference[outward & kept].square(), difference[outward & ~kept].square()
    assert not stay.numel() or float(stay.mean()) <= threshold
    assert not out.numel() or float(torch.cat([stay, out.min()[None]]).mean()) > threshold


def test_a_second_moment_by_micro_batch_is_another_correction() -> None:
    """Squares .04 .01 and .09 .0025, threshold .04: alone the third is its row's one too many, of all four none is."""
    old, behaviour, mask = ratios([0.2, 0.1], [0.3, 0.05])
    assert second_moment_rejection(old, behaviour, mask)[1].all()
    halves = [second_moment_rejection(old[i : i + 1], behaviour[i : i + 1], mask[i : i + 1])[1] for i in (0, 1)]
    assert torch.cat(halves).tolist() == [[True, True], [False, True]]


@given(seeds)
def test_topr_is_importance_sampling_below_1_and_reinforce_above(seed: int) -> None:
    batch, logps = batch_of(seed)
    rows = RowTensors.of(batch, torch.ones(2, 3, 5).double())
    mask, advantages = rows["mask"], rows["advantages"]
    old = rows["old_logps"]

    def slope(difference: Tensor, reward: float) -> Tensor:
        leaf = (old + difference).requires_grad_()
        loss = topr(leaf, old, advantages, torch.full((6,), reward).double(), mask, level="token").loss
        return torch.autograd.grad(loss[mask].sum(), leaf)[0][mask]

    apart = (logps.flatten(0, 1) - old).abs()
    torch.testing.assert_close(slope(-apart, 0.0), -torch.exp(-apart)[mask])
    assert slope(apart, 0.0).eq(-1).all()
    assert slope(apart, 1.0).equal(slope(-apart, 1.0))


@given(seeds, st.floats(0.01, 0.3))
def test_dppo_is_symmetric_in_advantage_and_move(seed: int, threshold: float) -> None:
    """(A, move) and (-A, -move) are kept or stopped alike."""
    draw = torch.Generator().manual_seed(seed)
    new, old = (torch.rand(1, 50, generator=draw, dtype=torch.float64).clamp(0.01).log() for _ in range(2))
    advantages = torch.randn(1, 50, generator=draw, dtype=torch.float64)
    bounds = {"threshold_low": threshold, "threshold_high": threshold}
    one = dppo_tv_mask(new, old, advantages, **bounds).info["clip_fraction"]
    other = dppo_tv_mask(old, new, -advantages, **bounds).info["clip_fraction"]
    assert one.equal(other)
    assert one.any()
    assert not one.all()


def test_dppo_by_hand() -> None:
    """.5 to .75 is a ratio of 1.5 and stopped, .001 to .01 one of 10 and not."""
    new, old = (torch.tensor([x]).double().log() for x in ([0.75, 0.01], [0.5, 0.001]))
    assert dppo_tv_mask(new, old, torch.ones(1, 2).double()).info["clip_fraction"].tolist() == [[True, False]]


# means


@given(st.integers(1, 4), st.integers(1, 3), seeds)
def test_turns_as_rows_weigh_an_episode_by_their_number(rows: int, size: int, seed: int) -> None:
    """Each run a row of its own, with its share 1 / K_i of the loss: the mean over runs times B / sum of K_i."""
    mask = torch.rand(rows * size, 7, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[:, 0] = True
    begins = mask & ~torch.nn.functional.pad(mask[:, :-1], (1, 0))
    run, turns = begins.cumsum(-1), begins.sum(-1)
    episode = torch.arange(len(mask)).repeat_interleave(turns)
    which = torch.cat([torch.arange(1, int(k) + 1) for k in turns])
    apart = mask[episode] & (run[episode] == which[:, None])
    share = seq_mean_token_mean(apart) / turns[episode][:, None]
    joined = torch.zeros(mask.shape, dtype=torch.float64).index_add(0, episode, share)
    torch.testing.assert_close(joined, segment_mean(mask) * len(mask) / int(turns.sum()))
    one_turn = mask.cumprod(-1).bool()
    torch.testing.assert_close(segment_mean(one_turn), seq_mean_token_mean(one_turn))


@given(seeds)
def test_means_over_prompts_weigh_1_in_all(seed: int) -> None:
    mask = batch_of(seed)[0].rows("mask")
    assert float(prompt_mean(mask, group_size=3).sum()) == pytest.approx(1)
    assert float(segment_mean(mask).sum()) == pytest.approx(1)


# credit


def test_of_five_entropies_a_fifth_is_the_largest_alone() -> None:
    """The quantile .8 of .1 .2 .3 1.5 2 is 1.6."""
    entropy = torch.tensor([[[0.1, 0.2, 0.3, 1.5, 2.0]]])
    batch = Batch.of([[1.0]], torch.ones(1, 1, 5).bool(), behaviour_entropy=entropy)
    assert top_entropy(batch, torch.ones(1, 1, 5)).tolist() == [[[0, 0, 0, 0, 1]]]
    just_below = batch.having(behaviour_entropy=torch.tensor([[[0.1, 0.2, 0.3, 1.5, 1.5]]]))
    assert top_entropy(just_below, torch.ones(1, 1, 5)).tolist() == [[[0, 0, 0, 1, 1]]]


@given(seeds)
def test_credit_that_is_off_changes_no_bit_and_the_kl_never(seed: int) -> None:
    batch, logps = batch_of(seed)
    plain = step(variant(), batch, logps)
    off = (top_entropy.using(share=1.0), advantage_clip.using(low=-math.inf, high=math.inf))
    for chain in ((off[0],), (off[1],), off):
        for one, other in zip(step(variant(credit=chain), batch, logps), plain, strict=True):
            assert torch.equal(one, other)
    made = variant(credit=top_entropy.using(share=0.2), kl=k3, kl_coef=0.5)
    chosen = learned_responses(made, batch, None)[1].ne(0)
    with_kl = step(made, batch, logps)[1] - step(variant(credit=made.credit), batch, logps)[1]
    kl_alone = step(variant(kl=k3, kl_coef=0.5), batch, logps)[1] - plain[1]
    torch.testing.assert_close(with_kl, kl_alone)
    assert kl_alone[batch.mask & ~chosen].ne(0).all()


# truncated sampling


def test_a_mixture_of_supports_is_a_log_mass_at_every_token_and_rules_over_responses_refuse_it() -> None:
    """S = .95 at each of 100 tokens: a product of .0059 and a geometric mean of .95; a token's weight is .95."""
    mixed = ratios([math.log(0.95)] * 100)
    assert token_truncated(*mixed)[0].tolist() == pytest.approx([0.95] * 100)
    assert float(sequence_truncated(*mixed)[0, 0]) == pytest.approx(0.0059, abs=5e-5)
    for low, high in ((0.999, 1.001), (0.999, 1.002), (0.99, 1.01)):
        assert geometric_mean_masked(*mixed, low=low, high=high).eq(0).all()
        assert not rejection(*mixed, over="mean", low=1 / high, high=1 / low)[1].any()
    whole = ratios([0.0] * 100)  # S = 1, or both sides cut down
    for part in SHIPPED:
        asked = dict(zip(("old_logps", "behaviour_logps", "mask"), whole, strict=True))
        tensors = {**asked, "advantages": torch.ones_like(whole[0]), "token_age": torch.zeros(whole[0].shape)}
        result = part(*(tensors[name] for name in part.parameters))
        factors, keep = result if isinstance(result, tuple) else (result, whole[2])
        assert factors.eq(1).all()
        assert keep.all()
