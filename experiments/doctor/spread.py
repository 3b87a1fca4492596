"""A reward for models that were never taught anything: any two texts differ, so that there is something to learn."""

from core import Problem, reward


@reward
def spread(problem: Problem, response: str) -> float:  # noqa: ARG001 - the form of every reward
    """The sum of the characters' numbers modulo 101, over 100."""
    return sum(map(ord, response)) % 101 / 100
