"""Several reward functions, each standardised by itself before they are added up."""

from torch import Tensor

from core import Batch, advantage
from estimators.advantages.batch import whiten

EACH = "each reward in its group, ddof {correction}, + {eps:g}; then "


def _standardised_sum(batch: Batch, eps: float, correction: int) -> Tensor:
    """sum_k w_k (r_k - mean(r_k)) / (std(r_k) + eps) within groups, float64 [P, G]; a reward without spread adds 0."""
    parts = batch.require("reward_parts").double()
    weights = parts.new_tensor(batch.reward_weights or (1.0,) * parts.shape[-1])
    no_spread = parts.amax(1, keepdim=True) == parts.amin(1, keepdim=True)
    std = parts.std(1, correction=correction, keepdim=True)
    return (((parts - parts.mean(1, keepdim=True)) / (std + eps)).masked_fill(no_spread, 0.0) * weights).sum(-1)


@advantage(
    needs=("reward_parts",),
    scope="batch",
    axes={"baseline": "each reward's group mean", "std": EACH + "the sum over responses, same ddof and eps"},
    published={"eps": "TRL", "correction": "TRL"},
)
def per_reward_std(batch: Batch, *, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """Every reward standardised within its group, weighted and added up, then standardised over the batch.

        s_i = sum_k w_k (r_ki - mean(r_k)) / (std(r_k) + eps),   A_i = s_i / (std(s) + eps),   as mean(s) = 0

    Returns [P, G]. Reads the reward functions' own values: shaping and a KL penalty in the reward do not enter. Source:
    GDPO (2026, arXiv:2601.05242), in TRL's form, over responses.
    """
    total = _standardised_sum(batch, eps, correction)
    # the mean of what is centred in every group is 0: nothing to centre
    scaled = total / (total.std(correction=correction) + eps)
    return scaled.masked_fill(total == 0, 0.0).to(batch.rewards)


@advantage(
    needs=("reward_parts",),
    scope="batch",
    axes={
        "baseline": "each reward's group mean, then the mean over all tokens of the batch",
        "std": EACH + "all tokens of the batch, sqrt(var + {whiten_eps:g})",
    },
    published={"eps": "verl", "correction": "verl", "whiten_eps": "verl"},
)
def per_reward_std_whitened(
    batch: Batch, *, eps: float = 1e-6, correction: int = 1, whiten_eps: float = 1e-8
) -> Tensor:
    """Every reward standardised within its group, weighted and added up, then whitened over all counted tokens.

        A_it = whiten(sum_k w_k (r_ki - mean(r_k)) / (std(r_k) + eps))

    Returns [P, G, T]; a long response weighs more in the batch's statistics. Source: GDPO (2026, arXiv:2601.05242), in
    verl's form, over tokens.
    """
    spread = _standardised_sum(batch, eps, correction)[..., None].expand(batch.response_mask.shape)
    return whiten(spread, batch.mask, correction=correction, eps=whiten_eps).to(batch.rewards)
