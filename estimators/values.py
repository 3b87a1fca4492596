"""Losses of a critic's values, [B, T]."""

import torch
from torch import Tensor

from core import value_loss


@value_loss
def squared_error(values: Tensor, returns: Tensor) -> Tensor:
    """Half the squared error: (V - R)^2 / 2.

    [B, T].
    """
    return (values - returns).square() / 2


@value_loss(published={"clip": "verl"})
def clipped_squared_error(values: Tensor, returns: Tensor, old_values: Tensor, *, clip: float = 0.5) -> Tensor:
    """Half the squared error, pessimistic about moves beyond a range around the values before the rollout's updates.

        max((V - R)^2, (V_clip - R)^2) / 2,   V_clip = clip(V, V_old - clip, V_old + clip)

    [B, T]. `clip` is in units of the return. No gradient where V has left the range towards R. OpenRLHF has 0.5 too,
    TRL 0.2. Source: the PPO of OpenAI baselines; Huang et al. 2022, "The 37 implementation details of PPO", 9.
    """
    clipped = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    return torch.maximum((values - returns).square(), (clipped - returns).square()) / 2
