"""Loss aggregators: how much each token counts, as weights [B, T] over ALL rows of one optimizer step.

`N` tokens of the step, `n_i` tokens of row i, `R` rows (rows without a counted token included, so that masking a
response takes its loss away and nothing else). The loss is `sum(weights * token_loss)`. Weights are 0 where the mask
is; a step whose mask is empty gets weights of 0, not NaN.
"""

from torch import Tensor

from core import aggregator


@aggregator(axes={"aggregation": "mean over all tokens of the step"})
def token_mean(mask: Tensor) -> Tensor:
    """Every token counts the same: w_it = 1 / N.

    [B, T]. Long responses weigh more. Source: DAPO (Yu et al. 2025, arXiv:2503.14476, equation 8).
    """
    m = mask.float()
    return m / m.sum().clamp(min=1)


@aggregator(axes={"aggregation": "mean over rows of their token mean"})
def seq_mean_token_mean(mask: Tensor) -> Tensor:
    """Every response counts the same, whatever its length: w_it = 1 / (R * n_i).

    [B, T]. A token of a long response weighs less. Source: GRPO (Shao et al. 2024, arXiv:2402.03300, equation 3).
    """
    m = mask.float()
    return m / m.sum(-1, keepdim=True).clamp(min=1) / m.shape[0]


@aggregator(axes={"aggregation": "mean over rows of their token sum"})
def seq_mean_token_sum(mask: Tensor) -> Tensor:
    """The log-probability of the whole response, averaged over rows: w_it = 1 / R.

    [B, T]. The policy gradient of the response as one action. Source: RLOO (Ahmadian et al. 2024, arXiv:2402.14740).
    """
    m = mask.float()
    return m / m.shape[0]


@aggregator(axes={"aggregation": "mean over rows of their token sum / max_tokens"})
def seq_mean_token_sum_norm(mask: Tensor, *, max_tokens: int) -> Tensor:
    """The token sum over a constant, the generation limit: w_it = 1 / (R * max_tokens).

    [B, T]. No token's weight depends on any length that was sampled, nor on padding. Source: Dr. GRPO (Liu et al. 2025,
    arXiv:2503.20783, section 3.2).
    """
    m = mask.float()
    return m / (m.shape[0] * max_tokens)
