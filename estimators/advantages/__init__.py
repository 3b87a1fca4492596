"""Advantage estimators: a reward's credit, relative to a baseline."""

from estimators.advantages import (
    anchors,
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
    turn_critic,
    turns,
)

__all__ = [
    "anchors",
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
    "turn_critic",
    "turns",
]
