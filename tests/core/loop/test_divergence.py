"""What fails because of a policy that is no longer finite."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import MachineError, TrainingError
from core.loop.divergence import blaming_divergence
from core.model.policy import Policy
from core.parts.problems import Problem


@pytest.fixture
def run(tiny: Policy) -> Any:
    task = SimpleNamespace(problem=lambda split, seed, index: Problem("1+2=", "3", index))
    return SimpleNamespace(policy=tiny, recipe=SimpleNamespace(task=task), seed=0)


def test_what_fails_with_a_policy_that_is_not_finite_is_the_trainings_doing(run: Any) -> None:
    with torch.no_grad():
        next(run.policy.model.parameters()).flatten()[0] = torch.nan
    with (
        pytest.raises(
            TrainingError, match=r"no longer finite\. What failed then: IndexError: of a token .*test_divergence.py:"
        ),
        blaming_divergence(run),
    ):
        raise IndexError("of a token")


def test_so_it_is_where_weights_are_finite_and_probabilities_are_not(run: Any) -> None:
    with torch.no_grad():
        run.policy.model.lm_head.weight.fill_(torch.finfo(torch.float32).max)
    with pytest.raises(TrainingError, match="no longer finite"), blaming_divergence(run):
        raise ValueError


def test_an_error_beside_a_finite_policy_stays_what_it_is(run: Any) -> None:
    with pytest.raises(IndexError), blaming_divergence(run):
        raise IndexError
    with pytest.raises(MachineError), blaming_divergence(run):
        raise MachineError("the disk is full")
