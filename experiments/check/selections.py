"""What holds of selections, which choose the responses of each group to learn from."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from core import Batch, Part
from core.errors import GrpoLabError
from core.loop.loss import chosen_responses
from core.parts.contracts import check_shape
from experiments.check import examples as ex
from experiments.check.checks import Broken, Call, Checks, Inapplicable, same

CHECKS = Checks("selection")


def batches(part: Part) -> Iterator[Batch]:
    """Examples as a selection sees them, with groups of as many as it chooses or more."""
    least = part.settings()["k"].value if "k" in part.defaults else 2
    for batch in (*ex.examples(min_samples=2), ex.make_batch(3, least + 3, seed=51)):
        if batch.group_size >= least:
            yield ex.without(batch, ex.optional_fields())


def keep(part: Part, batch: Batch) -> Tensor:
    """The verdict on each response, [P, G]."""
    verdict: Tensor = part(batch)
    check_shape(part, verdict, batch.rewards.shape)
    return verdict


@CHECKS.must("as many of every group", remedy="return bool [P, G] with equally many True, at least one, in each row")
def as_many(part: Part) -> str:
    """[P, G] bool, and the groups stay alike in size."""
    sizes = set()
    for batch in batches(part):
        if not str(keep(part, batch).dtype) == "torch.bool":
            raise Broken(f"dtype {keep(part, batch).dtype}")
        try:
            sizes.add(chosen_responses(part, batch).shape[1])
        except GrpoLabError as error:
            raise Broken(f"{error}; {ex.rewards_of(batch)}") from error
    return f"{', '.join(map(str, sorted(sizes)))} of a group"


@CHECKS.must("groups in another order", remedy="choose within each group by that group alone")
def groups_in_order(part: Part) -> None:
    """Groups in another order have the same responses chosen, in that order."""
    for seed, batch in enumerate(batches(part)):
        groups, _ = ex.orders(batch, seed)
        same(keep(part, batch.select(groups)), keep(part, batch)[groups], given="reordered " + ex.rewards_of(batch))


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and the fields of its batch."""
    for batch in batches(part):
        yield partial(keep, part, batch), batch.tensors()


CHECKS.pure(calls, same_output="draw nothing; a choice is a function of the batch")
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("leaves spread where there was some")
def leaves_spread(part: Part) -> None:
    """Rewards that differ in a group still differ among those chosen."""
    seen = False
    for batch in batches(part):
        spread = ~batch.no_spread
        left = batch.choose(chosen_responses(part, batch))
        seen |= bool(spread.any()) and left.group_size > 1
        if left.group_size > 1 and (spread & left.no_spread).any():
            raise Broken(ex.rewards_of(batch))
    if not seen:
        raise Inapplicable("it leaves one response of a group")
