"""What holds of corrections of the mismatch between sampler and trainer."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part
from core.parts.contracts import check_shape
from experiments.check.checks import Broken, Call, Checks, finite, numbers, same

CHECKS = Checks("correction")


def rows(distance: float = 0.5) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities [B, T] of trainer and sampler, and a mask with holes and an empty row."""
    for B, T, seed in ((1, 1, 0), (4, 6, 1), (3, 2, 2)):
        draw = torch.Generator().manual_seed(seed)
        old = -0.05 - 3 * torch.rand(B, T, generator=draw)
        mask = torch.rand(B, T, generator=draw) < 0.7
        mask[0, 0] = True
        if B > 1:
            mask[-1] = False
        yield old, old + distance * torch.randn(B, T, generator=draw), mask


def factors(part: Part, old: Tensor, behaviour: Tensor, mask: Tensor) -> Tensor:
    """Factors [B, T]."""
    result: Tensor = part(old, behaviour, mask)
    check_shape(part, result, mask.shape)
    return result


@CHECKS.must("shape and numbers", remedy="return a factor for each token, [B, T], finite and not negative")
def shape_and_numbers(part: Part) -> None:
    """[B, T], finite, not negative."""
    for distance in (0.1, 0.5, 5.0):
        for old, behaviour, mask in rows(distance):
            result = factors(part, old, behaviour, mask)
            finite(result, what="factor")
            if result.lt(0).any():
                raise Broken(f"factors {numbers(result[mask])}")


@CHECKS.must("1 where sampler and trainer agree", remedy="make the factor a ratio: exp(old_logps - behaviour_logps)")
def agreement(part: Part) -> None:
    """Nothing to correct, nothing changed."""
    for old, _, mask in rows():
        same(factors(part, old, old.clone(), mask), torch.ones_like(old), mask, given="behaviour_logps = old_logps")


@CHECKS.must("masked NaN", remedy="start with torch.where(mask, old_logps - behaviour_logps, 0.0)")
def masked_nan(part: Part) -> None:
    """Whatever stands outside the mask changes no counted token, and factors stay finite there."""
    for old, behaviour, mask in rows():
        expected = factors(part, old, behaviour, mask)
        for junk in (torch.nan, torch.inf, -torch.inf):
            for dirty in (old, torch.where(mask, old, junk)):
                actual = factors(part, dirty, torch.where(mask, behaviour, junk), mask)
                same(actual, expected, mask, given=f"{junk} outside the mask")
                finite(actual, what="factor", given=f"{junk} outside the mask")


@CHECKS.must("micro-batches", remedy="compute a row from that row alone: a step is split into micro-batches")
def micro_batches(part: Part) -> None:
    """Rows do not see each other, so any split of the step gives the same factors."""
    for triple in rows():
        expected = factors(part, *triple)
        for i in range(len(expected)):
            single = factors(part, *(x[i : i + 1] for x in triple))
            same(single, expected[i : i + 1], triple[2][i : i + 1], given=f"row {i} by itself")


@CHECKS.must("padding", remedy="use the mask for every mean and sum, never the width of the tensor")
def padding(part: Part) -> None:
    """Columns without a counted token change nothing."""
    for triple in rows():
        expected = factors(part, *triple)
        wide = factors(part, *(torch.nn.functional.pad(x, (0, 3)) for x in triple))
        same(wide[:, : expected.shape[1]], expected, triple[2], given="with three empty columns more")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its inputs by name."""
    for triple in rows():
        yield partial(factors, part, *triple), dict(zip(("old_logps", "behaviour_logps", "mask"), triple, strict=True))


CHECKS.pure(
    calls,
    same_output="draw nothing; a factor is a function of log-probabilities",
)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters, e.g. {cap:g}; {{ for a brace")


@CHECKS.reports("bounded above")
def bounded(part: Part) -> str:
    """However far sampler and trainer are apart."""
    largest = []
    for d in (10.0, 30.0, 80.0):
        old, behaviour = torch.full((2, 4), -0.5), torch.full((2, 4), -0.5 - d)
        # a single token far off, and a whole row of them
        old[0, 1:] = behaviour[0, 1:]
        largest.append(float(factors(part, old, behaviour, torch.ones(2, 4, dtype=torch.bool)).max()))
    if not largest[0] >= largest[-1] * 0.999:
        raise Broken(f"{largest[-1]:.3g} at a log-ratio of 80")
    highest = max(float(factors(part, *triple)[triple[2]].max()) for x in (0.5, 2.0, 5.0) for triple in rows(x))
    return f"{max(highest, *largest):.4g} at most, of what was tried"


@CHECKS.reports("1 outside the mask")
def one_outside(part: Part) -> None:
    """Harmless either way."""
    for old, behaviour, mask in rows():
        same(factors(part, old, behaviour, mask), torch.ones_like(old), ~mask)


@CHECKS.reports("never 0")
def never_zero(part: Part) -> None:
    """No token is taken out of the loss."""
    for distance in (0.5, 2.0, 5.0):
        for old, behaviour, mask in rows(distance):
            result = factors(part, old, behaviour, mask)
            if result[mask].eq(0).any():
                share = result[mask].eq(0).float().mean()
                raise Broken(f"{share:.0%} of tokens are, at a mismatch of about {distance:g} nats a token")
