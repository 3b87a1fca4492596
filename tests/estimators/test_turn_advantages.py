"""Advantages by turn: numbers by hand, and what they come down to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import ADVANTAGES, Batch, GrpoLabError, Part
from estimators.advantages.anchors import group_in_batch, group_in_group
from estimators.advantages.greedy import discounted_greedy_baseline, greedy_baseline
from estimators.advantages.group import group_mean, group_mean_std
from estimators.advantages.returns import discounted_return, reward_to_go
from estimators.advantages.then_kl import group_mean_then_kl
from estimators.advantages.turns import (
    last_turn_mean_std,
    mt_grpo_aae,
    mt_grpo_cae,
    outcome_mean_std,
    per_turn_mean,
    per_turn_mean_padded,
    per_turn_mean_std,
    per_turn_mean_std_padded,
)
from estimators.turns import by_turn, earned_by_turn, last_turns, outcomes, over_tokens, relative, returns_to_go
from tests.estimators.episodes import episodes, of_turns

seeds = st.integers(0, 1000)


def random_episodes(seed: int, P: int = 2, G: int = 4, most: int = 4, *, equal: int | None = None) -> Batch:
    draw = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (), generator=draw))

    counts = [[equal or 1 + number(most) for _ in range(G)] for _ in range(P)]
    rewards = [[torch.randn(k, generator=draw).tolist() for k in row] for row in counts]
    anchors = [[[1] + [2 + number(3) for _ in range(k - 1)] for k in row] for row in counts]
    return episodes(rewards, torch.randn(P, G, generator=draw).tolist(), anchors)


# numbers by turn


def test_what_turns_earn_by_hand() -> None:
    """An episode of two turns with rewards .5 and 0 and outcome 1, beside one of a single turn."""
    batch = episodes([[[0.5, 0.0], [0.25]]], [[1.0, 2.0]])
    assert batch.rewards.tolist() == [[1.5, 2.25]]
    assert outcomes(batch).tolist() == [[1.0, 2.0]]
    assert earned_by_turn(batch).tolist() == [[[0.5, 1.0], [2.25, 0.0]]]
    assert returns_to_go(earned_by_turn(batch), 0.5).tolist() == [[[1.0, 1.0], [2.25, 0.0]]]
    assert last_turns(batch).tolist() == [[[False, True], [True, False]]]
    spread = over_tokens(batch, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    assert spread.tolist() == [[[1, 1, 1, 2, 2], [3, 3, 0, 0, 0]]]
    assert by_turn(batch, spread).tolist() == [[[3, 4], [6, 0]]]


def test_a_penalty_of_tokens_counts_with_its_turn() -> None:
    batch = episodes([[[0.0, 0.0]]], [[1.0]])
    penalty = torch.tensor([[[-0.1, 0.0, 0.0, -0.2, -0.3]]], dtype=torch.float64)
    batch = batch.having(kl_rewards=penalty, rewards=batch.rewards + penalty.sum(-1))
    torch.testing.assert_close(earned_by_turn(batch), torch.tensor([[[-0.1, 0.5]]], dtype=torch.float64))


def test_rewards_of_turns_lie_where_turns_end_for_every_reward_to_go() -> None:
    """.5 after the first turn and 1 at the end: 1.5 to go, then 1; a baseline of whole responses sees 1.5."""
    batch = episodes([[[0.5, 0.0], [0.0, 0.0]]], [[1.0, 0.0]], greedy_rewards=[0.25], observed=0)
    assert reward_to_go(batch)[0].tolist() == [[1.5, 1.5, 1.0, 1.0], [0.0] * 4]
    assert discounted_return(batch, 0.5)[0, 0].tolist() == [0.375, 0.75, 0.5, 1.0]
    assert of_turns(batch, greedy_baseline(batch))[0] == [[1.25, 0.75], [-0.25, -0.25]]
    # those that leave penalties out of the baseline have turns' rewards in it
    assert of_turns(batch, group_mean_then_kl(batch))[0] == [[0.75, 0.75], [-0.75, -0.75]]
    assert discounted_greedy_baseline(batch, gamma=1.0)[0, 0].tolist() == [1.25] * 4


def test_what_is_relative_to_a_label_by_hand() -> None:
    """1 and 3 under one label, 5 alone, 7 not among them."""
    x, labels = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([4, 4, 9, 4])
    among = torch.tensor([True, True, True, False])
    assert relative(x, labels, among).tolist() == [-1, 1, 0, 0]
    scaled = relative(x, labels, among, std=True, eps=0.5, correction=0)
    assert scaled.tolist() == pytest.approx([-1 / 1.5, 1 / 1.5, 0, 0])
    assert relative(x, labels, ~among & False).tolist() == [0, 0, 0, 0]
    assert relative(x, labels, among, slack=torch.full((4,), 2.0)).tolist() == [0, 0, 0, 0]


# group in group


def test_group_in_group_by_hand() -> None:
    """s0 to s1 with rewards 0, 1 and s0 to s2 with 0, 0: at s0 returns .95 and 0, s1 and s2 stand alone."""
    batch = episodes([[[0.0, 1.0], [0.0, 0.0]]], anchors=[[[1, 2], [1, 3]]])
    assert of_turns(batch, group_in_group(batch, norm="mean"))[0] == [
        pytest.approx([0.975, 0.5]),
        pytest.approx([-0.975, -0.5]),
    ]
    doubled = of_turns(batch, group_in_group(batch, norm="mean", omega=2.0, gamma=1.0))[0]
    assert doubled == [pytest.approx([1.5, 0.5]), pytest.approx([-1.5, -0.5])]
    # over a std of .707 for the episodes, of .95 * .707 at s0
    z = 0.5**0.5
    whole = of_turns(batch, group_in_group(batch, eps=0.0))[0]
    assert whole == [pytest.approx([2 * z, z]), pytest.approx([-2 * z, -z])]


def test_statistics_over_turns_weigh_long_episodes_by_hand() -> None:
    """Three turns with return 1, one with 0: mean .75, and the episodes' advantages add up to -.5."""
    batch = episodes([[[0.0, 0.0, 1.0], [0.0]]], anchors=[[[1, 2, 3], [4]]])
    over_turns = of_turns(batch, group_in_group(batch, norm="mean", statistics="turn", omega=0.0))[0]
    assert over_turns == [[0.25] * 3, [-0.75]]
    assert of_turns(batch, group_in_group(batch, norm="mean", omega=0.0))[0] == [[0.5] * 3, [-0.5]]


