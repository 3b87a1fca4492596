"""The greedy response to the same prompt as the baseline."""

import torch
from torch import Tensor

from core import Batch, advantage
from estimators.advantages.returns import outcome, reward_to_go, token_terms


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
    if token_terms(batch) is None:
        return batch.rewards - baseline
    return (reward_to_go(batch) - baseline[..., None]).to(batch.rewards)


@advantage(
    needs=("greedy_rewards",),
    min_group=1,
    axes={
        "baseline": "reward of the greedy response, difference clipped to +-{clip:g}",
        "std": "none",
        "credit": "discount {gamma:g} per token to the end; each token's own KL penalty only",
    },
    published={"gamma": "ReMax, authors' scripts", "clip": "ReMax, authors' code"},
)
def discounted_greedy_baseline(batch: Batch, *, gamma: float = 0.99, clip: float = 5.0) -> Tensor:
    """ReMax as its authors' code has it: a clipped difference, discounted to the end, and no KL from the future.

        A_it = kl_it + gamma^(n_i - t + 1) * clip(o_i - r_greedy, -clip, clip),   t = 1 .. n_i

    Returns [P, G, T]. The discount applies once already at the last token. Source: the code of Li et al. 2023
    (arXiv:2310.10505).
    """
    batch = batch.having(turn_rewards=None)  # part of the outcome
    difference = (outcome(batch) - batch.require("greedy_rewards")[:, None]).clamp(-clip, clip)
    left = batch.lengths[..., None] - torch.arange(batch.response_mask.shape[-1], device=batch.rewards.device)
    discounted = difference[..., None] * gamma ** left.to(difference)
    terms = token_terms(batch)
    return (discounted if terms is None else discounted + terms).to(batch.rewards)
