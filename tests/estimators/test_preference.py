"""Preferences within a group: DPO, IPO and KTO by hand, their closed gradients, and what must not matter."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from core import VARIANTS, Batch, GrpoLabError, Part, Variant
from core.loop.loss import compute_advantages, counted_rows, prepare, step_loss, token_loss
from core.loop.rows import RowTensors
from core.loop.update import UpdateMetrics, accumulate_gradients
from core.model.policy import Policy
from core.parts.options import ObjectiveOptions
from estimators.advantages.group import best_against_worst, group_mean
from estimators.aggregators import seq_mean_token_mean
from estimators.objectives.preference import dpo_sigmoid, ipo_square, kto_value

OBJECTIVES = (dpo_sigmoid, ipo_square, kto_value)
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda part: part.name)
seeds = st.integers(0, 1000)


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def of(objective: Part, **hyper: Any) -> Variant:
    return Variant(
        advantage=best_against_worst, objective=objective.using(**hyper).resolved(), aggregator=seq_mean_token_mean
    )


def value_and_gradient(variant: Variant, batch: Batch, logps: Tensor, advantages: Tensor) -> tuple[float, Tensor]:
    """The loss of a step, and its gradient in the log-probs [P, G, T]."""
    leaf = logps.clone().requires_grad_()
    loss = step_loss(variant, batch, leaf, advantages)
    return float(loss.detach()), torch.autograd.grad(loss, leaf)[0]


def info(variant: Variant, batch: Batch, logps: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    rows = RowTensors.of(batch, advantages)
    if ObjectiveOptions.of(variant.objective).prepare:
        rows["prepared"] = prepare(variant, rows, logps.flatten(0, 1), torch.Generator())
    logged = token_loss(variant, rows, logps.flatten(0, 1), batch.group_size)[1]
    return {name: x.view(batch.mask.shape) for name, x in logged.items()}


class Case:
    """Ragged groups with holes in the mask, float64, and advantages of either sign or 0."""

    def __init__(self, seed: int, P: int = 3, G: int = 4, T: int = 5, *, empty: bool = False) -> None:
        draw = torch.Generator().manual_seed(seed)
        mask = torch.rand(P, G, T, generator=draw) < 0.6
        mask[..., 0] = True
        if empty:
            mask[torch.rand(P, G, generator=draw) < 0.3] = False

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.logps = noise(P, G, T) - 2
        self.batch = Batch.of(noise(P, G), mask, ref_logps=self.logps + noise(P, G, T))
        signs = torch.randint(-1, 2, (P, G, 1), generator=draw)
        self.sides = signs[..., 0]
        self.advantages = (signs * (0.1 + noise(P, G, 1).abs())).expand(P, G, T)

    def step(self, objective: Part, **hyper: Any) -> tuple[float, Tensor]:
        return value_and_gradient(of(objective, **hyper), self.batch, self.logps, self.advantages)

    def gains(self) -> list[list[float]]:
        """h, and 0 for a row without a counted token."""
        difference = self.logps - self.batch.require("ref_logps")
        return [
            [float(sum(x for x, m in zip(row, counted, strict=True) if m)) for row, counted in zip(*group, strict=True)]
            for group in zip(difference.tolist(), self.batch.mask.tolist(), strict=True)
        ]

    def pairs(self, p: int) -> list[tuple[int, int]]:
        """Preferred and dispreferred responses of a group, those without a counted token left out."""
        there = [g for g in range(self.batch.group_size) if self.batch.mask[p, g].any()]
        return [(w, x) for w in there for x in there if self.sides[p, w] > 0 > self.sides[p, x]]

    def looped(self, of_pair: Callable[[float], float]) -> float:
        """The mean over all groups of the mean over their pairs, in Python."""
        gains, total = self.gains(), 0.0
        for p in range(self.batch.groups):
            pairs = self.pairs(p)
            total += sum(of_pair(gains[p][w] - gains[p][x]) for w, x in pairs) / max(1, len(pairs))
        return total / self.batch.groups


def pair(swapped: bool = False) -> tuple[Batch, Tensor, Tensor]:
    """One pair: log-ratios 0.5 and -0.2 in the preferred response (h = 0.3), -0.7 in the other (h = -0.7)."""
    logps = doubles([-1.0, -2.0], [-3.0, 0.0])[None]
    ref = doubles([-1.5, -1.8], [-2.3, 0.0])[None]
    batch = Batch.of([[1.0, 0.0]], torch.tensor([[[True, True], [True, False]]]), ref_logps=ref)
    advantages = doubles([1.0, 1.0], [-1.0, -1.0])[None]
    return batch, logps, -advantages if swapped else advantages


# who is preferred


def test_the_best_is_preferred_to_the_worst() -> None:
    batch = Batch.of(doubles([3, 1, 0, 2], [0.7, 0.7, 0.7, 0.7], [-1, -2, -3, -1.5]))
    assert best_against_worst(batch).tolist() == [[1, 0, -1, 0], [0, 0, 0, 0], [1, 0, -1, 0]]


def test_ties_share_the_place() -> None:
    batch = Batch.of(doubles([1, 1, 0, 0], [1, 0, 0, 0], [2, 1, 1, 2]))
    assert best_against_worst(batch).tolist() == [[1, 1, -1, -1], [1, -1, -1, -1], [1, -1, -1, 1]]


@given(st.lists(st.integers(-2, 2), min_size=2, max_size=2))
def test_of_two_it_is_the_sign_of_the_group_mean(rewards: list[int]) -> None:
    batch = Batch.of(doubles([float(r) for r in rewards]))
    assert torch.equal(best_against_worst(batch), group_mean(batch).sign())


# a pair by hand


@pytest.mark.parametrize(
    ("objective", "hyper", "expected"),
    [
        # h_w - h_l = 0.3 + 0.7 = 1
        (dpo_sigmoid, {"beta": 0.5}, -math.log(sigmoid(0.5))),
        (dpo_sigmoid, {}, -math.log(sigmoid(0.1))),
        (
            dpo_sigmoid,
            {"beta": 0.5, "label_smoothing": 0.2},
            -0.8 * math.log(sigmoid(0.5)) - 0.2 * math.log(sigmoid(-0.5)),
        ),
        (ipo_square, {"beta": 0.25}, (1 - 2) ** 2),
        (ipo_square, {}, (1 - 5) ** 2),
        # means over two tokens and over one: 0.15 + 0.7
        (ipo_square, {"beta": 0.25, "length_normalised": True}, (0.85 - 2) ** 2),
        # the mean of 0.3 and -0.7 is below 0, so that z = 0
        (kto_value, {"beta": 0.5}, (sigmoid(-0.15) + sigmoid(-0.35)) / 2),
        (kto_value, {}, (sigmoid(-0.03) + sigmoid(-0.07)) / 2),
    ],
)
def test_a_pair_by_hand(objective: Part, hyper: dict[str, Any], expected: float) -> None:
    assert value_and_gradient(of(objective, **hyper), *pair())[0] == pytest.approx(expected, rel=1e-12)


def test_ktos_reference_point_by_hand() -> None:
    """h = 3, 1 and 0 with one token each, z = 4/3: what gains less than the mean is no gain. The third has no side."""
    logps = doubles([3.0], [1.0], [0.0])[None] - 5
    batch = Batch.of([[1.0, 0.5, 0.0]], ref_logps=torch.full_like(logps, -5))
    advantages = doubles([1.0], [-1.0], [0.0])[None]
    value, gradient = value_and_gradient(of(kto_value, beta=1.0), batch, logps, advantages)
    good, bad = sigmoid(-(3 - 4 / 3)), sigmoid(1 - 4 / 3)
    assert value == pytest.approx((good + bad) / 3)
    # z has no gradient: with it, every response would pull at every other
    expected = [-good * (1 - good) / 3, bad * (1 - bad) / 3, 0]
    assert gradient.flatten().tolist() == pytest.approx(expected)
    assert info(of(kto_value), batch, logps, advantages)["reference_point"].flatten().tolist() == pytest.approx(
        [4 / 3] * 3
    )


def test_the_reference_point_is_that_of_the_whole_step() -> None:
    """Groups with mean h of 4 and -1: z = 1.5 for both, and a row without a counted token is in the mean with 0."""
    logps = doubles([5.0], [3.0])[None].repeat(2, 1, 1)
    logps[1] = doubles([-2.0], [0.0])
    batch = Batch.of([[1.0, 0.0]] * 2, ref_logps=torch.zeros_like(logps))
    rows = RowTensors.of(batch, torch.ones_like(logps))
    prepared = prepare(of(kto_value), rows, logps.flatten(0, 1), torch.Generator())
    assert prepared.tolist() == [[1.5]] * 4
    rows["mask"][1] = False
    assert prepare(of(kto_value), rows, logps.flatten(0, 1), torch.Generator()).tolist() == [[0.75]] * 4


def test_margin_and_accuracy_by_hand() -> None:
    for objective in OBJECTIVES:
        for swapped, margin, accuracy in ((False, 0.5, 1), (True, -0.5, 0)):
            logged = info(of(objective, beta=0.5), *pair(swapped))
            assert logged["preference_margin"].flatten().tolist() == pytest.approx([margin] * 4)
            assert logged["preference_accuracy"].flatten().tolist() == [accuracy] * 4
    # at the reference itself no pair is distinguished
    batch, _, advantages = pair()
    still = info(of(dpo_sigmoid), batch, batch.require("ref_logps"), advantages)
    assert still["preference_margin"].eq(0).all()
    assert still["preference_accuracy"].eq(0).all()


# gradients


@given(seeds, st.floats(0.05, 2), st.floats(0, 0.5))
def test_dpos_gradient_is_its_closed_form(seed: int, beta: float, s: float) -> None:
    """-beta (sigmoid(-m) - s) (grad log pi(y_w) - grad log pi(y_l)), m = beta (h_w - h_l)."""
    case = Case(seed, P=1, G=2)
    case.advantages = doubles([1.0], [-1.0])[None].expand(1, 2, 5)
    (gains,) = case.gains()
    gradient = case.step(dpo_sigmoid, beta=beta, label_smoothing=s)[1]
    slope = -beta * (sigmoid(-beta * (gains[0] - gains[1])) - s)
    expected = torch.where(case.batch.mask, slope * doubles([1.0], [-1.0])[None], 0.0)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@given(seeds)
def test_ipo_draws_to_its_target_from_both_sides(seed: int) -> None:
    """2 (h_w - h_l - target) on every token of the one, the opposite on the other's."""
    case = Case(seed, P=1, G=2)
    case.advantages = doubles([0.3], [-7.0])[None].expand(1, 2, 5)
    (gains,) = case.gains()
    gradient = case.step(ipo_square, beta=0.5)[1]
    slope = 2 * (gains[0] - gains[1] - 1)
    torch.testing.assert_close(gradient, torch.where(case.batch.mask, slope * doubles([1.0], [-1.0])[None], 0.0))


