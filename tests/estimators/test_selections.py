"""Which responses of a group are learnt from: numbers by hand, and when that is all of them."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import Batch, Part, Variant
from core.errors import GrpoLabError
from core.loop.loss import learned_responses
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.objectives import clip
from estimators.selections import gfpo, max_variance


def chosen(part: object, rewards: list[float], lengths: list[int] | None = None) -> list[int]:
    keep = part(Batch.of([rewards], lengths=[lengths] if lengths else None))  # type: ignore[operator]
    assert keep.dtype == torch.bool
    return keep[0].nonzero()[:, 0].tolist()  # type: ignore[no-any-return]


def test_the_shortest_and_those_with_the_most_reward_a_token() -> None:
    rewards, lengths = [1.0, 1.0, 0.0, 0.0], [2, 5, 3, 4]
    assert chosen(gfpo.using(k=2), rewards, lengths) == [0, 2]
    assert chosen(gfpo.using(k=2, by="most reward a token"), rewards, lengths) == [0, 1]
    # of equal ones the earlier
    assert chosen(gfpo.using(k=3), rewards, [2, 2, 2, 2]) == [0, 1, 2]


def test_reward_a_token_by_hand() -> None:
    """3 of one token are more than 4 of two; a response without a token counts as one of one, 1 against 2."""
    best = gfpo.using(k=1, by="most reward a token")
    assert chosen(best, [4.0, 3.0], [2, 1]) == [1]
    assert chosen(best, [1.0, 4.0], [0, 2]) == [1]


def test_equals_among_many_go_by_their_place() -> None:
    """Twenty responses, more than a sort keeps in order by chance."""
    halves = [0.0, 1.0] * 10
    assert chosen(gfpo.using(k=3), halves, [2] * 20) == [0, 1, 2]
    assert chosen(max_variance.using(k=4), halves) == [0, 2, 17, 19]
    # {0, 1, 3} and {0, 2, 3} vary alike: the one with one of the best
    assert chosen(max_variance.using(k=3), [0.0, 1.0, 2.0, 3.0]) == [0, 1, 3]


def test_one_right_of_eight_leaves_it_and_three_others() -> None:
    assert chosen(max_variance.using(k=4), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]) == [0, 1, 2, 5]


@pytest.mark.parametrize("part", [gfpo, max_variance])
def test_all_are_chosen_of_a_group_that_has_no_more(part: Part) -> None:
    assert chosen(part.using(k=4), [0.0, 1.0]) == [0, 1]


def variant(**more: object) -> Variant:
    return Variant(advantage=group_mean_std, objective=clip, aggregator=token_mean, **more)  # type: ignore[arg-type]


def advantages(made: Variant, rewards: list[float], lengths: list[int]) -> list[float]:
    batch, result, _ = learned_responses(made, Batch.of([rewards], lengths=[lengths]), None)
    assert result.shape == batch.mask.shape
    return result[0, :, 0].tolist()


def test_statistics_after_and_before_by_hand() -> None:
    """Of rewards 1 1 0 0 the shortest two are one right and one wrong: +-.7071, among all four +-.8660."""
    rewards, lengths = [1.0, 1.0, 0.0, 0.0], [1, 5, 2, 4]
    two = gfpo.using(k=2)
    after = advantages(variant(selection=two), rewards, lengths)
    assert after == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-3)
    before = advantages(variant(selection=two, statistics="before"), rewards, lengths)
    assert before == pytest.approx([math.sqrt(0.75), -math.sqrt(0.75)], abs=1e-3)


def test_one_right_of_eight_weighs_less_among_four() -> None:
    """+1.5 among the four that are left, +2.475 among all."""
    rewards, lengths = [0.0] * 7 + [1.0], [1] * 8
    four = max_variance.using(k=4)
    assert advantages(variant(selection=four), rewards, lengths)[-1] == pytest.approx(1.5, abs=1e-3)
    assert advantages(variant(selection=four, statistics="before"), rewards, lengths)[-1] == pytest.approx(
        2.475, abs=1e-3
    )


rewards_of_groups = st.lists(st.floats(-2, 2, width=16), min_size=5, max_size=5)


@given(rewards_of_groups, st.integers(2, 5))
def test_no_other_choice_varies_more(rewards: list[float], k: int) -> None:
    best = max(torch.tensor(each).double().var(correction=0) for each in itertools.combinations(rewards, k))
    mine = torch.tensor([rewards[i] for i in chosen(max_variance.using(k=k), rewards)]).double().var(correction=0)
    assert float(mine) == pytest.approx(float(best), abs=1e-9)


@given(rewards_of_groups)
def test_choosing_all_changes_nothing_and_statistics_after_sum_to_0(rewards: list[float]) -> None:
    lengths = [3, 1, 2, 2, 1]
    plain = advantages(variant(), rewards, lengths)
    for part in (gfpo, max_variance):
        for statistics in ("before", "after"):
            made = variant(selection=part.using(k=5), statistics=statistics)
            assert advantages(made, rewards, lengths) == plain
        assert sum(advantages(variant(selection=part.using(k=3)), rewards, lengths)) == pytest.approx(0, abs=1e-4)


def test_too_few_for_the_estimator_are_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"leaves 1 of a group, but advantage 'group_mean_std' is defined from 2 up"):
        advantages(variant(selection=gfpo.using(k=1)), [1.0, 0.0], [1, 2])
