"""Builders of rows, by kind of part.

Each takes a registered name, hyper-parameters that make the two coincide, and a call of the reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from core import Batch, Part, Variant
from core.loop.correct import factors_and_kept
from core.loop.loss import compute_advantages, kl_in_reward, step_loss
from core.loop.rewards import shape as shaped
from core.loop.rows import RowTensors
from core.parts.registry import REGISTRIES
from experiments.maintenance.conformance.cases import (
    HOLES,
    PLAIN,
    Case,
    Flavour,
)
from experiments.maintenance.conformance.comparison import (
    FLOAT64,
    Comparison,
    Figures,
    Reference,
    Settings,
    differentiated,
)

REWARD_KL: Final = 0.05
"""Coefficient of KL penalties that are taken off the reward."""

KL: Final = 0.04
"""Coefficient of every KL term of a whole variant, in the loss or in the reward."""

PENALTY: Final = 0.7
"""Of responses that reach the limit; it starts at half the limit."""


def advantage(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch], Tensor],
    *,
    kl: bool = False,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """An estimator against a call that gives [B] or [B, T]; with `kl`, k1 to the reference policy is in the reward."""
    part = _part("advantage", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch = with_reward_kl(case.batch) if kl else case.batch
        ours, _ = compute_advantages(plain_variant(advantage=part), batch, None)
        mask = batch.rows("mask")
        given = call(batch)
        given = given if given.ndim == 2 else given[:, None].expand(mask.shape)
        return Figures(ours.flatten(0, 1)[mask]), Figures(given[mask])

    return Comparison("advantage", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def objective(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor, Tensor], Tensor],
    *,
    aggregator: str = "token_mean",
    per_token: bool = True,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """An objective under an aggregator against a call `(batch, logps, advantages)`, [B, T], that gives the loss.

    Advantages are arbitrary; one number a response unless `per_token`.
    """
    part = _part("objective", name, hyper)
    variant = plain_variant(objective=part, aggregator=REGISTRIES["aggregator"][aggregator])

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch = case.batch
        given = case.advantages(per_token)
        ours = differentiated(lambda x: step_loss(variant, batch, x.view(given.shape), given), _rows(case.logps))
        theirs = differentiated(lambda x: call(batch, x, _rows(given)), _rows(case.logps))
        return ours, theirs

    return Comparison("objective", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def aggregator(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """Our weights against the derivative of a call `(batch, losses [B, T])`, a reduction to a scalar, by the losses."""
    part = _part("aggregator", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch, mask = case.batch, case.batch.rows("mask")
        limit = {"max_tokens": batch.max_tokens} if part.takes("max_tokens") else {}
        losses = torch.zeros(mask.shape, dtype=torch.float64, requires_grad=True)
        (weights,) = torch.autograd.grad(call(batch, losses), losses)
        return Figures(part(mask, **limit)), Figures(weights)

    return Comparison("aggregator", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def kl(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """A KL estimator against a call `(logps, ref_logps, old_logps)`, all [B, T], token by token."""
    part = _part("kl", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        mask = case.batch.rows("mask")
        logps, ref, old = _rows(case.logps), case.batch.rows("ref_logps"), case.batch.rows("old_logps")
        extra = (old,) if part.takes("old_logps") else ()

        def figures(function: Callable[[Tensor], Tensor]) -> Figures:
            leaf = logps.clone().requires_grad_()
            values = function(leaf)[mask]
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
            return Figures(values.detach(), gradient[mask])

        return figures(lambda x: part(x, ref, *extra)), figures(lambda x: call(x, ref, old))

    return Comparison("kl", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def value_loss(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor, Tensor], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """A critic's loss under a mean over tokens against a call `(batch, values, returns)`, both [B, T], to the loss.

    The batch holds the values before the update. Present ones differ from them by as much as log-probabilities do from
    the old ones, and returns are made of the same differences.
    """
    part = _part("value_loss", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        mask, old = case.batch.rows("mask"), case.batch.rows("values")
        moved = _rows(case.logps) - case.batch.rows("old_logps")
        returns = old + _rows(case.advantages(True))
        weights = REGISTRIES["aggregator"]["token_mean"](mask)
        extra = (old,) if "old_values" in part.parameters else ()
        ours = differentiated(lambda x: (weights * torch.where(mask, part(x, returns, *extra), 0.0)).sum(), old + moved)
        return ours, differentiated(lambda x: call(case.batch, x, returns), old + moved)

    return Comparison("value_loss", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def kl_term(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """A KL estimator as the only term of a token-mean loss, coefficient 1, against a call `(batch, logps [B, T])`."""
    part = _part("kl", name, hyper)
    variant = plain_variant(kl=part, kl_coef=1.0)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch, logps = case.batch, _rows(case.logps)
        nothing = torch.zeros_like(case.logps)
        ours = differentiated(lambda x: step_loss(variant, batch, x.view(nothing.shape), nothing), logps)
        return ours, differentiated(lambda x: call(batch, x), logps)

    return Comparison("kl", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def correction(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """A correction's factors, 0 at tokens that it takes out, against a call that gives them as [B, T] or [B, 1]."""
    part = _part("correction", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch, mask = case.batch, case.batch.rows("mask")
        factors, keep = factors_and_kept(part, RowTensors.of(batch, case.advantages(True)))
        return Figures((factors * keep)[mask]), Figures(call(batch).expand(mask.shape)[mask])

    return Comparison("correction", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def credit(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor, Tensor], Tensor],
    *,
    kl_coef: float = 0.0,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    **hyper: Any,
) -> Comparison:
    """A step of the credit chain, under PPO's clip and a token mean, against a call `(batch, logps, advantages)` to the
    loss, [B, T] each; advantages are arbitrary, and with a `kl_coef` k3 times the ratio is in the loss.
    """
    part = _part("credit", name, hyper)
    penalty = {"kl": REGISTRIES["kl"]["k3_ratio"], "kl_coef": kl_coef} if kl_coef else {}
    variant = plain_variant(objective=REGISTRIES["objective"]["clip"], **penalty)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch, given = case.batch, case.advantages(True)
        credited = part(batch, given)
        ours = differentiated(lambda x: step_loss(variant, batch, x.view(given.shape), credited), _rows(case.logps))
        return ours, differentiated(lambda x: call(batch, x, _rows(given)), _rows(case.logps))

    return Comparison("credit", name, reference, repr(part), theirs, sides, note, tolerance, flavours)


