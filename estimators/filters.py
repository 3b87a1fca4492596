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


@filter
def has_spread(batch: Batch) -> Tensor:
    """Groups whose rewards are not all equal: max != min.

    [P]. Reads the shaped reward: with a length punishment nearly every group has spread. Tested on max and min, since
    the std of equal rewards such as 0.1 is not exactly 0. Source: verl's group filter on the reward.
    """
    return ~batch.no_spread


@filter
def mean_inside(batch: Batch, *, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Groups whose mean reward lies strictly between two bounds: low < mean(r) < high.

    [P]. A group whose rewards are all 0.5 passes. Source: OpenRLHF's dynamic filtering.
    """
    mean = batch.rewards.double().mean(1)
    # the mean of G equal rewards may be off by an ulp, and a bound is to be strict
    mean = mean.where(~batch.no_spread, batch.rewards[:, 0].double())
    return (mean > low) & (mean < high)


@filter
def enough_spread(batch: Batch, *, share: float = 0.6) -> Tensor:
    """All groups if the share of groups with spread reaches `share`, else those with spread only.

    [P]. Sampling then goes on only when too little of a round can teach anything. Source: GPG (Chu et al. 2025,
    arXiv:2504.02546, its threshold on valid samples), round by round.
    """
    spread = ~batch.no_spread
    return spread | (spread.double().mean() >= share)


@filter
def none_truncated(batch: Batch) -> Tensor:
    """Groups none of whose responses was cut at the generation limit.

    [P]. A group is kept or dropped whole, since statistics are over complete groups; to keep a cut response in the
    statistics and out of the loss, use `truncated="mask"` in the variant.
    """
    return ~batch.require("truncated").any(1)