def test_on_policy_with_two_dpo_is_grpo_without_lengths() -> None:
    """At the reference, both push the better up and the worse down; DPO by beta / 2, whatever the length."""
    batch, _, _ = pair()
    logps = batch.require("ref_logps")
    gradients = {}
    for name in ("dpo", "dr_grpo"):
        variant = VARIANTS[name]()
        advantages, _ = compute_advantages(variant, batch, None)
        gradients[name] = value_and_gradient(variant, batch.having(old_logps=logps), logps, advantages.double())[1]
    # Dr. GRPO: advantages 1/2 and -1/2, over two rows and a limit of two tokens
    torch.testing.assert_close(gradients["dr_grpo"] * 8, gradients["dpo"] / 0.05)


# groups of more than two


@given(seeds, st.floats(0.05, 2), st.floats(0, 0.5), st.booleans())
def test_groups_of_any_size_are_the_mean_over_their_pairs(seed: int, beta: float, s: float, empty: bool) -> None:
    """Several on each side, none on one, and rows without a counted token, which are in no pair."""
    case = Case(seed, P=4, G=5, empty=empty)

    def smoothed(difference: float) -> float:
        return -(1 - s) * math.log(sigmoid(beta * difference)) - s * math.log(sigmoid(-beta * difference))

    assert case.step(dpo_sigmoid, beta=beta, label_smoothing=s)[0] == pytest.approx(case.looped(smoothed), rel=1e-9)
    squared = case.looped(lambda difference: (difference - 1 / (2 * beta)) ** 2)
    assert case.step(ipo_square, beta=beta)[0] == pytest.approx(squared, rel=1e-9)
    assert case.step(kto_value, beta=beta)[0] == pytest.approx(looped_kto(case, beta), rel=1e-9)


