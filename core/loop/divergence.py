"""Errors of what failed because training diverged."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from core.distributed import ranks
from core.errors import TrainingError, cause_of, describe_error
from core.loop.run_state import RunState
from core.randomness import key


@contextmanager
def blaming_divergence(run: RunState) -> Iterator[None]:
    """What fails once the policy is no longer finite fails for that: `TrainingError`, whatever it stumbled over."""
    try:
        yield
    except Exception as error:
        if cause_of(error) == "code" and has_diverged(run):
            raise TrainingError(
                f"training diverged: the policy is no longer finite. What failed then: {describe_error(error)}"
            ) from error
        raise


@torch.no_grad()
def has_diverged(run: RunState) -> bool:
    """Whether a weight of the policy, or a probability that it gives, is not finite."""
    weights = (getattr(p, "to_local", lambda p=p: p)() for p in run.policy.model.parameters())
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        return True
    if ranks() > 1:  # a pass would need all of them
        return False
    with suppress(Exception):  # what failed may fail again
        prompt = run.policy.tokens(run.recipe.task.problem("train", key(run.seed, "prompts"), 0))
        logps, _ = run.policy.logps([prompt], [prompt], [0], width=len(prompt))
        return not bool(torch.isfinite(logps).all())
    return False
