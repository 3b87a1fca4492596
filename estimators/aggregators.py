"""Loss aggregators: how much each token counts, as weights [B, T], float64, over ALL rows of one optimizer step.

`N` tokens of the step, `n_i` tokens of row i, `n_ik` of its turn k, `R` rows. With `count_empty` (the default) R
includes rows without a counted token, so that masking a response takes its loss away and nothing else. The loss is
`sum(weights * token_loss)`. Weights are 0 where the mask is; a step whose mask is empty gets weights of 0, not NaN.
"""

from torch import Tensor

from core import aggregator
from estimators.segments import segments_of


@aggregator(axes={"aggregation": "mean over all tokens of the step"})
def token_mean(mask: Tensor) -> Tensor:
    """Every token counts the same: w_it = 1 / N.

    [B, T]. Long responses weigh more. Source: DAPO (Yu et al. 2025, arXiv:2503.14476, equation 8).
    """
    m = mask.double()
    return m / m.sum().clamp(min=1)


@aggregator(split_invariant=False, axes={"aggregation": "mean over the tokens of each micro-batch, then over these"})
def token_mean_local(mask: Tensor) -> Tensor:
    """Every token counts the same within its micro-batch: w_it = 1 / N_micro, and micro-batches are averaged.

    [B, T]. Tokens of a micro-batch with short responses weigh more, and the gradient depends on how the step was split:
    here to show what that does. Source: TRL's `bnpo`; a mistake that several trainers have made and mended.
    """
    m = mask.double()
    return m / m.sum().clamp(min=1)


@aggregator(axes={"aggregation": "sum over all tokens of the step"})
def token_sum(mask: Tensor) -> Tensor:
    """Every token counts fully: w_it = 1.

    [B, T]. The gradient grows with the batch. Source: verl's `token-sum`.
    """
    return mask.double()


def _rows(m: Tensor, count_empty: bool) -> Tensor:
    """How many rows a mean over rows counts, at least 1."""
    counted = m.new_tensor(m.shape[0]) if count_empty else m.any(-1).sum()
    return counted.clamp(min=1)


@aggregator(axes={"aggregation": "mean over rows of their token mean"})
def seq_mean_token_mean(mask: Tensor, *, count_empty: bool = True) -> Tensor:
    """Every response counts the same, whatever its length: w_it = 1 / (R * n_i).

    [B, T]. A token of a long response weighs less. Source: GRPO (Shao et al. 2024, arXiv:2402.03300, equation 3).
    """
    m = mask.double()
    return m / m.sum(-1, keepdim=True).clamp(min=1) / _rows(m, count_empty)


@aggregator(axes={"aggregation": "mean over rows of their token sum"})
def seq_mean_token_sum(mask: Tensor, *, count_empty: bool = True) -> Tensor:
    """The log-probability of the whole response, averaged over rows: w_it = 1 / R.

    [B, T]. The policy gradient of the response as one action. Source: RLOO (Ahmadian et al. 2024, arXiv:2402.14740).
    """
    m = mask.double()
    return m / _rows(m, count_empty)


@aggregator(axes={"aggregation": "mean over rows of their token sum / max_tokens"})
def seq_mean_token_sum_norm(mask: Tensor, *, max_tokens: int, count_empty: bool = True) -> Tensor:
    """The token sum over a constant, the generation limit: w_it = 1 / (R * max_tokens).

    [B, T]. No token's weight depends on any length that was sampled, nor on padding. Source: Dr. GRPO (Liu et al. 2025,
    arXiv:2503.20783, section 3.2).
    """
    m = mask.double()
    return m / (_rows(m, count_empty) * max_tokens)


@aggregator(axes={"aggregation": "mean over prompts of the mean over all tokens of their responses"})
def prompt_mean(mask: Tensor, *, group_size: int) -> Tensor:
    """Every prompt counts the same, and within it every token: w_it = 1 / (P * sum of n_j over the prompt's rows).

    [B, T]. A prompt without a counted token is still one of P. Equal to `token_mean` where all prompts have equally
    many tokens, to `seq_mean_token_mean` where all responses to a prompt do. Source: ScaleRL's prompt average (2025,
    arXiv:2510.13786); SkyRL's `prompt_mean`; DAPO's formula within its expectation over prompts.
    """
    m = mask.double()
    tokens = m.view(-1, group_size, m.shape[1]).sum((1, 2)).clamp(min=1)
    return m / tokens.repeat_interleave(group_size)[:, None] / max(1, len(tokens))


@aggregator(axes={"aggregation": "mean over rows of the mean over their segments of their token mean"})
def segment_mean(mask: Tensor, *, count_empty: bool = True) -> Tensor:
    """Every unbroken run of counted tokens in a row counts the same: w_it = 1 / (R * K_i * n_ik), K_i runs in row i.

    [B, T]. A run is a turn of the policy's own between what an environment said, or the piece before a hole. With one
    run a row it is `seq_mean_token_mean`.
    """
    m = mask.double()
    index, counts = segments_of(mask)
    runs = counts.gt(0).sum(-1, keepdim=True).clamp(min=1)
    return m / counts.gather(1, index).clamp(min=1) / runs / _rows(m, count_empty)


def _of_turns(mask: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """1 / n_ik at every counted token of turn k of row i [B, T], and K_i, the turns with a counted token [B, 1]."""
    m, which = mask.double(), turns.clamp(min=0)
    counts = m.new_zeros(len(m), int(which.max()) + 1 if which.numel() else 1).scatter_add(1, which, m)
    return m / counts.gather(1, which).clamp(min=1), counts.gt(0).sum(-1, keepdim=True)


@aggregator(axes={"aggregation": "mean over rows of the mean over their turns of their token mean"})
def seq_mean_turn_mean(mask: Tensor, *, turns: Tensor, count_empty: bool = True) -> Tensor:
    """Every episode counts the same, and within it every turn: w_it = 1 / (R * K_i * n_ik), K_i turns of row i.

    [B, T]. Turns without a counted token are none. With one turn a row it is `seq_mean_token_mean`.
    """
    shares, K = _of_turns(mask, turns)
    return shares / K.clamp(min=1) / _rows(mask.double(), count_empty)


@aggregator(axes={"aggregation": "mean over all turns of the step of their token mean"})
def turn_mean_token_mean(mask: Tensor, *, turns: Tensor, count_empty: bool = True) -> Tensor:
    """Every turn of the step counts the same, as if it were a row: w_it = 1 / (sum of K_j * n_ik).

    [B, T]. An episode weighs by its number of turns; with advantages over K_i this is `seq_mean_turn_mean` times
    R / sum of K_j. A row without a counted token is one turn more where `count_empty`. Source: the trainers in which
    every turn is a row of its own, e.g. Trinity-RFT and verl-agent.
    """
    shares, K = _of_turns(mask, turns)
    return shares / (K.clamp(min=1) if count_empty else K).sum().clamp(min=1)
