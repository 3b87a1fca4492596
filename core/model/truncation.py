"""Truncated sampling: which tokens a sampler may draw at all."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

NEVER: Final = -1e30
"""In place of the logit of a token that cannot be drawn: its probability is 0, and unlike -inf, 0 times it is 0."""


@dataclass(frozen=True)
class Truncation:
    """Cuts a distribution pi down to a set of kept tokens, renormalised: pi' = pi * 1[kept] / S, S = sum_kept pi.

    `top_k`: the k most probable tokens; 0 for all. `min_p`: those with pi >= min_p * max pi (Nguyen et al. 2024,
    arXiv:2407.01082). `top_p`: of what is left, renormalised, the fewest most probable ones whose probabilities add up
    to at least top_p (Holtzman et al. 2019, arXiv:1904.09751). At least one token is kept, and whatever is as probable
    as the last that is kept. In this order, and after the temperature: vLLM's (v1/sample/sampler.py); transformers'
    (generation/utils.py) has min_p last, which differs where both are bound.
    """

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def cuts(self) -> bool:
        """Whether anything can be cut off."""
        return self != WHOLE

    def bound(self, setting: str) -> str:
        """As it is bound, `train.top_p = 0.9, train.top_k = 20`; what cuts nothing is left out."""
        bound = {name: value for name, value in vars(self).items() if value != getattr(WHOLE, name)}
        return ", ".join(f"{setting}.{name} = {value}" for name, value in bound.items())

    def kept(self, scores: Tensor) -> Tensor:
        """Which tokens are kept, bool [N, V], of logits [N, V] after the temperature."""
        kept = torch.ones_like(scores, dtype=torch.bool)
        if self.min_p > 0:
            kept &= scores >= scores.amax(-1, keepdim=True) + math.log(self.min_p)
        if 0 < self.top_k < scores.shape[-1]:
            kept &= scores >= scores.topk(self.top_k).values[..., -1:]
        if self.top_p < 1:
            rising = scores.masked_fill(~kept, NEVER).sort(-1).values
            cut = sums_within(rising.softmax(-1), 1 - self.top_p)
            cut[..., -1] = False
            # by the value of the last one kept, not by its place: what is equal is kept together, whatever the sort
            kept &= scores >= rising.gather(-1, cut.sum(-1, keepdim=True))
        return kept


UNITS: Final = 2**40
"""Of which 1 is made, where probabilities are added up exactly."""
WHOLE: Final = Truncation()
"""Cuts nothing."""


def sums_within(probabilities: Tensor, mass: float) -> Tensor:
    """Where the running sums of probabilities [N, V] are at most `mass`, bool [N, V].

    Elsewhere than on a CPU in units of 2^-40: CUDA has no running sum of floating-point numbers that is the same every
    time.
    """
    if probabilities.device.type == "cpu":
        return probabilities.cumsum(-1) <= mass
    return in_units(probabilities).cumsum(-1) <= mass * UNITS


def in_units(probabilities: Tensor) -> Tensor:
    """Probabilities to the nearest multiple of 2^-40, int64."""
    return (probabilities.double() * UNITS).round().long()


def log_mass(scores: Tensor, kept: Tensor) -> Tensor:
    """log S [N], the log-probability that softmax(scores [N, V]) gives the kept tokens; exactly 0 where all are."""
    return (scores.masked_fill(~kept, NEVER).logsumexp(-1) - scores.logsumexp(-1)).clamp_(max=0.0)
