"""Rewards learnt from pairs of responses, one of which is preferred; N pairs, differences of rewards in nats."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry(chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, centering: float = 0.0) -> Tensor:
    """The negative log-likelihood of the choices, and a pull of rewards towards 0, which choices leave open.

        -log sigmoid(r_chosen - r_rejected - margin) + centering * (r_chosen + r_rejected)^2

    All [N]. Source: Bradley & Terry 1952; Christiano et al. 2017 (arXiv:1706.03741, equation 1); the margin: Touvron et
    al. 2023 (arXiv:2307.09288, equation 2); the pull: Eisenstein et al. 2023 (arXiv:2312.09244).
    """
    lead = chosen - rejected if margin is None else chosen - rejected - margin
    return -F.logsigmoid(lead) + centering * (chosen + rejected).square()


def pair_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The share of N pairs in which the chosen response has the higher reward; equal ones count half."""
    return (chosen > rejected).double().mean() + (chosen == rejected).double().mean() / 2


def reliability(chosen: Tensor, rejected: Tensor, *, bins: int) -> Tensor:
    """How sure a model is of its choices and how often they are the annotator's: [bins, 3].

    A pair's confidence is that of the response with the higher reward, sigmoid(|r_chosen - r_rejected|), in equal bins
    from 1/2 to 1. Columns: pairs, their mean confidence, and the share in which the annotator chose that response
    (equal rewards count half); NaN where there are no pairs.
    """
    lead = (chosen - rejected).double()
    confidence = torch.sigmoid(lead.abs())
    agrees = (lead > 0).double() + (lead == 0).double() / 2
    place = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(bins, 3, dtype=torch.float64, device=lead.device)
    sums.index_add_(0, place, torch.stack([torch.ones_like(lead), confidence, agrees], -1))
    return torch.cat([sums[:, :1], sums[:, 1:] / sums[:, :1]], -1)


def calibration_error(table: Tensor) -> Tensor:
    """The expected calibration error of a `reliability` table: sum_b n_b / N |agreement_b - confidence_b|.

    Source: Guo et al. 2017 (arXiv:1706.04599, equation 3).
    """
    pairs, confidence, agreement = table[table[:, 0] > 0].T
    error: Tensor = (pairs * (agreement - confidence).abs()).sum() / pairs.sum()
    return error
