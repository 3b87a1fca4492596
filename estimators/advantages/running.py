"""A baseline that is carried from step to step."""

from typing import TypeAlias

import torch
from torch import Tensor

from core import Batch, advantage

Means: TypeAlias = dict[int, float]
"""Running mean reward by prompt id; of all prompts under EVERY."""

EVERY = -1


@advantage(
    state=dict,
    min_group=1,
    axes={"baseline": "running mean of the prompt's earlier rewards, decay {decay:g}", "std": "none"},
)
def running_baseline(batch: Batch, state: Means, *, decay: float = 0.9) -> tuple[Tensor, Means]:
    """Reward minus the running mean of the same prompt's rewards at earlier steps.

        A_i = r_i - b_p,   then b_p <- decay * b_p + (1 - decay) * mean(r)

    Returns [P, G] and the new means. A prompt not seen before takes the running mean over all prompts, 0 at the first
    step. The baseline never depends on the present samples: unbiased at every group size, 1 included. Prompts differ
    by their `prompt_ids`. Source: the reinforcement comparison of Sutton 1984, by prompt.
    """
    ids = batch.prompt_ids.tolist()
    baseline = torch.tensor([state.get(p, state.get(EVERY, 0.0)) for p in ids], dtype=torch.float64)
    advantages = batch.rewards.double() - baseline.to(batch.rewards.device)[:, None]
    means = dict(state)
    news = [*zip(ids, batch.rewards.double().mean(1).tolist(), strict=True), (EVERY, float(batch.rewards.mean()))]
    for p, mean in news:
        means[p] = decay * means[p] + (1 - decay) * mean if p in means else mean
    return advantages.to(batch.rewards), means