def looped_kto(case: Case, beta: float) -> float:
    gains = [h for group in case.gains() for h in group]
    z = max(0.0, sum(gains) / len(gains))
    sides = torch.where(case.batch.mask.any(-1), case.sides, 0).flatten().tolist()
    return sum(sigmoid(-side * beta * (h - z)) for side, h in zip(sides, gains, strict=True) if side) / len(gains)


@given(seeds)
def test_logged_figures_are_means_over_the_groups_pairs(seed: int) -> None:
    case = Case(seed, G=5)
    logged = info(of(ipo_square, beta=0.3), case.batch, case.logps, case.advantages)
    for p, gains in enumerate(case.gains()):
        margins = [0.3 * (gains[w] - gains[x]) for w, x in case.pairs(p)]
        mean = sum(margins) / max(1, len(margins))
        right = sum(m > 0 for m in margins) / max(1, len(margins))
        torch.testing.assert_close(logged["preference_margin"][p], torch.full((5, 5), mean, dtype=torch.float64))
        torch.testing.assert_close(logged["preference_accuracy"][p], torch.full((5, 5), right, dtype=torch.float64))


@given(seeds, st.sampled_from(OBJECTIVES))
def test_only_the_sign_of_an_advantage_is_read(seed: int, objective: Part) -> None:
    case = Case(seed)
    value, gradient = case.step(objective)
    case.advantages = case.advantages.sign() * 1e-3
    assert case.step(objective)[0] == value
    assert torch.equal(case.step(objective)[1], gradient)


