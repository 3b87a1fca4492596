"""What an optimizer step makes of responses that another policy sampled: the anchor of ratios, and corrections."""

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.loop.rows import RowTensors, inside
from core.parts.contracts import check_shape
from core.parts.registry import Part
from core.parts.variant import Variant


def anchor_logps(variant: Variant, rows: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities [B, T] that ratios are against, no gradient; `rows` have the present ones as `logps`.

        trainer     old
        sampler     behaviour
        loglinear   behaviour + alpha (logps - behaviour),   alpha = max(0, age - 1) / age

    The last is A-3PO's (arXiv:2512.06547): log-linear in age between the sampler, one update ago or less, and now.
    """
    if variant.anchor == "trainer":
        return rows["old_logps"]
    behaviour = rows["behaviour_logps"]
    if variant.anchor == "sampler":
        return behaviour
    if "token_age" not in rows:
        raise GrpoLabError(
            "anchor='loglinear' goes by the age of tokens, which is not known here: give the batch its token_version "
            "and the policy's version"
        )
    age = rows["token_age"]
    alpha = ((age - 1).clamp(min=0) / age.clamp(min=1)).to(behaviour.dtype)
    return behaviour + alpha * (rows["logps"].detach() - behaviour)


def reads_present_logps(variant: Variant) -> bool:
    """Whether the chain rests on the present policy's log-probabilities, which are then computed before the step."""
    return bool(variant.corrections) and variant.anchor == "loglinear"


@torch.no_grad()
def correct(variant: Variant, rows: RowTensors, logps: Tensor | None = None) -> RowTensors:
    """All rows of one optimizer step, with the chain's `factors` [B, T] and without the tokens that it takes out.

    `mask` is what stays in the loss, `denominator` what the aggregator counts, as the variant declares. `logps`: those
    of the present policy, which stand for the old ones where these were not computed. Where the ratio is against the
    sampler, tokens without a log-probability from it (NaN) are taken out.
    """
    mask = rows["mask"]
    keep = mask
    out = RowTensors(rows)
    if variant.anchor != "trainer":
        keep = keep & ~rows["behaviour_logps"].isnan()
    if variant.corrections:
        present = {} if logps is None else {"old_logps": logps, **rows, "logps": logps}
        tensors = inside(present or rows, mask)
        if variant.anchor == "loglinear":
            tensors["old_logps"] = anchor_logps(variant, tensors)
        factors, kept = zip(*(factors_and_kept(part, tensors) for part in variant.corrections), strict=True)
        out["factors"] = reduce(torch.mul, factors)
        keep = reduce(torch.logical_and, kept, keep)
    if keep is not mask:
        out["mask"] = keep
        if variant.denominator == "all":
            out["denominator"] = mask
    return out


def factors_and_kept(part: Part, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A correction's factors [B, T] on these rows, and the tokens that it leaves in the loss, [B, T] bool."""
    mask = tensors["mask"]
    if missing := [name for name in part.parameters if name not in tensors]:
        raise GrpoLabError(
            f"correction '{part.name}' ({part.place}) asks for {missing[0]}, which is not known here: ages take a "
            "batch's token_version and the policy's version, other tensors a provider or a field of the batch"
        )
    result = part(*(tensors[name] for name in part.parameters))
    factors, keep = result if isinstance(result, tuple) and len(result) == 2 else (result, mask)
    check_shape(part, factors, mask.shape)
    check_shape(part, keep, mask.shape)
    if keep.dtype != torch.bool:
        raise GrpoLabError(f"correction '{part.name}' ({part.place}) returned keep as {keep.dtype}: it must be bool")
    return factors, keep


def is_ratio(factors: Tensor, old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    """1 where a correction's factor is the importance ratio itself, of the token or its response: neither truncated nor
    masked.
    """
    # NaN: the sampler gave no log-probability, and there is no correction
    log_ratio = torch.where(mask, old_logps - behaviour_logps, 0.0).nan_to_num(0.0)
    factors = factors.to(log_ratio.dtype)
    of_response = torch.exp(log_ratio.sum(-1, keepdim=True)).expand_as(factors)
    return (torch.isclose(factors, torch.exp(log_ratio)) | torch.isclose(factors, of_response)).float()
