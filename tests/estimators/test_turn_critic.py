"""Values of turns: numbers by hand, and what they come down to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import Batch
from core.parts.options import AdvantageOptions
from estimators.advantages.critic import gae
from estimators.advantages.turn_critic import bilevel_gae, turn_gae, whitened_bilevel_gae
from tests.estimators.episodes import episodes, of_turns

seeds = st.integers(0, 1000)
discounts = st.sampled_from([1.0, 0.9, 0.5, 0.0])


def with_values(batch: Batch, values: Tensor) -> Batch:
    return batch.having(values=values.double().expand(batch.mask.shape))


def random_turns(seed: int, *, single: bool = False, holes: bool = True) -> Batch:
    """Episodes with rewards of tokens, tokens that do not count, and any values at all."""
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 2 if single else 4, (2, 3), generator=draw)
    rewards = [[torch.randn(int(k), generator=draw).tolist() for k in row] for row in counts]
    batch = episodes(rewards, torch.randn(2, 3, generator=draw).tolist(), own=3)

    def noise() -> Tensor:
        return torch.randn(batch.mask.shape, generator=draw, dtype=torch.float64)

    tokens = noise().where(batch.mask, 0.0)
    left_out = torch.rand(batch.mask.shape, generator=draw) < (0.4 if holes else 0.0)
    batch = batch.having(token_rewards=tokens, rewards=batch.rewards + tokens.sum(-1), mask=batch.mask & ~left_out)
    return with_values(batch, noise())


def reward_to_go_by_counted_token(batch: Batch) -> Tensor:
    """With a discount of 1, lambda 1 and values of 0."""
    to_go: Tensor = gae(with_values(batch, torch.zeros(())), gamma=1.0, lam=1.0)
    return to_go


def test_turn_gae_by_hand() -> None:
    """x = 0, 1 and V = .4, .6 at the turns' first tokens: .4 at the end, .2 + .95 * .4 before it."""
    batch = with_values(episodes([[[0.0, 0.0]]], [[1.0]]), torch.tensor([0.4, 9.0, 9.0, 0.6, 9.0]))
    torch.testing.assert_close(turn_gae(batch), torch.tensor([[[0.58, 0.58, 0.58, 0.4, 0.4]]]).double())
    # .5 * .6 - .4 + .5 * .4
    assert of_turns(batch, turn_gae(batch, gamma=0.5, lam=1.0))[0][0][0] == pytest.approx(0.1)
    target = AdvantageOptions.of(turn_gae).target
    assert target is not None
    torch.testing.assert_close(
        target(batch, gamma=1.0, lam=0.95)[batch.mask], torch.tensor([0.98, 0.98, 1, 1]).double()
    )


def ragen() -> Batch:
    """Two turns of five tokens, rewards 1 at the end of both, V = .1 to 1."""
    batch = episodes([[[1.0, 1.0]]], own=5, observed=0)
    return with_values(batch, torch.arange(1, 11) / 10)


def test_bilevel_gae_by_hand() -> None:
    """At the first turn's end 1 + .95 * 1 is to come, at the second's 1."""
    expected = torch.tensor([1.85, 1.75, 1.65, 1.55, 1.45, 0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(bilevel_gae(ragen())[0, 0], expected)
    target = AdvantageOptions.of(bilevel_gae).target
    assert target is not None
    returns = target(ragen(), gamma=1.0, gamma_high=0.95, lam=1.0)[0, 0]
    torch.testing.assert_close(returns, torch.tensor([1.95] * 5 + [1.0] * 5, dtype=torch.float64))
    whitened = whitened_bilevel_gae(ragen(), eps=0.0)[0, 0]
    torch.testing.assert_close(whitened, (expected - expected.mean()) / expected.std())


def test_a_turn_without_a_reward_ends_all_the_same() -> None:
    """x = 0, 1: 1.95 becomes .95, and nothing of the second turn's values is seen but through it."""
    batch = ragen()
    rewards = batch.require("turn_rewards").clone()
    rewards[0, 0, 4] = 0
    batch = batch.having(turn_rewards=rewards, rewards=batch.rewards - 1)
    expected = torch.tensor([0.85, 0.75, 0.65, 0.55, 0.45, 0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(bilevel_gae(batch)[0, 0], expected)


@given(seeds)
def test_without_discounts_turn_gae_is_the_return_from_the_turn_on_minus_its_value(seed: int) -> None:
    batch = random_turns(seed)
    to_go, actual = reward_to_go_by_counted_token(batch), turn_gae(batch, gamma=1.0, lam=1.0)
    for p, i, k in ((p, i, k) for p in range(2) for i in range(3) for k in (1, 2, 3)):
        tokens = (batch.mask[p, i] & (batch.turn_numbers[p, i] == k)).nonzero()[:, 0]
        if len(tokens):
            expected = to_go[p, i, tokens[0]] - batch.require("values")[p, i, tokens[0]]
            torch.testing.assert_close(actual[p, i, tokens], expected.expand(len(tokens)))


@given(seeds)
def test_without_discounts_bilevel_gae_is_the_reward_to_go_minus_the_value(seed: int) -> None:
    batch = random_turns(seed)
    actual = bilevel_gae(batch, gamma=1.0, gamma_high=1.0, lam=1.0)
    expected = reward_to_go_by_counted_token(batch) - batch.require("values")
    torch.testing.assert_close(actual[batch.mask], expected[batch.mask])


@given(seeds, discounts, discounts)
def test_of_one_turn_bilevel_gae_is_gae_and_turn_gae_the_return_minus_the_first_value(
    seed: int, gamma: float, lam: float
) -> None:
    batch = random_turns(seed, single=True)
    actual = bilevel_gae(batch, gamma=gamma, lam=lam, gamma_high=0.3)
    torch.testing.assert_close(actual[batch.mask], gae(batch, gamma=gamma, lam=lam)[batch.mask])
    plain = with_values(batch.having(turns=None), torch.zeros(()))
    returns = torch.where(batch.mask, plain.rewards[..., None], 0.0)
    whole = plain.having(token_rewards=None, turn_rewards=None)
    torch.testing.assert_close(turn_gae(whole, gamma=gamma, lam=lam).where(batch.mask, 0.0), returns)


@given(seeds, discounts, discounts)
def test_turn_gae_is_gae_of_a_token_a_turn(seed: int, gamma: float, lam: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    batch = episodes([[torch.randn(3, generator=draw).tolist() for _ in range(2)]], own=1)
    batch = with_values(batch, torch.randn(batch.mask.shape, generator=draw))
    expected = gae(batch, gamma=gamma, lam=lam)[batch.mask]
    torch.testing.assert_close(turn_gae(batch, gamma=gamma, lam=lam)[batch.mask], expected)


def test_a_turn_without_a_counted_token_is_passed_over() -> None:
    """Its reward is that of the turn before, as a token's in a hole is."""
    batch = with_values(episodes([[[0.0, 2.0, 0.0]]], [[1.0]]), torch.tensor(0.5))
    without = batch.having(mask=batch.mask & (batch.turn_numbers != 2))
    expected = turn_gae(with_values(episodes([[[2.0, 0.0]]], [[1.0]]), torch.tensor(0.5)))
    actual = turn_gae(without)
    torch.testing.assert_close(actual[without.mask], expected[..., [0, 1, 3, 4]].flatten())
