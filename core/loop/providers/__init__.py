"""What fills fields of a batch before its advantages: greedy rewards, a reference, values, sums of squares."""

from core.loop.providers import critic, shipped  # noqa: F401 - registers them
