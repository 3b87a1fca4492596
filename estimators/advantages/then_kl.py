"""Group baselines on the outcome alone, with each token's KL penalty added afterwards, which no baseline touches."""

from torch import Tensor

from core import Batch, Part, advantage
from estimators.advantages.batch import WHITENED, whiten
from estimators.advantages.group import group_mean, group_mean_std, leave_one_out
from estimators.advantages.returns import outcome, token_terms

CREDIT = "outcome clipped to +-{reward_clip:g} once centred, KL to go without a baseline"
OPENRLHF = {"reward_clip": "OpenRLHF, --reward.clip_range"}


def _then_kl(batch: Batch, estimator: Part, reward_clip: float, **hyper: float) -> Tensor:
    """clip(estimator(outcomes)) + sum_{u >= t} x_u, x the per-token terms: float64 [P, G], or [P, G, T] with any."""
    batch = batch.having(turn_rewards=None)  # part of the outcome: a baseline is for all but a penalty
    centred: Tensor = estimator.function(batch.having(rewards=outcome(batch)), **hyper).clamp(-reward_clip, reward_clip)
    terms = token_terms(batch)
    if terms is not None:
        centred = centred[..., None] + terms.flip(-1).cumsum(-1).flip(-1)
    return centred


@advantage(
    axes={"baseline": "mean of the other samples' outcomes", "std": "none", "credit": CREDIT},
    published=OPENRLHF,
)
def leave_one_out_then_kl(batch: Batch, *, reward_clip: float = 10.0) -> Tensor:
    """Leave-one-out on the outcome alone, clipped; then the KL penalty to go.

        A_it = clip(o_i - mean_{j != i} o_j, -reward_clip, reward_clip) + sum_{u >= t} kl_iu

    Returns [P, G], or [P, G, T] with a KL penalty in the reward. Source: OpenRLHF's `rloo`.
    """
    return _then_kl(batch, leave_one_out, reward_clip).to(batch.rewards)


@advantage(axes={"baseline": "group mean of the outcomes", "std": "none", "credit": CREDIT}, published=OPENRLHF)
def group_mean_then_kl(batch: Batch, *, reward_clip: float = 10.0) -> Tensor:
    """Centred outcome, clipped; then the KL penalty to go.

        A_it = clip(o_i - mean(o), -reward_clip, reward_clip) + sum_{u >= t} kl_iu

    Returns [P, G], or [P, G, T] with a KL penalty in the reward. Source: OpenRLHF's `dr_grpo`.
    """
    return _then_kl(batch, group_mean, reward_clip).to(batch.rewards)


@advantage(
    axes={"baseline": "group mean of the outcomes", "std": "group, ddof {correction}, + {eps:g}", "credit": CREDIT},
    published={**OPENRLHF, "eps": "OpenRLHF", "correction": "OpenRLHF"},
)
def group_mean_std_then_kl(
    batch: Batch, *, eps: float = 1e-9, correction: int = 1, reward_clip: float = 10.0
) -> Tensor:
    """Standardised outcome, clipped; then the KL penalty to go.

        A_it = clip((o_i - mean(o)) / (std(o) + eps), -reward_clip, reward_clip) + sum_{u >= t} kl_iu

    Returns [P, G], or [P, G, T] with a KL penalty in the reward. Source: OpenRLHF's `group_norm`.
    """
    return _then_kl(batch, group_mean_std, reward_clip, eps=eps, correction=correction).to(batch.rewards)


@advantage(
    scope="batch",
    axes={
        "baseline": "group mean of the outcomes, then the mean over all tokens of the batch",
        "std": WHITENED,
        "credit": CREDIT,
    },
    published={**OPENRLHF, "correction": "OpenRLHF", "eps": "OpenRLHF", "floor": "OpenRLHF"},
)
def whitened_group_mean_then_kl(
    batch: Batch, *, correction: int = 0, eps: float = 0.0, floor: float = 1e-8, reward_clip: float = 10.0
) -> Tensor:
    """Centred outcome, clipped, with the KL penalty to go, whitened over all counted tokens of the batch.

        A_it = (a_it - mean(a)) / sqrt(max(var(a), floor) + eps),   a = group_mean_then_kl

    Returns [P, G, T]. A group without spread gets -mean/std, not 0. Source: OpenRLHF's `reinforce_baseline`.
    """
    credit = _then_kl(batch, group_mean, reward_clip)
    credit = credit if credit.ndim == 3 else credit[..., None].expand(batch.mask.shape)
    return whiten(credit, batch.mask, correction=correction, eps=eps, floor=floor).to(batch.rewards)
