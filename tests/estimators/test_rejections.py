"""What is taken out of the loss for the distance of sampler and trainer: numbers by hand, then what always holds."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import CORRECTIONS, Part
from core.errors import GrpoLabError
from estimators.corrections import normalized, segment_truncated, token_masked, token_truncated, vaco
from estimators.rejections import (
    age_rejection,
    binary_kl_rejection,
    outlier_rejection,
    rejection,
    second_moment_rejection,
)

# log-ratios of trainer to sampler: a response of three tokens, and one of two
L = torch.tensor([[0.3, -0.1, 0.2], [-0.9, 0.05, 7.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, True, False]])
BEHAVIOUR = torch.full_like(L, -1.0)
ALL = [[True, True, True], [True, True, False]]
NONE = [[False] * 3, [False] * 3]
FIRST_ROW = [[True, True, True], [False] * 3]


def kept(part: Part, difference: Tensor = L, mask: Tensor = MASK, **hyper: Any) -> list[list[bool]]:
    """What stays; the factors are 1."""
    behaviour = torch.full_like(difference, -1.0)
    factors, keep = part(behaviour + difference, behaviour, mask, **hyper)
    assert factors.eq(1).all()
    return keep.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("estimator", "over", "bounds", "expected"),
    [
        # k1 = -L: 0.9 is above log 2
        ("k1", "token", {"high": 2.0}, [[True, True, True], [False, True, False]]),
        ("k1", "token", {"high": 10.0, "low": 0.5}, [[True, True, True], [True, True, False]]),
        # sums -0.4 and 0.85, log 2 = 0.693
        ("k1", "sum", {"high": 2.0}, FIRST_ROW),
        # means -0.1333 and 0.425: outside 0.999 to 1.001, inside 0.5 to 2
        ("k1", "mean", {"high": 1.001, "low": 0.999}, NONE),
        ("k1", "mean", {"high": 2.0}, ALL),
        # k2 sums 0.07 and 0.4062, means 0.0233 and 0.2031, largest 0.045 and 0.405
        ("k2", "sum", {"high": 0.08}, FIRST_ROW),
        ("k2", "mean", {"high": 0.02}, NONE),
        ("k2", "max", {"high": 0.1}, FIRST_ROW),
        ("k2", "token", {"high": 0.04}, [[False, True, True], [False, True, False]]),
        # k3 sums 0.0761 and 0.3078, means 0.0254 and 0.1539, largest 0.0499 and 0.3066
        ("k3", "sum", {"high": 0.077}, FIRST_ROW),
        ("k3", "mean", {"high": 0.01}, NONE),
        ("k3", "max", {"high": 0.05}, FIRST_ROW),
        ("k3", "token", {"high": 0.01}, [[False, True, False], [False, True, False]]),
    ],
)
def test_rules_by_hand(estimator: str, over: str, bounds: dict[str, Any], expected: list[list[bool]]) -> None:
    assert kept(rejection, estimator=estimator, over=over, **bounds) == expected


def test_bounds_of_k1_are_on_the_sampler_over_the_trainer() -> None:
    """0.5 to 10 keeps trainer over sampler within 0.1 to 2."""
    ratios = torch.tensor([[0.05, 0.11, 1.9, 2.1]], dtype=torch.float64).log()
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert kept(rejection, ratios, mask, low=0.5, high=10.0) == [[False, True, True, False]]
    assert kept(rejection, ratios, mask, low=0.0, high=10.0) == [[False, True, True, True]]


def test_a_lower_bound_is_for_k1_alone() -> None:
    with pytest.raises(GrpoLabError, match=r"rejection.low = 0.5 with estimator k3, which is never below 0"):
        kept(rejection, estimator="k3", low=0.5)


def test_log_ratios_are_bounded_at_20() -> None:
    """So k2 is at most 200, and a response of two tokens at most 400."""
    difference = torch.tensor([[25.0, -25.0]], dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for over, most in (("token", 200.0), ("sum", 400.0)):
        assert kept(rejection, difference, mask, estimator="k2", over=over, high=most) == [[True, True]]
        assert kept(rejection, difference, mask, estimator="k2", over=over, high=0.99 * most) == [[False, False]]


def test_outliers_take_the_response_along() -> None:
    difference = torch.tensor([[0.0, math.log(101.0)], [0.0, math.log(99.0)], [math.log(2e-4), 0.0]])
    mask = torch.ones(3, 2, dtype=torch.bool)
    assert kept(outlier_rejection, difference, mask) == [[False, False], [True, True], [True, True]]
    assert kept(outlier_rejection, difference, mask, low=1e-3) == [[False, False], [True, True], [False, False]]


def test_a_response_is_as_old_as_its_oldest_token() -> None:
    """The third token of the second response is none of its own."""
    age = torch.tensor([[0, 4, 2], [3, 2, 9]])
    for most, expected in ((4, ALL), (3, [[False] * 3, [True, True, False]]), (2, NONE)):
        factors, keep = age_rejection(MASK, age, most=most)
        assert keep.tolist() == expected
        assert factors.eq(1).all()


@pytest.mark.parametrize(("p", "b", "divergence"), [(0.3, 0.5, 0.0872), (0.9, 0.99, 0.1445), (0.001, 0.01, 0.0141)])
def test_binary_divergence_by_hand(p: float, b: float, divergence: float) -> None:
    """The larger of both directions: its order is the reverse of that of the ratios 1.67, 1.1 and 10."""
    old, behaviour = torch.tensor([[p]]).log(), torch.tensor([[b]]).log()
    for one, other in ((old, behaviour), (behaviour, old)):
        for high, stays in ((divergence + 1e-4, True), (divergence - 1e-4, False)):
            assert binary_kl_rejection(one, other, torch.tensor([[True]]), high=high)[1].item() is stays


@pytest.mark.parametrize("sure", [0.0, -100.0])
def test_binary_divergence_of_what_is_certain_is_finite(sure: float) -> None:
    """1 and 0 are 1e-8 off: against .5 it is .5 log .5 + .5 log (.5 / 1e-8) = 8.5172, against itself 0."""
    old, half = torch.tensor([[sure]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64).log()
    token = torch.tensor([[True]])
    for one, other in ((old, half), (half, old)):
        assert [binary_kl_rejection(one, other, token, high=h)[1].item() for h in (8.518, 8.516)] == [True, False]
    assert binary_kl_rejection(old, old, token, high=1e-12)[1].item()


def test_second_moment_by_hand() -> None:
    """Squares .0025 .36 .04 .01, mean .1031: without the largest .0175."""
    difference = torch.tensor([[0.05, -0.6, 0.2, 0.1]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert kept(second_moment_rejection, difference, mask) == [[True, False, True, True]]
    assert kept(second_moment_rejection, difference, mask, threshold=0.017) == [[True, False, False, True]]
    # one always stays
    assert kept(second_moment_rejection, difference, mask, threshold=1e-9) == [[True, False, False, False]]
    assert kept(second_moment_rejection, difference, mask, threshold=0.2) == [[True] * 4]
    # a mean of the threshold itself is too much, and of equal tokens the earlier stay
    halves = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert kept(second_moment_rejection, halves, mask[:, :2], threshold=0.25) == [[True, False]]
    many = torch.tensor([[0.3] * 20 + [0.1] * 10], dtype=torch.float64)  # (10 x .01 + 6 x .09) / 16 = .04
    stay = kept(second_moment_rejection, many, torch.ones(1, 30, dtype=torch.bool), threshold=0.041)
    assert stay == [[True] * 6 + [False] * 14 + [True] * 10]


def test_vaco_by_hand() -> None:
    """Mean |ratio - 1| is .2221 and .3224: with a bound of .3 the second response loses what is pushed on."""
    old = BEHAVIOUR + L
    downward = torch.full_like(L, -1.0)
    factors, keep = vaco(old, BEHAVIOUR, MASK, downward, bound=0.3)
    assert keep.tolist() == [[True, True, True], [False, True, False]]
    torch.testing.assert_close(factors[MASK], L[MASK].exp())
    assert vaco(old, BEHAVIOUR, MASK, -downward, bound=0.3)[1].tolist() == [[True] * 3, [True, False, False]]
    assert vaco(old, BEHAVIOUR, MASK, downward, bound=0.2)[1].tolist() == [[True, False, True], [False, True, False]]
    assert vaco(old, BEHAVIOUR, MASK, downward, bound=math.inf)[1].tolist() == ALL
    assert float(vaco(BEHAVIOUR + 9, BEHAVIOUR, MASK, downward)[0].max()) == 2


def test_weights_over_their_mean_by_hand() -> None:
    """Ratios 1.3499 .9048 1.2214 .4066 1.0513, mean .9868: a weight may exceed the cap."""
    weights = normalized(BEHAVIOUR + L, BEHAVIOUR, MASK)
    assert weights[MASK].tolist() == pytest.approx([1.3680, 0.9170, 1.2377, 0.4120, 1.0654], abs=1e-4)
    assert weights[~MASK].item() == 1
    # of responses: 1.4918 and .4274, mean .9596
    of_rows = normalized(BEHAVIOUR + L, BEHAVIOUR, MASK, level="sequence")
    assert of_rows[:, 0].tolist() == pytest.approx([1.5546, 0.4454], abs=1e-4)
    assert normalized(BEHAVIOUR, BEHAVIOUR, ~MASK & MASK).eq(1).all()


def test_segments_have_one_weight_each() -> None:
    """Two runs: a mean log-ratio of .2 over two tokens, and .5 at one."""
    difference = torch.tensor([[0.1, 0.3, 9.0, 0.5]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True]])
    weights = segment_truncated(difference - 1, torch.full_like(difference, -1.0), mask, cap=1.5)
    assert weights[0].tolist() == pytest.approx([math.exp(0.2), math.exp(0.2), 1.0, 1.5])


# what holds whatever the numbers


seeds = st.integers(0, 300)


def random_rows(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    old, noise = (torch.randn(5, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(5, 6, generator=draw) < 0.7
    mask[0, 0] = True
    return old - 2, old - 2 + 0.4 * noise, mask


REJECTIONS = [part for part in CORRECTIONS.values() if part in (rejection, outlier_rejection, binary_kl_rejection)]


@given(seeds)
def test_a_sampler_that_agrees_keeps_all(seed: int) -> None:
    old, _, mask = random_rows(seed)
    for part in (*REJECTIONS, second_moment_rejection):
        assert part(old, old, mask)[1].equal(mask)


@given(seeds)
def test_a_token_without_a_log_probability_from_the_sampler_is_taken_out(seed: int) -> None:
    old, behaviour, mask = random_rows(seed)
    behaviour[0, 0] = math.nan
    for part in (*REJECTIONS, second_moment_rejection):
        assert not part(old, behaviour, mask)[1][0, 0]


@given(seeds, st.floats(1.01, 3))
def test_the_sum_of_k1_bounds_the_ratio_of_the_response(seed: int, high: float) -> None:
    old, behaviour, mask = random_rows(seed)
    product = torch.where(mask, (old - behaviour).exp(), 1.0).prod(-1)
    inside = (product <= high) & (product >= 1 / high)
    keep = rejection(old, behaviour, mask, over="sum", high=high)[1]
    assert keep.equal(mask & inside[:, None])


@given(seeds)
def test_of_one_token_all_statistics_are_the_same(seed: int) -> None:
    old, behaviour, _ = random_rows(seed)
    one = torch.zeros_like(old, dtype=torch.bool).index_fill(1, torch.tensor([2]), True)
    for estimator in ("k1", "k2", "k3"):
        answers = [
            rejection(old, behaviour, one, estimator=estimator, over=over, high=1.1)[1]
            for over in ("token", "sum", "mean", "max")
        ]
        assert all(answer.equal(answers[0]) for answer in answers)


@given(seeds, st.floats(0.5, 3))
def test_masked_weights_are_at_most_truncated_ones_and_equal_within_the_bound(seed: int, cap: float) -> None:
    old, behaviour, mask = random_rows(seed)
    masked, truncated = token_masked(old, behaviour, mask, high=cap), token_truncated(old, behaviour, mask, cap=cap)
    assert (masked <= truncated)[mask].all()
    inside = mask & ((old - behaviour).exp() <= cap)
    assert masked[inside].equal(truncated[inside])


@given(seeds)
def test_normalized_weights_weigh_1_on_average(seed: int) -> None:
    old, behaviour, mask = random_rows(seed)
    assert float(normalized(old, behaviour, mask)[mask].mean()) == pytest.approx(1)


@given(seeds, st.floats(0.001, 0.3))
def test_what_stays_has_a_second_moment_below_the_threshold(seed: int, threshold: float) -> None:
    old, behaviour, mask = random_rows(seed)
    squares = (old - behaviour).square()
    keep = second_moment_rejection(old, behaviour, mask, threshold=threshold)[1]
    assert float(squares[keep].mean()) < threshold or int(keep.sum()) == 1
    if (mask & ~keep).any():  # and one more would be too many
        least = squares[mask & ~keep].min()
        assert float(torch.cat([squares[keep], least[None]]).mean()) >= threshold


@given(seeds)
def test_binary_divergence_is_the_same_both_ways(seed: int) -> None:
    old, behaviour, mask = random_rows(seed)
    low = (-old.abs(), -behaviour.abs())
    assert binary_kl_rejection(*low, mask)[1].equal(binary_kl_rejection(*low[::-1], mask)[1])
