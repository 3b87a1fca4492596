"""Providers: what fills a batch field that some part asked for. Each is looked up by its field, never by name."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from core.batch import Batch
from core.contracts import provider
from core.errors import GrpoLabError
from core.policy import Policy
from core.rollout import Run, sample, shape_rewards
from core.scoring import score
from core.update import compute_logps

Fill: TypeAlias = Callable[[Batch], Tensor]


def make_providers(run: Run) -> dict[str, Fill]:
    """A filler for every batch field that the run's variant asks for."""
    return {part.options["fills"]: part(run) for part in run.recipe.providers}


def fill(batch: Batch, providers: dict[str, Fill]) -> Batch:
    """Fill every field asked for.

    Groups whose one value [P] is NaN, because a grader failed, are dropped whole. NaN per token is an error.
    """
    for field, make in providers.items():
        values = make(batch)
        batch = batch.having(**{field: values})
        broken = values.isnan()
        if not broken.any():
            continue
        if values.ndim > 1:
            raise GrpoLabError(f"the provider of '{field}' gave NaN at step {batch.step}")
        batch = batch.select((~broken).nonzero()[:, 0])
    return batch


@provider(fills="greedy_rewards", cost="one greedy response per prompt and step")
def greedy(run: Run) -> Fill:
    """The shaped reward of the greedy response to each prompt, by the weights that sampled."""

    def fill_greedy(batch: Batch) -> Tensor:
        variant, recipe = run.recipe.variant, run.recipe
        # a call of its own: the number of rows in a batch changes the last bits of each
        sampled = sample(run, batch.problems, samples=1, noise_key=None)
        scores = score(recipe.rewards, sampled.problems, sampled.texts)
        run.grader_log.first = run.grader_log.first or scores.failure
        run.grader_log.add_to_step(len(scores.failed))
        rewards = (scores.parts @ torch.tensor(recipe.reward_weights))[:, 0].to(batch.rewards)
        lengths = sampled.generation.mask.sum(-1)[:, 0]
        return shape_rewards(variant, rewards, lengths, sampled.generation.truncated[:, 0], batch.max_tokens)

    return fill_greedy


@provider(fills="ref_logps", cost="a second copy of the weights and one forward pass per response")
def reference(run: Run) -> Fill:
    """Log-probabilities under the policy as it was before the first step, frozen."""
    frozen = Policy(copy.deepcopy(run.policy.model).requires_grad_(False), run.policy.tokenizer)

    def fill_reference(batch: Batch) -> Tensor:
        return compute_logps(frozen, batch, temperature=run.recipe.temperature, micro_tokens=run.recipe.micro_tokens)

    return fill_reference
