"""What holds of aggregators, which weigh every token of an optimizer step."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part
from core.loop import loss
from core.parts.options import AggregatorOptions
from estimators.segments import segments_of
from experiments.check.checks import Broken, Call, Checks, finite, numbers, same

CHECKS = Checks("aggregator")
LIMIT = 9


def masks() -> Iterator[Tensor]:
    """Masks [B, T] with holes, of ragged rows, one of them empty; a single row; a single token."""
    for B, T, seed in ((1, 4, 0), (2, 5, 1), (6, 7, 2), (5, 3, 3)):
        mask = torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < 0.6
        mask[0, 0] = True
        yield mask
    yield torch.arange(6) < torch.tensor([[6], [1], [0], [3]])
    yield torch.ones(1, 1, dtype=torch.bool)


def full_masks() -> Iterator[Tensor]:
    """Masks without an empty row."""
    yield torch.arange(6) < torch.tensor([[6], [1], [3]])
    yield torch.tensor([[True, False, True, True], [False, True, False, False]])
    yield torch.ones(1, 1, dtype=torch.bool)


def weigh(part: Part, mask: Tensor, limit: int = LIMIT) -> Tensor:
    """Weights [B, T], as the loop asks for them; a row is a group of its own, and each of its runs of tokens a turn."""
    turns = segments_of(mask)[0] + 1
    return loss.weigh(part, mask, turns, max_tokens=limit, group_size=1)


@CHECKS.must("shape and numbers", remedy="return floating-point weights [B, T], 0 outside the mask, none below 0")
def shape_and_numbers(part: Part) -> None:
    """[B, T], floating, finite, not negative, 0 outside the mask."""
    for mask in masks():
        weights = weigh(part, mask)
        if not weights.is_floating_point():
            raise Broken(f"dtype {weights.dtype}")
        finite(weights, what="weight")
        given = f"rows of {numbers(mask.sum(-1))} tokens"
        same(weights.clamp(min=0), weights, given=f"a negative weight, {given}", tolerance=0.0)
        same(weights, torch.zeros_like(weights), ~mask, given=f"outside the mask, {given}", tolerance=0.0)


@CHECKS.must("nothing counted", remedy="clamp the denominator: .clamp(min=1)")
def nothing_counted(part: Part) -> None:
    """A step without a counted token has weights of 0, not NaN."""
    for shape in ((1, 1), (3, 4)):
        weights = weigh(part, torch.zeros(shape, dtype=torch.bool))
        same(weights, torch.zeros(shape), given="all-masked step", tolerance=0.0)


@CHECKS.must("padding", remedy="divide by counted tokens or by max_tokens, never by mask.shape[1]")
def padding(part: Part) -> None:
    """Columns without a counted token change no weight."""
    for mask in masks():
        wide = weigh(part, torch.nn.functional.pad(mask, (0, 3)))
        expected = torch.nn.functional.pad(weigh(part, mask), (0, 3))
        same(wide, expected, given="with three empty columns more")


@CHECKS.must("permutation", remedy="let nothing depend on the order of the rows")
def permutation(part: Part) -> None:
    """Rows in another order have the same weights, in that order."""
    for seed, mask in enumerate(masks()):
        order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
        given = f"rows in the order {order.tolist()}"
        same(weigh(part, mask[order]), weigh(part, mask)[order], given=given)


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its input."""
    for mask in masks():
        yield partial(weigh, part, mask), {"mask": mask}


CHECKS.pure(
    calls,
    same_output="draw nothing; weights are a function of the mask",
    inputs_unchanged="work on a copy: mask.float() or mask.clone()",
)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("every counted token has a weight")
def no_token_left_out(part: Part) -> None:
    """Positive inside the mask."""
    for mask in masks():
        weights = weigh(part, mask)
        if not weights[mask].gt(0).all():
            raise Broken(f"weights {numbers(weights[mask])} for rows of {numbers(mask.sum(-1))} tokens")


@CHECKS.reports("weights sum to 1")
def sum_to_one(part: Part) -> None:
    """A mean, not a sum, where no row is empty."""
    for mask in full_masks():
        total = weigh(part, mask).sum()
        if abs(total - 1) > 1e-5:
            raise Broken(f"to {total:.4g} for rows of {numbers(mask.sum(-1))} tokens")


@CHECKS.reports("every token counts the same")
def tokens_alike(part: Part) -> None:
    """One weight for all counted tokens of a step."""
    for mask in masks():
        weights = weigh(part, mask)[mask]
        if weights.max() - weights.min() > 1e-6 * weights.max():
            raise Broken(f"weights {numbers(weights)} for rows of {numbers(mask.sum(-1))} tokens")


@CHECKS.reports("every row counts the same")
def rows_alike(part: Part) -> None:
    """One sum of weights for all rows that have a token."""
    for mask in masks():
        rows = weigh(part, mask).sum(-1)[mask.any(-1)]
        if rows.max() - rows.min() > 1e-5 * rows.max():
            raise Broken(f"row weights {numbers(rows)} for rows of {numbers(mask.sum(-1)[mask.any(-1)])} tokens")


@CHECKS.reports("a row's weights depend on no other row's length")
def lengths_apart(part: Part) -> None:
    """Only on the number of rows."""
    short, long = (torch.arange(6) < torch.tensor([[2], [n], [3]]) for n in (1, 6))
    given = "the first of rows of 2, 6, 3 tokens, against 2, 1, 3"
    same(weigh(part, long)[0], weigh(part, short)[0], given=given)


@CHECKS.reports("a row without a counted token still counts as a row")
def empty_rows_count(part: Part) -> None:
    """Masking a response takes its loss away and makes no other response louder."""
    with_empty, without = (torch.arange(4) < torch.tensor([[2], [n], [3]]) for n in (0, 1))
    kept = torch.tensor([0, 2])
    if torch.allclose(weigh(part, with_empty)[kept], weigh(part, with_empty[kept])):
        raise Broken("taking the empty row out changes no weight")
    change = weigh(part, with_empty)[kept].sum() / weigh(part, without)[kept].sum()
    if change > 1 + 1e-5:
        raise Broken(f"masking a row makes the others {change:.3g} times as heavy")


@CHECKS.reports("any split into micro-batches gives the same loss")
def split_invariant(part: Part) -> str:
    """True by construction, unless it is declared to be computed on each micro-batch."""
    if not AggregatorOptions.of(part).split_invariant:
        raise Broken("computed on each micro-batch by itself, as declared")
    return "weights are computed once a step"
