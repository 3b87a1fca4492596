"""Reward shaping: the soft overlong punishment by hand, and a contract that each shaping must keep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import SHAPINGS, Part
from estimators.shaping import soft_overlong

every_shaping = pytest.mark.parametrize("part", SHAPINGS.values(), ids=list(SHAPINGS))


def punish(length: int, max_tokens: int = 20, **hyper: float) -> float:
    """What is added to a reward of 0."""
    nothing = torch.zeros(1, 1)
    shaped = soft_overlong(nothing, torch.tensor([[length]]), nothing.bool(), max_tokens=max_tokens, **hyper)
    return float(shaped)


@pytest.mark.parametrize(
    ("length", "added"), [(1, 0.0), (16, 0.0), (17, -0.125), (18, -0.25), (19, -0.375), (20, -0.5), (25, -0.5)]
)
def test_default_by_hand(length: int, added: float) -> None:
    """Limit 20, so a buffer of 4 from token 16 on, and half a point at the limit."""
    assert punish(length) == pytest.approx(added)


def test_published_values() -> None:
    """20,480 tokens with a buffer of 4,096 and a penalty of 1."""
    paper = {"max_tokens": 20480, "buffer": 0.2, "penalty": 1.0}
    assert punish(16384, **paper) == 0  # type: ignore[arg-type]
    assert punish(18432, **paper) == pytest.approx(-0.5)  # type: ignore[arg-type]
    assert punish(20480, **paper) == pytest.approx(-1)  # type: ignore[arg-type]


@given(st.integers(2, 200), st.floats(0.05, 1), st.floats(0, 3))
def test_falls_from_nothing_to_the_whole_penalty_without_a_jump(limit: int, buffer: float, penalty: float) -> None:
    lengths = torch.arange(2 * limit)
    nothing = torch.zeros(2 * limit, dtype=torch.float64)
    shaped = soft_overlong(nothing, lengths, nothing.bool(), max_tokens=limit, buffer=buffer, penalty=penalty)
    assert shaped[lengths <= limit * (1 - buffer) - 1e-6].eq(0).all()
    assert shaped[limit:].tolist() == pytest.approx([-penalty] * limit)
    steps = shaped.diff()
    assert steps.max() <= 1e-6
    assert steps.min() >= -penalty / (buffer * limit) - 1e-5


def test_is_added_to_the_reward() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.25, -1.0]])
    lengths = torch.tensor([[20, 1], [18, 20]])
    shaped = soft_overlong(rewards, lengths, lengths == 20, max_tokens=20)
    torch.testing.assert_close(shaped, torch.tensor([[0.5, 0.0], [0.0, -1.5]]))


def responses(P: int, G: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 11, (P, G), generator=draw)
    return torch.randn(P, G, generator=draw), lengths, lengths == 10


@every_shaping
def test_groups_and_greedy_responses_alike(part: Part) -> None:
    """[P, G] for samples, [P] for greedy responses: the same numbers in, the same numbers out."""
    rewards, lengths, truncated = responses(3, 4)
    shaped = part(rewards, lengths, truncated, max_tokens=10)
    assert shaped.shape == (3, 4)
    assert shaped.dtype == torch.float32
    greedy = part(rewards[:, 0], lengths[:, 0], truncated[:, 0], max_tokens=10)
    assert torch.equal(greedy, shaped[:, 0])
