"""Filters: which groups are worth training on, [P] bool."""

from torch import Tensor

from core import Batch, filter


@filter
def nonuniform(batch: Batch) -> Tensor:
    """Groups in which some responses are correct and some are not: 0 < #correct < G.

    [P]. Reads the verifier's verdict: a shaped reward has spread even where accuracy has none. Source: DAPO's dynamic
    sampling (Yu et al. 2025, arXiv:2503.14476, equation 11).
    """
    correct = batch.require("correct")
    return correct.any(1) & ~correct.all(1)
