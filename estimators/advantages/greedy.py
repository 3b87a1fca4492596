"""The greedy response to the same prompt as the baseline."""

from torch import Tensor

from core import Batch, advantage
from estimators.advantages.group import reward_to_go


@advantage(needs=("greedy_rewards",), min_group=1, axes={"baseline": "reward of the greedy response", "std": "none"})
def greedy_baseline(batch: Batch) -> Tensor:
    """Reward minus the reward of the greedy response to the same prompt.

        A_it = sum_{u >= t} x_iu - r_greedy

    Returns [P, G], or [P, G, T] when there are per-token rewards x (a KL penalty, say); without them the sum is the
    reward.
    A group whose rewards are all equal does not get 0, unless they equal the greedy reward. Source: ReMax (Li et al.
    2023, arXiv:2310.10505), undiscounted.
    """
    baseline = batch.require("greedy_rewards")[:, None]
    if batch.kl_rewards is None and batch.token_rewards is None:
        return batch.rewards - baseline
    return reward_to_go(batch) - baseline[..., None]
