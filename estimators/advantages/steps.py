"""Rewards of steps within a response: process supervision."""

import torch
from torch import Tensor

from core import Batch, advantage


@advantage(
    needs=("token_rewards", "step_ends"),
    axes={
        "baseline": "mean of the group's step rewards",
        "std": "steps of the group, ddof {correction}, + {eps:g}",
        "credit": "sum over the steps that end at or after the token",
    },
    published={"correction": "as for outcomes; the paper says only std"},
)
def process_mean_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1) -> Tensor:
    """Step rewards standardised over all steps of the group; a token gets those of the steps it still leads to.

        s_j = (x_j - mean(x)) / (std(x) + eps) over the group's steps j,   A_it = sum of s_j over steps ending at u >= t

    Returns [P, G, T]; 0 in a group whose step rewards are all equal. The reward of a step is `token_rewards` where
    `step_ends` is true. With one step a response, ending at its last token, this is `group_mean_std`. Source: GRPO
    (Shao et al. 2024, arXiv:2402.03300, section 4.1.3, process supervision).
    """
    ends = batch.require("step_ends") & batch.response_mask
    x = torch.where(ends, batch.require("token_rewards").double(), 0.0)
    n = ends.sum((1, 2))
    mean = x.sum((1, 2)) / n
    deviations = torch.where(ends, x - mean[:, None, None], 0.0)
    variance = deviations.square().sum((1, 2)) / (n - correction)
    highest = x.masked_fill(~ends, -torch.inf).amax((1, 2))
    lowest = x.masked_fill(~ends, torch.inf).amin((1, 2))
    no_spread = (highest <= lowest)[:, None, None]
    # also where there are too few steps for a mean or a variance: NaN until here
    scaled = (deviations / (variance.sqrt() + eps)[:, None, None]).masked_fill(no_spread, 0.0)
    return scaled.flip(-1).cumsum(-1).flip(-1).to(batch.rewards)
