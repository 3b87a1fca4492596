"""Two estimators written the way a reader would write her own: copy this file, change the formula, import it in gin."""

from torch import Tensor

from core import Batch, advantage


@advantage(axes={"baseline": "group median", "std": "none"})
def group_median(batch: Batch) -> Tensor:
    """Reward minus the median of its group.

        A_i = r_i - median(r)

    Returns [P, G]; 0 in a group without spread. With binary rewards and an odd number of samples only the minority
    learns.
    """
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)


@advantage(
    scope="batch",
    axes={"baseline": "mean of the other samples, shrunk to the other prompts by {strength:g}", "std": "none"},
)
def shrunk_mean(batch: Batch, *, strength: float = 1.0) -> Tensor:
    """Reward minus the mean of the other samples, shrunk towards the mean of the other prompts.

        A_i = r_i - (sum_{j != i} r_j + strength * mean over the other prompts) / (G - 1 + strength)

    Returns [P, G]. `strength` counts as so many samples; 0 is leave-one-out. The baseline never depends on sample i, so
    the gradient stays unbiased, and with few samples a prompt it is less noisy. A group without spread does not get 0.
    Source: James and Stein 1961; for RL with verifiable rewards Zeng et al. 2025 (arXiv:2511.03710).
    """
    rewards, P, G = batch.rewards.double(), batch.groups, batch.group_size
    sums = rewards.sum(1, keepdim=True)
    if P == 1:
        return (rewards - (sums - rewards) / (G - 1)).to(batch.rewards)
    elsewhere = (sums.sum() - sums) / ((P - 1) * G)
    return (rewards - (sums - rewards + strength * elsewhere) / (G - 1 + strength)).to(batch.rewards)
