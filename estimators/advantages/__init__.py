"""Advantage estimators: a reward's credit, relative to a baseline."""

from estimators.advantages import greedy, group

__all__ = ["greedy", "group"]
