"""What other libraries compute under the same names, where that differs from the papers: a file for each of them.

Each is a variant like any other, so that the difference can be described (`grpolab describe grpo_trl --diff grpo`),
measured and run.
"""

from variants.dialects import agents, authors, openrlhf, options, trl, verl

__all__ = ["agents", "authors", "openrlhf", "options", "trl", "verl"]
