"""Staleness: how many updates before those that learn from them responses are sampled, by plan.

One unit, here and everywhere: updates between the one that uses a token and the weights that drew it. Weights sample
between rollouts, so a group is a whole number of rollouts old at the first update that uses it: a multiple of
`train.epochs * train.minibatches`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from core.errors import GrpoLabError
from core.loop.source import Source
from core.parts.contracts import setting
from core.parts.settings import Range
from core.parts.variant import Variant
from core.randomness import key, stream

AGES = stream("ages")


@dataclass(frozen=True)
class UniformAge:
    """Ages that are drawn for every group by itself."""

    most: int


Staleness: TypeAlias = int | UniformAge


@setting(limits={"most": Range(1)})
def uniform_age(*, most: int = 8) -> UniformAge:
    """For `train.staleness`: every group's age is drawn, each whole number of rollouts up to `most` updates as likely.

    The draw is keyed by (seed, step, slot): arms with the same distribution have the same ages, and where `most`
    differs no group is younger in the arm with more.
    """
    return UniformAge(most)


def most_updates(staleness: Staleness) -> int:
    """The oldest that a group may be at the first update that uses it, in updates."""
    return staleness if isinstance(staleness, int) else staleness.most


def planned_ages(staleness: Staleness, updates: int, seed: int, step: int, slots: int) -> Sequence[int]:
    """How many steps before `step` each of its groups is sampled, by slot, where a step takes so many updates.

    Never before the first step: until then groups are those of the first weights, and younger than planned.
    """
    most = most_updates(staleness) // updates
    drawn = [most] * slots
    if not isinstance(staleness, int):
        drawn = [key(seed, AGES, step, slot) * (most + 1) >> 63 for slot in range(slots)]
    return [min(age, step - 1) for age in drawn]


def check_staleness(
    staleness: Staleness, variant: Variant, source: Source | None, *, epochs: int, minibatches: int
) -> None:
    """Raise for an age that is no whole number of rollouts, and where something needs responses of no age."""
    updates, most = epochs * minibatches, most_updates(staleness)
    if most % updates:
        name = "train.staleness" if isinstance(staleness, int) else "uniform_age.most"
        below = most - most % updates
        raise GrpoLabError(
            f"{name} = {most}: it counts updates, of which a rollout takes {updates} (train.epochs = {epochs} times "
            f"train.minibatches = {minibatches}), and weights sample between rollouts: give a multiple of {updates}, "
            f"the nearest are {below} and {below + updates}"
        )
    if most and source is not None:
        raise GrpoLabError(
            "train.staleness with train.source: the source's responses are nobody's of this run, so they have no age; "
            "remove one of the two"
        )
    if most and "greedy_rewards" in variant.needs:
        raise GrpoLabError(
            f"train.staleness: variant '{variant.name}' subtracts the reward of a greedy response (greedy_rewards), "
            "which must be that of the weights that sampled, and by the update these are gone: leave train.staleness "
            f"at 0, or bind another baseline, {variant.name}.advantage = @leave_one_out"
        )
