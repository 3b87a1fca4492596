"""The exact form of the lens: variants on the enumerable policy, by group size, prompt difficulty and length."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from core import Variant
from core.errors import GrpoLabError
from experiments.lens.policy import TabularPolicy, make_policy
from experiments.lens.sampled import Measurement, measure
from experiments.lens.step import check_variant


@dataclass(frozen=True)
class Exact:
    """Every variant's measurements, with the policy and settings of the measurement."""

    policy: TabularPolicy
    variants: Sequence[Variant]
    measured: Mapping[str, Mapping[int, Measurement]]
    """By name, then by group size."""
    group_size: int
    """The one that the cards are for."""
    batches: int
    seed: int
    notes: Sequence[str]

    def main(self, name: str) -> Measurement:
        """A variant's measurement at the group size that the cards are for."""
        return self.measured[name][self.group_size]

    @property
    def sizes(self) -> list[int]:
        """Every group size that some variant was measured at."""
        return sorted({size for by_size in self.measured.values() for size in by_size})


def measure_all(
    variants: Sequence[Variant],
    *,
    group_size: int,
    group_sizes: Sequence[int],
    rollouts: int,
    batches: int,
    seed: int,
    policy: TabularPolicy | None = None,
    advance: Callable[[str, int, int], None] = lambda *_: None,
) -> Exact:
    """Measure variants at `group_size` and at each of `group_sizes` that they are defined for.

    `advance` is called with the variant's name, batches done and batches in all.
    """
    policy = policy or make_policy()
    for variant in variants:
        check_variant(variant, group_size)
    sizes = sorted({group_size, *group_sizes})
    total, batches_done = len(variants) * len(sizes) * batches, 0
    measured: dict[str, dict[int, Measurement]] = {}
    notes = []
    for variant in variants:
        measured[variant.name] = {}
        for size in sizes:
            try:
                measured[variant.name][size] = measure(
                    policy,
                    variant,
                    group_size=size,
                    rollouts=rollouts,
                    batches=batches,
                    seed=seed,
                    advance=partial(_advance, advance, variant.name, batches_done, total),
                )
            except GrpoLabError as error:
                if size == group_size:
                    raise
                notes.append(f"{variant.name} is not measured at groups of {size}: {error}")
            batches_done += batches
            advance(variant.name, batches_done, total)
    return Exact(policy, variants, measured, group_size, batches, seed, notes)


def _advance(advance: Callable[[str, int, int], None], name: str, before: int, total: int, batches: int) -> None:
    advance(name, before + batches, total)
