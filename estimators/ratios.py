"""Probability ratios from log-probabilities."""

from typing import Final

import torch
from torch import Tensor

LARGEST_LOG_RATIO: Final = 80.0
"""e^80 is the order of float32's largest numbers."""


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp(d), without gradient from d = 80 up: an infinite ratio makes the gradient of the branch not taken NaN."""
    return torch.exp(log_ratio.clamp(max=LARGEST_LOG_RATIO))
