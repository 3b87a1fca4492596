"""What holds of corrections of the mismatch between sampler and trainer."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from core import Part
from core.loop.correct import factors_and_kept
from core.parts.options import CorrectionOptions
from experiments.check.checks import Broken, Call, Checks, Inapplicable, finite, numbers, same

CHECKS = Checks("correction")
Rows: TypeAlias = Mapping[str, Tensor]


def examples(distance: float = 0.5) -> Iterator[Rows]:
    """Rows [B, T] with log-probabilities of trainer and sampler about `distance` apart, holes and an empty row."""
    for B, T, seed in ((1, 1, 0), (4, 6, 1), (3, 2, 2)):
        draw = torch.Generator().manual_seed(seed)
        old = -0.05 - 3 * torch.rand(B, T, generator=draw)
        mask = torch.rand(B, T, generator=draw) < 0.7
        mask[0, 0] = True
        if B > 1:
            mask[-1] = False
        yield rows_of(old, old + distance * torch.randn(B, T, generator=draw), mask)


def rows_of(old: Tensor, behaviour: Tensor, mask: Tensor) -> Rows:
    """All that a correction may ask for, of rows with these log-probabilities."""
    draw = torch.Generator().manual_seed(7)
    noise = partial(torch.randn, old.shape, generator=draw)
    of_row = torch.randn(len(old), generator=draw)
    return {
        "old_logps": old,
        "behaviour_logps": behaviour,
        "mask": mask,
        "advantages": of_row[:, None].expand(old.shape).clone(),
        "rewards": of_row.sign().clamp(min=0),
        "token_age": torch.randint(0, 9, old.shape, generator=draw),
        "lengths": mask.sum(-1),
        "truncated": of_row > 1,
        "behaviour_entropy": noise().abs(),
        "ref_logps": old - 0.1,
        "values": noise(),
        "sum_squared_probs": old.exp().square(),
    }


def corrected(part: Part, rows: Rows) -> tuple[Tensor, Tensor]:
    """Factors [B, T], and the tokens that stay, [B, T] bool."""
    missing = [name for name in part.parameters if name not in rows]
    if missing:
        raise Inapplicable(f"it asks for {missing[0]}, which a provider of yours fills")
    return factors_and_kept(part, rows)


def product(part: Part, rows: Rows) -> Tensor:
    """Factors, 0 where a token is taken out: all that a correction does, in one tensor."""
    factors, keep = corrected(part, rows)
    return torch.where(keep | ~rows["mask"], factors, 0.0)


def having(rows: Rows, **tensors: Tensor) -> Rows:
    """The same rows with other tensors."""
    return {**rows, **tensors}


@CHECKS.must("shape and numbers", remedy="return a factor for each token, [B, T], finite and not negative")
def shape_and_numbers(part: Part) -> None:
    """[B, T], finite, not negative; what it keeps is bool."""
    for distance in (0.1, 0.5, 5.0):
        for rows in examples(distance):
            factors, _ = corrected(part, rows)
            finite(factors, what="factor")
            if factors.lt(0).any():
                raise Broken(f"factors {numbers(factors[rows['mask']])}")


@CHECKS.must("1 where sampler and trainer agree", remedy="make the factor a ratio: exp(old_logps - behaviour_logps)")
def agreement(part: Part) -> None:
    """Nothing to correct, nothing changed."""
    for rows in examples():
        alike = having(rows, behaviour_logps=rows["old_logps"].clone(), token_age=torch.zeros_like(rows["token_age"]))
        ones = torch.ones_like(rows["old_logps"])
        same(product(part, alike), ones, rows["mask"], given="behaviour_logps = old_logps")


@CHECKS.must("factors of 1 with weights=False", remedy="return torch.ones_like(old_logps), or leave weights=False out")
def only_takes_out(part: Part) -> None:
    """What only takes tokens out weighs none, so that it goes with ratios against the sampler."""
    if CorrectionOptions.of(part).weights:
        raise Inapplicable("it weighs tokens")
    for rows in examples():
        factors, _ = corrected(part, rows)
        same(factors, torch.ones_like(factors), rows["mask"])


@CHECKS.must("masked NaN", remedy="start with torch.where(mask, old_logps - behaviour_logps, 0.0)")
def masked_nan(part: Part) -> None:
    """Whatever stands outside the mask changes no counted token, and factors stay finite there."""
    for rows in examples():
        expected, mask = product(part, rows), rows["mask"]
        for junk in (torch.nan, torch.inf, -torch.inf):
            behaviour = torch.where(mask, rows["behaviour_logps"], junk)
            for old in (rows["old_logps"], torch.where(mask, rows["old_logps"], junk)):
                dirty = having(rows, old_logps=old, behaviour_logps=behaviour)
                same(product(part, dirty), expected, mask, given=f"{junk} outside the mask")
                finite(corrected(part, dirty)[0], what="factor", given=f"{junk} outside the mask")


@CHECKS.must("micro-batches", remedy='compute a row from that row alone, or declare scope="step"')
def micro_batches(part: Part) -> None:
    """Rows do not see each other."""
    if CorrectionOptions.of(part).scope == "step":
        raise Inapplicable("it declares that it reads the whole step")
    for rows in examples():
        expected = product(part, rows)
        for i in range(len(expected)):
            single = product(part, {name: x[i : i + 1] for name, x in rows.items()})
            same(single, expected[i : i + 1], rows["mask"][i : i + 1], given=f"row {i} by itself")


@CHECKS.must("padding", remedy="use the mask for every mean and sum, never the width of the tensor")
def padding(part: Part) -> None:
    """Columns without a counted token change nothing."""
    for rows in examples():
        expected = product(part, rows)
        wide = {n: torch.nn.functional.pad(x, (0, 3)) if x.ndim == 2 else x for n, x in rows.items()}
        same(product(part, wide)[:, : expected.shape[1]], expected, rows["mask"], given="with three empty columns more")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its inputs by name."""
    for rows in examples():
        yield partial(product, part, rows), rows


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
        largest.append(float(product(part, rows_of(old, behaviour, torch.ones(2, 4, dtype=torch.bool))).max()))
    if not largest[0] >= largest[-1] * 0.999:
        raise Broken(f"{largest[-1]:.3g} at a log-ratio of 80")
    highest = max(float(product(part, rows)[rows["mask"]].max()) for x in (0.5, 2.0, 5.0) for rows in examples(x))
    return f"{max(highest, *largest):.4g} at most, of what was tried"


@CHECKS.reports("1 outside the mask")
def one_outside(part: Part) -> None:
    """Harmless either way."""
    for rows in examples():
        same(corrected(part, rows)[0], torch.ones_like(rows["old_logps"]), ~rows["mask"])


@CHECKS.reports("never 0")
def never_zero(part: Part) -> None:
    """No token is taken out of the loss."""
    for distance in (0.5, 2.0, 5.0):
        for rows in examples(distance):
            result = product(part, rows)[rows["mask"]]
            if result.eq(0).any():
                share = result.eq(0).float().mean()
                raise Broken(f"{share:.0%} of tokens are, at a mismatch of about {distance:g} nats a token")
