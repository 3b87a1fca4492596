"""One support for sampler and trainer: with truncated sampling, log-probabilities of both are of whole distributions,
or of both cut down to the tokens that were kept; never of one and the other.

Their difference, log S of the mass that was kept, is the same for every token whatever its probability: corrections
would read it as a divergence, and nothing else would notice.
"""

from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.generation.base import Generation
from core.generation.noise import SMALL_VOCABULARY
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.loop.source import Sampled
from core.loop.update import compute_logps, compute_support_logmass
from core.parts.batch import Batch

NOTICEABLE: Final = -0.01
"""log S below which a token tells whether a log-probability is of the whole distribution."""


def check_vocabulary(run: RunState) -> None:
    """Raise where too many tokens would have to be stored beside each token that is sampled."""
    vocabulary, recipe = run.policy.vocabulary, run.recipe
    if vocabulary > SMALL_VOCABULARY:
        most = recipe.prompts * recipe.group_size * recipe.max_tokens * vocabulary
        raise GrpoLabError(
            f"train.trainer_support = 'truncated' stores for each sampled token which of the {vocabulary:,} tokens of "
            f"the vocabulary were kept, {most / 2**30:.1f} GiB for a rollout, and is there for {SMALL_VOCABULARY:,} at "
            "most: bind train.trainer_support = 'full', which needs one number a token"
        )


def with_logmass(run: RunState, sampled: Sampled) -> Sampled:
    """What the policy's present weights responded, with the log S that a generator may not tell.

    Worked out by the trainer from the same weights. Raises `GrpoLabError` where the generator's log-probabilities are
    not those of what it was asked to sample from.
    """
    recipe, generation = run.recipe, sampled.generation
    is_told = generation.support_logmass is not None
    if is_told or not recipe.truncation.cuts or recipe.cuts_trainer or not sampled.prompts:
        return sampled
    batch = Batch.of(
        torch.zeros(generation.truncated.shape),
        generation.mask,
        prompt_tokens=sampled.prompts,
        response_tokens=generation.tokens,
    )
    at: dict[str, Any] = {"temperature": recipe.temperature, "micro_tokens": recipe.micro_tokens}
    logmass = compute_support_logmass(run.policy, batch, recipe.truncation, **at)
    _check_processed(generation, compute_logps(run.policy, batch, **at), logmass, recipe.truncation.bound("train"))
    return replace(sampled, generation=replace(generation, support_logmass=logmass))


def on_one_support(recipe: Recipe, batch: Batch) -> Batch:
    """The batch with the sampler's log-probabilities on the support that the trainer's have.

    `train.trainer_support = 'truncated'`: log pi', as it was sampled, and the `support` by which the trainer cuts its
    own distributions down; `'full'`: log pi = log pi' + log S.
    """
    if not recipe.truncation.cuts or not batch.groups:
        return batch
    if not recipe.cuts_trainer:
        return batch.having(behaviour_logps=batch.require("behaviour_logps") + batch.require("support_logmass"))
    if batch.support is None:
        raise GrpoLabError(
            f"{recipe.truncation.bound('train')} and train.trainer_support = 'truncated', but the generator does not "
            "tell which tokens it kept (Generation.support): sample with @native(), or bind train.trainer_support = "
            "'full'"
        )
    return batch


def _check_processed(generation: Generation, whole: Tensor, logmass: Tensor, cut: str) -> None:
    """Raise where the sampler's log-probabilities are nearer to the whole distribution's than to the truncated one's.

    `whole` [P, G, T]: the trainer's, of whole distributions and the same weights.
    """
    told = generation.written & (logmass < NOTICEABLE)
    if not told.any():
        return
    off = (whole - generation.logps)[told]
    if off.abs().mean() < (off - logmass[told]).abs().mean():
        raise GrpoLabError(
            f"{cut}, but the generator's log-probabilities are of whole distributions: taken for those cut down they "
            f"would be off by log S = {float(logmass[told].mean()):.3f} a token, a mean ratio of "
            f"{float(torch.exp(logmass[told]).mean()):.3f} where something is cut. Have it report what it sampled from "
            "(vLLM: --logprobs-mode processed_logprobs), or leave the truncation out"
        )
