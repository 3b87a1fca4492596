"""A variant in another trainer's loop: from the groups of a rollout to rows, and from rows to the weights of a step."""

from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from core.loop.loss import compute_advantages, kl_in_reward, next_kl_coef, step_weights
from core.loop.rewards import kept_groups, shape
from core.loop.rows import RowTensors
from core.parts.batch import Batch
from core.parts.options import AdvantageOptions
from core.parts.variant import Variant

TRAINED: Final = "trained"
"""[B], bool: rows of groups that were graded and passed the filter. The others are in no denominator."""


class RunningVariant:
    """A variant, the state of its running estimator and its present KL coefficient; alike on all ranks."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant.resolved()
        self.advantage_state = AdvantageOptions.of(self.variant.advantage).first_state()

    def learn_from(self, batch: Batch, graded: Tensor) -> RowTensors:
        """Rows [B, T] of the whole rollout with their advantages, and `TRAINED` [B].

        Groups outside `graded` [P] and those that the filter drops are left out first, as if they had not been sampled:
        of their rows everything is 0. Moves the estimator's state and the KL coefficient on.
        """
        groups, size = batch.groups, batch.group_size
        index = graded.nonzero()[:, 0]
        batch = shape(self.variant, batch.select(index))
        kept = kept_groups(self.variant, batch)
        index, batch = index[kept], batch.select(kept)
        batch = kl_in_reward(self.variant, batch)
        advantages = torch.zeros_like(batch.mask, dtype=batch.rewards.dtype)
        if batch.groups:
            advantages, self.advantage_state = compute_advantages(self.variant, batch, self.advantage_state)
        rows = RowTensors.of(batch, advantages)
        rows[TRAINED] = torch.ones_like(rows["lengths"], dtype=torch.bool)
        self.variant = replace(self.variant, kl_coef=next_kl_coef(self.variant, batch))
        place = (index[:, None] * size + torch.arange(size, device=index.device)).flatten()
        return RowTensors(
            {name: x.new_zeros((groups * size, *x.shape[1:])).index_copy(0, place, x) for name, x in rows.items()}
        )

    def weights(self, batch: Batch, mask: Tensor, trained: Tensor) -> Tensor:
        """Of every token [B, T] in an optimizer step that has these rows on all ranks, 0 for rows not `trained`."""
        of_trained = step_weights(self.variant, batch, mask[trained])
        weights = of_trained.new_zeros(mask.shape)
        weights[trained] = of_trained
        return weights

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know, as plain data."""
        return {"advantage_state": self.advantage_state, "kl_coef": self.variant.kl_coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.advantage_state = state["advantage_state"]
        self.variant = replace(self.variant, kl_coef=state["kl_coef"])