# what has no influence


@pytest.mark.parametrize("objective", [dpo_sigmoid, ipo_square], ids=lambda part: part.name)
def test_a_group_of_which_no_token_counts_has_no_loss(objective: Part) -> None:
    """And not 0 / 0: a NaN would outlive any weight of 0."""
    case = Case(1)
    mask = case.batch.mask.clone()
    mask[0] = False
    loss = objective(case.logps, case.batch.require("ref_logps"), case.advantages, mask)
    assert loss.loss[0].eq(0).all()
    assert loss.loss[1:].ne(0).any()
    assert all(values[0].eq(0).all() for values in loss.info.values())


@every_objective
def test_ties_have_no_loss_and_no_gradient(objective: Part) -> None:
    case = Case(0)
    batch = case.batch.having(rewards=torch.full_like(case.batch.rewards, 0.7))
    advantages, _ = compute_advantages(of(objective), batch, None)
    value, gradient = value_and_gradient(of(objective), batch, case.logps, advantages)
    assert value == 0
    assert gradient.eq(0).all()
    assert not counted_rows(of(objective), batch, RowTensors.of(batch, advantages)).any()


@pytest.mark.parametrize("objective", [dpo_sigmoid, ipo_square], ids=lambda part: part.name)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_one_side_alone_is_no_pair(objective: Part, side: float) -> None:
    case = Case(1)
    value, gradient = value_and_gradient(of(objective), case.batch, case.logps, torch.full_like(case.logps, side))
    assert value == 0
    assert gradient.eq(0).all()


@given(seeds, st.sampled_from(OBJECTIVES), st.sampled_from([math.nan, math.inf, -1e4]))
def test_what_lies_outside_the_mask_has_no_influence(seed: int, objective: Part, junk: float) -> None:
    case = Case(seed, empty=True)
    expected = case.step(objective)
    mask = case.batch.mask
    case.logps, case.advantages = case.logps.where(mask, junk), case.advantages.where(mask, junk)
    case.batch = case.batch.having(ref_logps=case.batch.require("ref_logps").where(mask, junk))
    actual = case.step(objective)
    assert actual[0] == expected[0]
    assert torch.equal(actual[1], expected[1])
    assert actual[1][~mask].eq(0).all()


