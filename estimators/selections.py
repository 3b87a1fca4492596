"""Selections of `k` responses of every group to learn from, [P, G] bool."""

from typing import Literal

import torch
from torch import Tensor

from core import Batch, selection


def _of_each(batch: Batch, samples: Tensor) -> Tensor:
    """[P, G], bool: True at the samples [P, k] of each group."""
    return torch.zeros_like(batch.rewards, dtype=torch.bool).scatter(1, samples, True)


@selection(axes={"selection": "{k} of a group: the {by}"}, limits={"k": (1, 10_000)})
def gfpo(batch: Batch, *, k: int = 4, by: Literal["shortest", "most reward a token"] = "shortest") -> Tensor:
    """The `k` shortest responses of a group, or those with the most reward a token; of equal ones the earlier.

    [P, G]. Its authors compute group statistics among those chosen. Source: GFPO (2025, arXiv:2508.09726).
    """
    score = batch.lengths if by == "shortest" else -batch.rewards / batch.lengths.clamp(min=1)
    return _of_each(batch, score.argsort(dim=1, stable=True)[:, :k])


@selection(axes={"selection": "{k} of a group, of the largest variance of rewards"}, limits={"k": (2, 10_000)})
def max_variance(batch: Batch, *, k: int = 4) -> Tensor:
    """The `k` responses of a group whose rewards vary most: some of the best and some of the worst.

    [P, G]. Of all splits into i best and k - i worst the one with the largest variance, which no other choice of k
    exceeds, and of several that with the fewest best. Of equal rewards the earlier responses are among the worst, the
    later ones among the best. Source: PODS (2025, arXiv:2504.13818).
    """
    order = batch.rewards.argsort(dim=1, stable=True)
    ascending = batch.rewards.gather(1, order).double()
    G = batch.group_size
    k = min(k, G)
    places = [[*range(k - best), *range(G - best, G)] for best in range(k)]
    variances = torch.stack([ascending[:, which].var(1, correction=0) for which in places], 1)
    chosen = torch.tensor(places, device=order.device)[variances.round(decimals=12).argmax(1)]
    return _of_each(batch, order.gather(1, chosen))
