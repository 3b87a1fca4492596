"""What holds of steps of the credit chain, which transform advantages."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Batch, Part
from core.parts.contracts import check_shape
from core.parts.options import CreditOptions
from experiments.check import examples as ex
from experiments.check.checks import Call, Checks, finite, same

CHECKS = Checks("credit")


def examples(part: Part) -> Iterator[tuple[Batch, Tensor]]:
    """Batches with what the part needs and nothing else filled, and advantages [P, G, T] by token."""
    bare = [name for name in ex.optional_fields() if name not in CreditOptions.of(part).needs]
    for seed, batch in enumerate(ex.examples(min_samples=2)):
        draw = torch.Generator().manual_seed(seed)
        yield ex.without(batch, bare), torch.randn(batch.mask.shape, generator=draw)


def credited(part: Part, batch: Batch, advantages: Tensor) -> Tensor:
    """Advantages [P, G, T] as the part leaves them."""
    result: Tensor = part(batch, advantages)
    check_shape(part, result, advantages.shape)
    return result


@CHECKS.must("shape and numbers", remedy="return advantages [P, G, T], finite at every token that counts")
def shape_and_numbers(part: Part) -> None:
    """[P, G, T], finite."""
    for batch, advantages in examples(part):
        finite(credited(part, batch, advantages), batch.mask, what="advantage", given=ex.rewards_of(batch))


@CHECKS.must("permutation", remedy="let nothing depend on the order of samples or prompts")
def permutation(part: Part) -> None:
    """Groups and samples in another order have the same advantages, in that order."""
    for seed, (batch, advantages) in enumerate(examples(part)):
        groups, samples = ex.orders(batch, seed)
        other = ex.shuffled_samples(batch, samples).select(groups)
        before, after = (
            x.gather(1, samples[..., None].expand(x.shape))[groups]
            for x in (advantages, credited(part, batch, advantages))
        )
        same(credited(part, other, before), after, other.mask, given="reordered " + ex.rewards_of(other))


@CHECKS.must("masked NaN", remedy="use torch.where(batch.mask, x, 0.0) before sums, not a product with the mask")
def masked_nan(part: Part) -> None:
    """Whatever stands at tokens that do not count changes no advantage of others."""
    for batch, advantages in examples(part):
        expected = credited(part, batch, advantages)
        dirty = torch.where(batch.mask, advantages, torch.nan)
        same(credited(part, ex.with_junk(batch, torch.nan), dirty), expected, batch.mask, given="NaN outside the mask")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and what it reads."""
    for batch, advantages in examples(part):
        yield partial(credited, part, batch, advantages), {**batch.tensors(), "advantages": advantages}


CHECKS.pure(calls, same_output="draw nothing; credit is a function of the batch and the advantages")
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("keeps the sign")
def keeps_sign(part: Part) -> None:
    """What was encouraged is not discouraged: advantages of 0 aside."""
    for batch, advantages in examples(part):
        after = credited(part, batch, advantages)
        same((after.sign() * advantages.sign()).clamp(max=0), torch.zeros_like(after), batch.mask)