def test_a_row_without_a_counted_token_is_in_no_pair_and_leaves_its_share_to_the_others() -> None:
    """The group's loss is that of the pair that is left, and not two thirds of it."""
    batch, logps, advantages = pair()
    expected = value_and_gradient(of(dpo_sigmoid), batch, logps, advantages)
    wide = Batch.of(
        [[1.0, 0.0, 0.0]],
        torch.cat([batch.mask, torch.zeros(1, 1, 2, dtype=torch.bool)], 1),
        ref_logps=torch.nn.functional.pad(batch.require("ref_logps"), (0, 0, 0, 1)),
    )
    more = torch.nn.functional.pad(logps, (0, 0, 0, 1)), torch.nn.functional.pad(advantages, (0, 0, 0, 1), value=-1.0)
    actual = value_and_gradient(of(dpo_sigmoid), wide, *more)
    assert actual[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(actual[1][:, :2], expected[1])


# symmetries


@given(seeds, st.floats(0.05, 2))
def test_swapping_the_sides_flips_the_margin(seed: int, beta: float) -> None:
    """And label smoothing of a half cannot distinguish them."""
    case = Case(seed, empty=True)
    half = case.step(dpo_sigmoid, beta=beta, label_smoothing=0.5)
    before = info(of(dpo_sigmoid, beta=beta), case.batch, case.logps, case.advantages)["preference_margin"]
    case.advantages = -case.advantages
    after = info(of(dpo_sigmoid, beta=beta), case.batch, case.logps, case.advantages)["preference_margin"]
    torch.testing.assert_close(after, -before)
    again = case.step(dpo_sigmoid, beta=beta, label_smoothing=0.5)
    assert again[0] == pytest.approx(half[0])
    torch.testing.assert_close(again[1], half[1])


@given(seeds, st.sampled_from(OBJECTIVES))
def test_groups_apart_add_up_to_the_whole(seed: int, objective: Part) -> None:
    """KTO's reference point is the step's, and comes to each part from outside."""
    case = Case(seed, P=4)
    variant = of(objective)
    rows = RowTensors.of(case.batch, case.advantages)
    flat = case.logps.flatten(0, 1)
    if ObjectiveOptions.of(objective).prepare:
        rows["prepared"] = prepare(variant, rows, flat, torch.Generator())
    whole, _ = token_loss(variant, rows, flat, 4)
    for members in (torch.arange(4), torch.arange(4, 12), torch.arange(12, 16)):
        torch.testing.assert_close(token_loss(variant, rows.at(members), flat[members], 4)[0], whole[members])


@every_objective
def test_micro_batches_of_whole_groups_are_the_whole(objective: Part, tiny: Policy, make_batch: Any) -> None:
    batch = make_batch(groups=4, samples=3, holes=True)
    advantages, _ = compute_advantages(of(objective), batch, None)
    outcomes = []
    for micro in (10**9, 1):
        tiny.model.zero_grad()
        passes: list[Tensor] = []

        def backward(loss: Tensor, passes: list[Tensor] = passes) -> None:
            passes.append(loss.detach())
            torch.autograd.backward(loss)

        metrics = UpdateMetrics({})
        loss = accumulate_gradients(
            tiny,
            of(objective),
            batch,
            advantages,
            torch.Generator(),
            metrics,
            temperature=1.0,
            micro_tokens=micro,
            backward=backward,
        )
        gradients = torch.cat([p.grad.flatten() for p in tiny.model.parameters() if p.grad is not None])
        outcomes.append((len(passes), loss, gradients, metrics.averages()))
    (one, loss, gradients, logged), (many, same_loss, same_gradients, same_logged) = outcomes
    assert (one, many) == (1, 4)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    # log-probabilities are in float32
    torch.testing.assert_close(same_gradients, gradients, rtol=0.0, atol=1e-5 * float(gradients.abs().max()))
    assert same_logged == pytest.approx(logged, rel=1e-5)


# the variants


@pytest.mark.parametrize(("name", "objective"), [("dpo", dpo_sigmoid), ("ipo", ipo_square), ("kto", kto_value)])
def test_the_variants(name: str, objective: Part) -> None:
    built = VARIANTS[name]()
    assert built == replace(of(objective), objective=objective, name=name)
    assert "ref_logps" in built.needs
    assert "old_logps" not in built.needs


@pytest.mark.parametrize(
    ("objective", "hyper"),
    [
        (dpo_sigmoid, {"beta": 0.0}),
        (ipo_square, {"beta": 0.0}),
        (kto_value, {"beta": -0.1}),
        (dpo_sigmoid, {"label_smoothing": 0.6}),
    ],
)
def test_values_that_make_no_sense_are_refused(objective: Part, hyper: dict[str, float]) -> None:
    with pytest.raises(GrpoLabError, match=next(iter(hyper))):
        objective.using(**hyper).settings()


@given(seeds)
def test_ktos_value_is_bounded(seed: int) -> None:
    case = Case(seed)
    assume(case.sides.ne(0).any())
    assert 0 < case.step(kto_value, beta=5.0)[0] < 1