def test_states_of_other_prompts_count_where_the_batch_is_compared() -> None:
    """State 7 once in each of two prompts, with returns 1 and 0; the other episodes' states stand alone."""
    batch = episodes([[[1.0], [0.0]], [[0.0], [1.0]]], anchors=[[[7], [1]], [[7], [2]]])
    apart = of_turns(batch, group_in_group(batch, norm="mean"))
    together = of_turns(batch, group_in_batch(batch))
    assert apart == [[[0.5], [-0.5]], [[-0.5], [0.5]]]
    assert together == [[[1.0], [-0.5]], [[-1.0], [0.5]]]


def test_a_state_without_a_name_is_like_no_other() -> None:
    batch = episodes([[[0.0, 1.0], [0.0, 0.0]]], anchors=[[[1, 0], [1, 0]]])
    assert of_turns(batch, group_in_group(batch, norm="mean"))[0][0][1] == 0.5
    with pytest.raises(GrpoLabError, match=r"Batch.anchors names none: give the environment's Step an anchor"):
        group_in_group(batch.having(anchors=None))


@given(seeds)
def test_without_omega_or_equal_states_group_in_group_is_the_episodes(seed: int) -> None:
    batch = random_episodes(seed)
    expected = group_mean_std(batch)[..., None].expand(batch.mask.shape)
    alone = batch.having(anchors=torch.arange(1, batch.mask.numel() + 1).view(batch.mask.shape))
    for actual in (group_in_group(batch, omega=0.0), group_in_group(alone)):
        torch.testing.assert_close(actual[batch.mask], expected[batch.mask])


@given(seeds)
def test_one_turn_and_one_state_are_the_group_twice(seed: int) -> None:
    batch = random_episodes(seed, equal=1)
    expected = 2 * group_mean_std(batch)[..., None].expand(batch.mask.shape)
    torch.testing.assert_close(group_in_group(batch)[batch.mask], expected[batch.mask])


# MT-GRPO and outcomes


def test_mt_grpo_by_hand() -> None:
    """Two turns: T = 1, 0 and O = 0, 1 of which each z is +-z, z = 1 / sqrt(2), with eps 0."""
    batch, z = episodes([[[1.0, 0.0], [0.0, 0.0]]], [[0.0, 1.0]]), 0.5**0.5
    assert of_turns(batch, mt_grpo_aae(batch, eps=0.0))[0] == [pytest.approx([0, -z]), pytest.approx([0, z])]
    half = of_turns(batch, mt_grpo_aae(batch, eps=0.0, coef=0.5))[0]
    assert half == [pytest.approx([-z / 2, -z]), pytest.approx([z / 2, z])]
    # T + O is 1 for both, T + O / 2 is not
    assert of_turns(batch, mt_grpo_cae(batch, eps=0.0))[0] == [pytest.approx([0, -z]), pytest.approx([0, z])]
    discounted = of_turns(batch, mt_grpo_cae(batch, eps=0.0, gamma=0.5))[0]
    assert discounted == [pytest.approx([z, -z]), pytest.approx([-z, z])]
    with_eps = of_turns(batch, mt_grpo_aae(batch, coef=0.0))[0]
    assert with_eps[1][1] == pytest.approx(0.5 / (0.5**0.5 + 1e-4))


