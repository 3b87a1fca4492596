"""Advantage estimators: a reward's credit, relative to a baseline."""

from estimators.advantages import (
    batch,
    critic,
    examples,
    greedy,
    group,
    running,
    several_rewards,
    steps,
    then_kl,
    token,
)

__all__ = [
    "batch",
    "critic",
    "examples",
    "greedy",
    "group",
    "running",
    "several_rewards",
    "steps",
    "then_kl",
    "token",
]
