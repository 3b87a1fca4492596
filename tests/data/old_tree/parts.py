"""An estimator and a reward of one's own, as a user keeps them beside a study."""

from core import Batch, Problem, Score, advantage, reward


@advantage(axes={"baseline": "median of the group"})
def old_tree_median(batch: Batch):
    """Reward minus the median of its group."""
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)


@reward
def share_of_ones(problem: Problem, response: str) -> Score:
    """The share of characters that are 1, right from a tenth on: a model of random weights has it at times."""
    share = response.count("1") / max(len(response), 1)
    return Score(share, share >= 0.1, share >= 0.1)
