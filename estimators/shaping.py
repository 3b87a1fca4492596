"""Reward shaping: what is added to a reward before any group statistics are taken."""

from torch import Tensor

from core import shaping


@shaping(published={"buffer": "DAPO, section 4.1: 4,096 of 20,480 tokens"})
def soft_overlong(
    rewards: Tensor,
    lengths: Tensor,
    truncated: Tensor,  # noqa: ARG001 - part of the contract; the punishment depends on length alone
    *,
    max_tokens: int,
    buffer: float = 0.2,
    penalty: float = 0.5,
) -> Tensor:
    """Soft overlong punishment: nothing up to the buffer, then linearly down to -penalty at the limit.

        r + penalty * clamp(((L - C) - n) / C, -1, 0),   L = max_tokens, C = buffer * L

    Same shape as `rewards`. `buffer` is a share of the limit (the paper: 4,096 of 20,480 tokens). `penalty` is in
    reward units: the paper's 1 goes with rewards of -1 and 1, so half of it with 0 and 1. Source: DAPO (Yu et al.
    2025, arXiv:2503.14476, equation 13).
    """
    C = buffer * max_tokens
    # in the rewards' precision: integers divided by a number would be float32
    return rewards + penalty * (((max_tokens - C) - lengths.to(rewards)) / C).clamp(-1, 0)