def filter(
    name: str, reference: Reference, theirs: str, call: Callable[[Batch], Tensor], *, note: str = "", **hyper: Any
) -> Comparison:
    """A filter against a call that gives the groups it keeps, [P]."""
    part = _part("filter", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        return Figures(part(case.batch)), Figures(call(case.batch))

    return Comparison("filter", name, reference, repr(part), theirs, sides, note)


def shaping(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, int], Tensor],
    *,
    beyond: bool = True,
    note: str = "",
    tolerance: float = FLOAT64,
    **hyper: Any,
) -> Comparison:
    """A shaping against a call `(batch, limit) -> [P, G]`; some responses are longer than the limit if `beyond`."""
    part = _part("shaping", name, hyper)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch = case.batch
        limit = batch.response_mask.shape[-1] - (batch.response_mask.shape[-1] // 4 if beyond else 0)
        limit -= limit % 2  # a buffer of half the limit is then a whole number of tokens
        if not beyond:
            batch = batch.having(response_mask=batch.response_mask & (torch.arange(batch.mask.shape[-1]) < limit))
        ours = part(batch.rewards, batch.lengths, batch.truncated, max_tokens=limit)
        return Figures(ours), Figures(call(batch, limit))

    return Comparison("shaping", name, reference, repr(part), theirs, sides, note, tolerance)


def whole(
    name: str,
    reference: Reference,
    theirs: str,
    call: Callable[[Batch, Tensor], Tensor],
    *,
    note: str = "",
    tolerance: float = FLOAT64,
    flavours: Sequence[Flavour] = (PLAIN, HOLES),
    groups: Callable[[Batch], Tensor] | None = None,
    fields: Settings | None = None,
    first: bool = False,
    **hyper: Any,
) -> Comparison:
    """A whole variant, rewards to loss, against a call `(batch, logps [B, T])` that does all of it by the reference.

    `groups` gives the groups [P] that the reference trains on, where ours has a filter: the two must choose alike.
    `fields` of the variant are changed where it has no hyper-parameter for it. With `first` it is the rollout's first
    update: the old policy is the present one, and ours drift from the sampler alone.
    """
    changed = fields or {}
    variant: Variant = replace(REGISTRIES["variant"][name](**hyper), **changed)

    def sides(case: Case) -> tuple[Figures, Figures]:
        batch, logps = case.batch, case.logps
        if first:
            batch = batch.having(old_logps=logps)
        if groups is not None:
            kept = groups(batch)
            if variant.filter is None or not torch.equal(kept, variant.filter(batch)):
                raise ValueError("ours and theirs train on different groups")
            index = kept.nonzero()[:, 0]
            batch, logps = batch.select(index), logps[index]
        finished = kl_in_reward(variant, shaped(variant, batch))
        advantages, _ = compute_advantages(variant, finished, None)
        ours = differentiated(lambda x: step_loss(variant, finished, x.view(logps.shape), advantages), _rows(logps))
        return ours, differentiated(lambda x: call(batch, x), _rows(logps))

    settings = ", ".join(f"{key}={value!r}" for key, value in (hyper | changed).items())
    return Comparison("variant", name, reference, f"{name}({settings})", theirs, sides, note, tolerance, flavours)


def plain_variant(**parts: Any) -> Variant:
    """A variant of the simplest parts, but for those given."""
    simplest = {"advantage": "no_baseline", "objective": "policy_gradient", "aggregator": "token_mean"}
    return Variant(**{kind: REGISTRIES[kind][name] for kind, name in simplest.items()} | parts)


def with_reward_kl(batch: Batch) -> Batch:
    """The batch with a penalty of k1 to the reference policy in its rewards."""
    return kl_in_reward(plain_variant(kl=REGISTRIES["kl"]["k1"], kl_coef=REWARD_KL, kl_place="reward"), batch)


def _part(kind: str, name: str, hyper: dict[str, Any]) -> Part:
    part = REGISTRIES[kind][name]
    return part.using(**hyper) if hyper else part


def _rows(groups: Tensor) -> Tensor:
    return groups.flatten(0, 1)
