"""Objectives on preferences within a group, [P, G, T]: what a response gains on the reference policy, beside others.

Notation: `h_i = sum_t log pi(y_it) - log ref(y_it)`, the log-ratio of a whole response to the reference policy. A
response is preferred where its advantage is positive and dispreferred where it is negative; no more than the sign is
read, that of the sum over counted tokens. A response without a counted token is neither, as nothing of it is learned.

The loss of a group, or of a response, stands on each of its tokens: `seq_mean_token_mean` makes of it the mean over
groups, or over responses.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core import TokenLoss, objective
from core.parts.settings import POSITIVE
from estimators.objectives.sequence import row_mean, row_sum

POSITIVE_BETA = {"beta": POSITIVE}
RATIO = "response, product over its tokens, to the reference policy"


def _differences(gains: Tensor) -> Tensor:
    """Of the responses of a group, [P, G]: x_i - x_j, [P, G, G]."""
    return gains[:, :, None] - gains[:, None, :]


class _Group:
    """Gains and preferences of the responses of each group."""

    def __init__(self, logps: Tensor, ref_logps: Tensor, advantages: Tensor, mask: Tensor) -> None:
        self.log_ratios, self.mask = logps - ref_logps, mask
        self.gains = row_sum(self.log_ratios, mask)[..., 0]
        self.sides = row_sum(advantages, mask)[..., 0].sign()
        self._pairs = (self.sides[:, :, None] > 0) & (self.sides[:, None, :] < 0)

    def mean_over_pairs(self, values: Tensor) -> Tensor:
        """Mean of [P, G, G] over pairs of a preferred and a dispreferred response, [P]; 0 where there is none."""
        return torch.where(self._pairs, values, 0.0).sum((1, 2)) / self._pairs.sum((1, 2)).clamp(min=1)

    def info(self, beta: float) -> dict[str, Tensor]:
        """Mean reward margin, beta (h_w - h_l), and share of pairs in which it is positive; those of the group."""
        margins = beta * _differences(self.gains.detach())
        logged = {"preference_margin": margins, "preference_accuracy": (margins > 0).to(margins)}
        return {name: self._on_tokens(self.mean_over_pairs(x)) for name, x in logged.items()}

    def token_loss(self, losses: Tensor, beta: float) -> TokenLoss:
        """The mean of [P, G, G] over pairs on each token of the group; a row without any leaves its share to others."""
        counted = self.mask.any(-1)
        share = counted.shape[1] / counted.sum(1).clamp(min=1).to(losses)
        return TokenLoss(self._on_tokens(self.mean_over_pairs(losses) * share), self.info(beta))

    def _on_tokens(self, values: Tensor) -> Tensor:
        return values[:, None, None].expand(self.mask.shape)


@objective(
    level="group",
    limits=POSITIVE_BETA,
    zero_at_zero_advantage=True,
    axes={
        "ratio": RATIO,
        "clip": "none; log-sigmoid of {beta:g} x differences within pairs, "
        "{label_smoothing:g} of them the other way round",
    },
    published={"beta": "DPO, appendix B", "label_smoothing": "DPO, none"},
)
def dpo_sigmoid(
    logps: Tensor,
    ref_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> TokenLoss:
    """The log-odds that a preferred response beats a dispreferred one, if beta h is the reward.

        l = mean over pairs of -(1 - s) log sigmoid(beta (h_w - h_l)) - s log sigmoid(beta (h_l - h_w))

    [P, G, T], the group's l on each token; 0 for a group without a pair. `s` is `label_smoothing`, the share of
    preferences taken to be wrong (Mitchell 2023, conservative DPO). Needs no samples of the present policy. Logs
    `preference_margin`, beta (h_w - h_l), and `preference_accuracy`, where it is positive, as means over tokens: a
    group counts by its length. Source: DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7).
    """
    group = _Group(logps, ref_logps, advantages, mask)
    margins = beta * _differences(group.gains)
    losses = -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)
    return group.token_loss(losses, beta)


@objective(
    level="group",
    limits=POSITIVE_BETA,
    zero_at_zero_advantage=True,
    axes={"ratio": RATIO, "clip": "none; differences within pairs drawn to 1 / (2 x {beta:g})"},
    published={"beta": "TRL", "length_normalised": "IPO, equation 17"},
)
def ipo_square(
    logps: Tensor,
    ref_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float = 0.1,
    length_normalised: bool = False,
) -> TokenLoss:
    """The squared distance of a pair's difference from a target: no pair is pushed apart without end.

        l = mean over pairs of (h_w - h_l - 1 / (2 beta))^2

    [P, G, T], the group's l on each token; 0 for a group without a pair. The paper's h is of whole responses: a sum
    over tokens, which is taken here and by OpenRLHF and TRL's online trainer. TRL's `DPOTrainer` takes its mean over
    the response's tokens, with reference to the authors: `length_normalised`, where the target is in nats per token and
    `beta` means something else. Logs what `dpo_sigmoid` does. Source: IPO (Azar et al. 2023, arXiv:2310.12036,
    equation 17; beta is its tau).
    """
    group = _Group(logps, ref_logps, advantages, mask)
    gains = row_mean(group.log_ratios, mask)[..., 0] if length_normalised else group.gains
    return group.token_loss((_differences(gains) - 1 / (2 * beta)).square(), beta)


def _reference_point(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """The mean of h over all rows of the step, at least 0, on every token, [B, T]; h is 0 for a row without any."""
    return row_sum(logps - ref_logps, mask).mean().clamp(min=0).expand(mask.shape)


@objective(
    level="group",
    limits=POSITIVE_BETA,
    prepare=_reference_point,
    zero_at_zero_advantage=True,
    axes={"ratio": RATIO, "clip": "none; sigmoid of {beta:g} x distance from the step's mean, response by response"},
    published={"beta": "TRL"},
)
def kto_value(
    logps: Tensor, ref_logps: Tensor, advantages: Tensor, mask: Tensor, prepared: Tensor, *, beta: float = 0.1
) -> TokenLoss:
    """The value of a response beside a reference point, gains and losses both levelling off: no pair is needed.

        l_i = 1 - sigmoid(beta (h_i - z)) if preferred, 1 - sigmoid(beta (z - h_i)) if dispreferred, else 0
        z   = max(0, mean of h over all rows of the optimizer step), without gradient

    [P, G, T], a response's l on each of its tokens. z estimates KL(pi || ref), which is right for samples of the
    present policy: at the first update of a rollout. Rows without a counted token are in its mean, with h = 0. The
    paper, whose samples are not the policy's, and TRL take responses to other prompts instead. Both weights lambda are
    1. Logs what `dpo_sigmoid` does, and `reference_point`. Source: KTO (Ethayarajh et al. 2024, arXiv:2402.01306,
    equations 7 and 8).
    """
    group = _Group(logps, ref_logps, advantages, mask)
    sides = group.sides[..., None]
    loss = torch.sigmoid(-sides * beta * (group.gains[..., None] - prepared))
    return TokenLoss(loss.masked_fill(sides == 0, 0.0), {**group.info(beta), "reference_point": prepared})
