"""Unbroken runs of counted tokens in a row: turns of the policy's own, or pieces between holes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def segments_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which unbroken run of its row's mask each token is in, [B, T] from 0 on, and how many tokens each run has.

    Outside the mask the index is that of some run, to which nothing is counted.
    """
    begins = mask & ~F.pad(mask[:, :-1], (1, 0))
    index = (begins.long().cumsum(-1) - 1).clamp(min=0)
    return index, torch.zeros_like(index).scatter_add(1, index, mask.long())
