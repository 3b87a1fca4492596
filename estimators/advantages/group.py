"""Baselines from the group itself: the other samples of the same prompt stand in for a critic."""

from torch import Tensor

from core import Batch, advantage


def centred(batch: Batch) -> Tensor:
    """Rewards minus their group mean, float64, [P, G]; exactly 0 in a group without spread.

    In float32 the mean of equal rewards (seven times 0.7) is off by an ulp, and dividing that by a std that is off by
    an ulp gives advantages near 1 out of nothing.
    """
    rewards = batch.rewards.double()
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred.masked_fill(batch.no_spread[:, None], 0.0)


@advantage(axes={"baseline": "group mean", "std": "none"})
def group_mean(batch: Batch) -> Tensor:
    """Reward minus the mean of its group.

        A_i = r_i - mean(r)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. Used by Dr. GRPO (Liu et al. 2025,
    arXiv:2503.20783), where dividing by the std is seen as a bias towards questions that are too easy or too hard.
    """
    return centred(batch).to(batch.rewards)


@advantage(
    axes={"baseline": "group mean", "std": "group, ddof {correction}, + {eps:g}"},
    published={"correction": "TRL, verl, OpenRLHF; the paper says only std"},
)
def group_mean_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1) -> Tensor:
    """Reward standardised within its group.

        A_i = (r_i - mean(r)) / (std(r) + eps)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. `correction` is the ddof of the std: the
    paper says only "std"; TRL, verl and OpenRLHF take 1, others 0. Source: GRPO (Shao et al. 2024, arXiv:2402.03300,
    section 4.1.2, outcome supervision).
    """
    std = batch.rewards.double().std(1, correction=correction, keepdim=True)
    # masked again: with eps = 0 a group without spread is 0 / 0
    return (centred(batch) / (std + eps)).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(axes={"baseline": "mean of the other samples", "std": "none"})
def leave_one_out(batch: Batch) -> Tensor:
    """Reward minus the mean of the other samples of its group.

        A_i = r_i - sum_{j != i} r_j / (G - 1) = G / (G - 1) * (r_i - mean(r))

    Returns [P, G]; unbiased, since the baseline does not depend on sample i; sums to 0 over each group; 0 in a group
    without spread. Source: RLOO (Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019).
    """
    G = batch.group_size
    return (centred(batch) * (G / (G - 1))).to(batch.rewards)