def test_an_episode_without_a_call_counts_in_every_mean_of_mt_grpo_by_hand() -> None:
    """T = 1, 0, 0 with a third episode of one turn, O = 0, 1, 1: for it z(T + O), which are 1, 1, 1."""
    batch = episodes([[[1.0, 0.0], [0.0, 0.0], [0.0]]], [[0.0, 1.0, 1.0]])
    z = 3**-0.5
    assert of_turns(batch, mt_grpo_aae(batch, eps=0.0))[0] == [
        pytest.approx([0, -2 * z]),
        pytest.approx([0, z]),
        [0],
    ]
    assert of_turns(batch, mt_grpo_cae(batch, eps=0.0))[0] == [
        pytest.approx([0, -2 * z]),
        pytest.approx([0, z]),
        [0],
    ]
    # halved, the returns of turn 1 are 1, .5, 1; at turn 2 the third episode, which is over, still has its outcome
    assert of_turns(batch, mt_grpo_cae(batch, eps=0.0, gamma=0.5))[0] == [
        pytest.approx([z, -2 * z]),
        pytest.approx([-2 * z, z]),
        pytest.approx([z]),
    ]


def test_a_third_turn_has_its_own_reward_and_what_is_to_come_by_hand() -> None:
    """T = (0, 1, 0) against none: with c = 1 the first two turns get z, the third none of it."""
    batch, z = episodes([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]], [[1.0, 1.0]]), 0.5**0.5
    for part in (mt_grpo_aae, mt_grpo_cae):
        assert of_turns(batch, part(batch, eps=0.0))[0] == [pytest.approx([z, z, 0]), pytest.approx([-z, -z, 0])]


def test_outcomes_alone_by_hand() -> None:
    """Outcomes 1 and 0 with turn rewards that would turn it round; equal outcomes give 0, whatever the turns'."""
    batch = episodes([[[0.0, 0.0], [3.0, 0.0]]], [[1.0, 0.0]])
    assert outcome_mean_std(batch, eps=0.0)[0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert group_mean_std(batch, eps=0.0)[0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])


@pytest.mark.parametrize("part", [outcome_mean_std, mt_grpo_aae, mt_grpo_cae, per_turn_mean_std, group_in_group])
def test_what_is_equal_but_for_float32_gives_nothing(part: Part) -> None:
    """1 + .3 - .3 and 1 + .7 - .7 are an ulp apart in float32."""
    turn_rewards = [[0.3, 0.0], [0.7, 0.0], [0.1, 0.0]]
    batch = episodes([turn_rewards], [[1.0] * 3], [[[1, 2], [3, 2], [4, 2]]], dtype=torch.float32)
    assert torch.unique(outcomes(batch)).numel() > 1
    last = {"omega": 1.0, "gamma": 1.0} if part is group_in_group else {}
    advantages = part(batch, eps=0.0, **last)
    expected = group_mean_std(batch, eps=0.0)[..., None] if part is group_in_group else torch.zeros(1, 3, 1)
    spread = advantages if advantages.ndim == 3 else advantages[..., None]
    torch.testing.assert_close(spread[..., -1:], expected)


# turn by turn


def test_turn_by_turn_by_hand() -> None:
    """Two episodes stop with 1, two go on to a turn of .5 and end with 1: no advantage at all, where it is -+.25."""
    for bonus in (0.5, -0.5):
        batch = episodes([[[0.0], [0.0], [0.0, bonus], [0.0, bonus]]], [[1.0] * 4])
        assert of_turns(batch, per_turn_mean(batch))[0] == [[0], [0], [0, 0], [0, 0]]
        assert of_turns(batch, per_turn_mean_std(batch))[0] == [[0], [0], [0, 0], [0, 0]]
        a = bonus / 2
        expected = [[-a], [-a], [a, a], [a, a]]
        assert of_turns(batch, per_turn_mean_padded(batch))[0] == expected
        assert group_mean(batch)[0].tolist() == [row[0] for row in expected]


def test_a_turn_of_one_episode_gives_it_nothing() -> None:
    batch = episodes([[[0.0], [0.0, 5.0]]], [[1.0, 1.0]])
    assert of_turns(batch, per_turn_mean(batch))[0] == [[0], [0, 0]]
    assert of_turns(batch, per_turn_mean_padded(batch))[0] == [[-2.5], [2.5, 2.5]]


