"""What holds of filters, which choose the groups to train on."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Batch, Part
from core.parts.contracts import check_shape
from experiments.check import examples as ex
from experiments.check.checks import Broken, Call, Checks, finite, same

CHECKS = Checks("filter")


def batches() -> Iterator[Batch]:
    """Examples as a filter sees them: before anything is filled for an estimator."""
    for batch in ex.examples(min_samples=2):
        yield ex.without(batch, ex.optional_fields())


def keep(part: Part, batch: Batch) -> Tensor:
    """The verdict on each group, [P]."""
    verdict: Tensor = part(batch)
    check_shape(part, verdict, (batch.groups,))
    return verdict


@CHECKS.must(
    "shape", remedy="return one bool a group, [P], from what every batch has: rewards, correct, truncated, ..."
)
def shape(part: Part) -> None:
    """[P] bool, on a batch as it is before anything else is filled."""
    for batch in batches():
        verdict = keep(part, batch)
        if verdict.dtype is not torch.bool:
            raise Broken(f"dtype {verdict.dtype}")


@CHECKS.must("permutation", remedy="let nothing depend on the order of samples or prompts")
def permutation(part: Part) -> None:
    """Groups and samples in another order have the same verdicts, in that order."""
    for seed, batch in enumerate(batches()):
        groups, samples = ex.orders(batch, seed)
        other = ex.shuffled_samples(batch, samples).select(groups)
        same(keep(part, other), keep(part, batch)[groups], given="reordered " + ex.rewards_of(other))


@CHECKS.must(
    "masked NaN", remedy="use torch.where(batch.response_mask, x, 0.0) before sums, not a product with the mask"
)
def masked_nan(part: Part) -> None:
    """Whatever stands outside the responses changes no verdict."""
    for batch in batches():
        for junk in (torch.nan, torch.inf):
            actual = keep(part, ex.with_junk(batch, junk))
            same(actual, keep(part, batch), given=f"{junk} outside the responses")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and the fields of its batch."""
    for batch in batches():
        yield partial(keep, part, batch), batch.tensors()


CHECKS.pure(calls, same_output="draw nothing; a verdict is a function of the batch")
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("a verdict depends on its own group alone")
def groups_apart(part: Part) -> None:
    """So it does not matter what else was sampled in the round."""
    bare = ex.optional_fields()
    batch, other = (ex.without(ex.make_batch(4, 5, seed=s, binary=True), bare) for s in (31, 32))
    for p in range(4):
        verdicts = keep(part, ex.with_other_groups(batch, other, kept=p))
        same(verdicts[p], keep(part, batch)[p], given=f"group {p} beside other groups")


@CHECKS.reports("a group without spread")
def no_spread(part: Part) -> str:
    """What becomes of groups that are all right, all wrong, or all alike in a reward that is neither."""
    findings = []
    for name, level in (("all right", 1.0), ("all wrong", 0.0), ("all 0.7", 0.7)):
        batch = ex.with_equal_rewards(ex.make_batch(3, 7, seed=33), [level])
        verdict = keep(part, ex.without(batch, ex.optional_fields()))[0]
        findings.append(f"{name}: {'kept' if verdict else 'dropped'}")
    return ", ".join(findings)


@CHECKS.reports("keeps a group that is half right")
def keeps_mixed(part: Part) -> None:
    """Where there is most to learn."""
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    batch = ex.make_batch(1, 4, seed=34).having(rewards=rewards, correct=rewards > 0)
    batch = batch.having(reward_parts=torch.stack([rewards, torch.zeros_like(rewards)], -1))
    verdict = keep(part, ex.without(batch, ex.optional_fields()))
    finite(verdict.float())
    if not verdict[0]:
        raise Broken("rewards 1 0 1 0: dropped")
