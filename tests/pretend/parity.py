"""A reward for models of random weights: about half of what they write is right, whatever it is."""

from core import Problem, reward


@reward
def parity(problem: Problem, response: str) -> bool:
    """Whether the sum of the characters' numbers is even."""
    return sum(map(ord, response)) % 2 == 0