@pytest.mark.parametrize(("part", "expected"), [(per_turn_mean, 0.0), (per_turn_mean_padded, 0.125)])
def test_the_expected_gradient_of_a_decision_to_go_on(part: Part, expected: float) -> None:
    """c (1 - c) (i - s), or with padding c (1 - c) (i + m - s), for c = .5, s = i = 1, m = .5: every batch is listed.

    A mean that an episode's own reward is part of leaves G - 1 of G of a gradient.
    """
    G, c = 6, 0.5
    # an episode stops, or goes on to a second turn that earns 0 or 1
    kinds, chances = ([1.0], [1.0, 0.0], [1.0, 1.0]), torch.tensor([1 - c, c / 2, c / 2]).double()
    every = torch.cartesian_prod(*[torch.arange(3)] * G)
    advantages = part(episodes([[kinds[int(kind)] for kind in group] for group in every]))[..., 0]
    score = torch.where(every == 0, -c, 1 - c).double()
    gradient = (chances[every].prod(-1, keepdim=True) * advantages * score).sum() / G
    assert float(gradient) == pytest.approx(expected * (G - 1) / G, abs=1e-12)


@given(seeds)
def test_padded_turns_add_up_to_the_return(seed: int) -> None:
    batch = random_episodes(seed)
    expected = group_mean(batch)
    torch.testing.assert_close(per_turn_mean_padded(batch)[..., 0], expected)
    same_number = random_episodes(seed, equal=3)
    torch.testing.assert_close(per_turn_mean(same_number)[..., 0], group_mean(same_number))
    biased, counts = per_turn_mean(batch)[..., 0], batch.turn_numbers.amax(-1)
    uneven = counts.amax(1) != counts.amin(1)
    assert not torch.isclose(biased, expected).all(1)[uneven].any()


def test_the_std_of_turns_by_hand() -> None:
    """Second turn 1 and 0 of two, and of three rows with the one that has none: std .7071 and .5774."""
    batch = episodes([[[0.0], [0.0, 1.0], [0.0, 0.0]]])
    unpadded = of_turns(batch, per_turn_mean_std(batch, eps=0.0))[0]
    assert unpadded == [[0], pytest.approx([0.5**0.5] * 2), pytest.approx([-(0.5**0.5)] * 2)]
    padded = of_turns(batch, per_turn_mean_std_padded(batch, eps=0.0))[0]
    low, high = -(3**-0.5), 2 * 3**-0.5
    assert padded == [pytest.approx([low]), pytest.approx([high] * 2), pytest.approx([low] * 2)]


# step-wise


def test_the_last_turn_for_all_by_hand() -> None:
    """Last turns earn 1 and 0 + .5: what came before does not count."""
    batch = episodes([[[9.0, 0.0], [0.5]]], [[1.0, 0.0]])
    z = 0.5**0.5
    assert last_turn_mean_std(batch, eps=0.0)[0].tolist() == pytest.approx([z, -z])
    assert last_turn_mean_std(batch, eps=0.0, over_turns=True)[0].tolist() == pytest.approx([z / 2, -z])
    assert last_turn_mean_std(batch)[0, 0] == pytest.approx(0.25 / (0.25 * 2**0.5 + 1e-6))


# one turn


SINGLE = {
    "outcome_mean_std": "group_mean_std",
    "mt_grpo_aae": "group_mean_std",
    "mt_grpo_cae": "group_mean_std",
    "per_turn_mean": "group_mean",
    "per_turn_mean_padded": "group_mean",
    "per_turn_mean_std": "group_mean_std",
    "per_turn_mean_std_padded": "group_mean_std",
    "last_turn_mean_std": "group_mean_std",
}


@pytest.mark.parametrize("name", SINGLE)
@given(seed=seeds)
def test_of_ordinary_responses_every_form_is_the_usual_one(name: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (3, 4), generator=draw)
    batch = Batch.of(torch.randn(3, 4, generator=draw, dtype=torch.float64), lengths=lengths)
    part, usual = ADVANTAGES[name], ADVANTAGES[SINGLE[name]]
    actual: Tensor = part(batch)
    expected: Tensor = usual(batch, **({"eps": part.defaults["eps"]} if "eps" in part.defaults else {}))
    spread = actual if actual.ndim == 3 else actual[..., None].expand(batch.mask.shape)
    torch.testing.assert_close(spread[batch.mask], expected[..., None].expand(batch.mask.shape)[batch.mask])
    # group in group counts the one turn twice
    twice = group_in_group(batch, omega=1.0)
    torch.testing.assert_close(twice[batch.mask], 2 * group_mean_std(batch)[..., None].expand_as(twice)[batch.mask])