@advantage(
    scope="batch",
    axes={"baseline": "group mean", "std": "raw rewards of the batch, ddof {correction}, + {eps:g}"},
    published={"eps": "TRL", "correction": "TRL"},
)
def group_mean_batch_std(batch: Batch, *, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """Reward minus its group's mean, over the std of all rewards of the batch.

        A_i = (r_i - mean(r_group)) / (std(r_batch) + eps)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. All questions are divided by one number, so
    none gains weight by being easy or hard. The std is that of raw rewards, not of centred ones. Source: TRL's
    `scale_rewards="batch"`, after Liu et al. 2025 (arXiv:2508.08221, section on normalisation).
    """
    std = batch.rewards.double().std(correction=correction)
    return (centred(batch) / (std + eps)).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(
    scope="batch",
    axes={"baseline": "mean of the other samples", "std": "advantages of the batch, ddof {correction}, + {eps:g}"},
    published={"eps": "TRL", "correction": "TRL"},
)
def leave_one_out_batch_std(batch: Batch, *, eps: float = 1e-4, correction: int = 1) -> Tensor:
    """The leave-one-out advantage, standardised over the batch.

        A_i = a_i / (std(a) + eps),   a = leave-one-out advantages of all groups, whose mean is 0

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. Source: TRL's `normalize_advantages`.
    """
    G = batch.group_size
    loo = centred(batch) * (G / (G - 1))
    # their mean is 0: nothing to centre
    scaled = loo / (loo.std(correction=correction) + eps)
    return scaled.masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(axes={"baseline": "mean of the group, each reward weighted by its length", "std": "none"})
def length_weighted_mean(batch: Batch) -> Tensor:
    """Reward minus the mean of its group in which each reward counts with its response's length.

        A_i = r_i - sum_j n_j r_j / sum_j n_j,   n = counted tokens

    Returns [P, G]; sum_i n_i A_i = 0 over each group; 0 in a group without spread; the group mean where lengths are
    equal. The baseline of least variance if gradient norms grow with length. Source: OPO (Hao et al. 2025,
    arXiv:2505.23585).
    """
    rewards, n = batch.rewards.double(), batch.mask.sum(-1)
    baseline = (n * rewards).sum(1, keepdim=True) / n.sum(1, keepdim=True).clamp(min=1)
    return (rewards - baseline).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(
    scope="batch",
    axes={"baseline": "group mean", "std": "none, x samples / samples in groups with spread, / {scale:g}"},
    published={"scale": "GPG, F = 1"},
)
def group_mean_spread_scaled(batch: Batch, *, scale: float = 1.0) -> Tensor:
    """Centred reward, scaled up by what the groups without spread take away.

        A_i = alpha * (r_i - mean(r)) / scale,   alpha = B / (B - M),   M = samples in groups without spread

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. Source: GPG (Chu et al. 2025,
    arXiv:2504.02546, alpha; F is `scale`).
    """
    # float64: a count divided by a number would be float32
    kept = (~batch.no_spread).sum().clamp(min=1).double()
    return (centred(batch) * (batch.groups / kept) / scale).to(batch.rewards)


@advantage(
    scope="batch",
    axes={"baseline": "group mean", "std": "none, x samples / samples with a reward other than 0, / {scale:g}"},
    published={"scale": "verl, f_norm = 1"},
)
def group_mean_nonzero_scaled(batch: Batch, *, scale: float = 1.0) -> Tensor:
    """Centred reward, scaled by the number of rewards that are not 0: what verl computes for GPG.

        A_i = alpha * (r_i - mean(r)) / scale,   alpha = B / max(1, #{j: r_j != 0})

    Returns [P, G]; sums to 0 over each group. With rewards of 0 and 1, alpha is 1 / accuracy: the weaker the model, the
    larger every update; with -1 and 1 it is 1. Source: verl's `gpg` estimator.
    """
    alpha = batch.rewards.numel() / batch.rewards.count_nonzero().clamp(min=1).double()
    return (centred(batch) * alpha / scale).to(batch.rewards)


@advantage(axes={"baseline": "group mean", "std": "none, / (group mean + {eps:g})"})
def group_mean_relative(batch: Batch, *, eps: float = 1e-6) -> Tensor:
    """Reward relative to the mean of its group.

        A_i = (r_i - mean(r)) / (mean(r) + eps)

    Returns [P, G]; sums to 0 over each group; 0 in a group without spread. For rewards that are never negative: a hard
    question weighs by one over its success rate, as if the log of the success rate were maximised (the form of
    maximum-likelihood objectives such as MaxRL).
    """
    mean = batch.rewards.double().mean(1, keepdim=True)
    return (centred(batch) / (mean + eps)).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


def _lead_of_the_best(batch: Batch) -> Tensor:
    """How far each group's best response is ahead of the second best, at its place, 0 elsewhere; float64 [P, G]."""
    rewards = batch.rewards.double()
    (best, second), (place, _) = (x.unbind(1) for x in rewards.topk(2, dim=1))
    return rewards.new_zeros(rewards.shape).scatter(1, place[:, None], (best - second)[:, None])


@advantage(axes={"baseline": "second best of the group, for the best only", "std": "none"})
def best_minus_second(batch: Batch) -> Tensor:
    """Only the best response of a group learns: by how much it is ahead of the second best.

        A_best = r_(1) - r_(2),   A_i = 0 otherwise

    Returns [P, G]; at most one entry of a group is not 0; ties for the best give 0. The gradient of the expected best
    of G. Source: verl's `grpo_passk` without std, after Tang et al. 2025 (arXiv:2503.19595).
    """
    return _lead_of_the_best(batch).to(batch.rewards)


@advantage(
    axes={"baseline": "second best of the group, for the best only", "std": "group, ddof {correction}, + {eps:g}"},
    published={"eps": "verl", "correction": "verl"},
)
def best_minus_second_std(batch: Batch, *, eps: float = 1e-6, correction: int = 1) -> Tensor:
    """The best response's lead over the second best, in stds of its group.

        A_best = (r_(1) - r_(2)) / (std(r) + eps),   A_i = 0 otherwise

    Returns [P, G]; 0 in a group without spread. Source: verl's `grpo_passk`.
    """
    std = batch.rewards.double().std(1, correction=correction, keepdim=True)
    return (_lead_of_the_best(batch) / (std + eps)).masked_fill(batch.no_spread[:, None], 0.0).to(batch.rewards)


@advantage(axes={"baseline": "none: 1 for the best of the group, -1 for the worst", "std": "none"})
def best_against_worst(batch: Batch) -> Tensor:
    """The best response of a group is preferred to the worst; the others say nothing.

        A_i = [r_i = max(r)] - [r_i = min(r)]

    Returns [P, G]: 1, 0 or -1; 0 in a group without spread. Responses that tie for best, or for worst, all count as
    such: which of them was drawn first means nothing. A preference for objectives on pairs, which read its sign. With
    G = 2, the pair of online DPO (Guo et al. 2024, arXiv:2402.04792).
    """
    rewards = batch.rewards
    best, worst = rewards == rewards.amax(1, keepdim=True), rewards == rewards.amin(1, keepdim=True)
    return best.to(rewards) - worst.to(rewards)


@advantage(min_group=1, axes={"baseline": "none", "std": "none"})
def no_baseline(batch: Batch) -> Tensor:
    """The reward itself.

        A_i = r_i

    Returns [P, G]. The control: what every baseline is to be measured against. Source: REINFORCE (Williams 1992).
    """
    return batch.rewards
