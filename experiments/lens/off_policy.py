"""The lens off-policy: responses of an older or a perturbed sampler, the gradient at the policy. All of it is exact.

The policy is smaller than that of the on-policy lens, so that every batch of one group can be enumerated.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch

from core import Variant
from core.parts.settings import Range
from experiments.lens.enumerate import expected_gradient
from experiments.lens.measures import Moments
from experiments.lens.policy import TabularPolicy, make_policy
from experiments.lens.samplers import at_ages, at_mismatches, divergence
from experiments.lens.step import check_variant, token_constant

DIFFICULTIES: Final = (0.2, 0.5, 0.8)
MAX_TOKENS: Final = 3
GROUP_SIZE: Final = 4
NO_GRADIENT: Final = 1e-20
"""Of |E[g]|² / |true|²: less is rounding."""
AGE: Final = Range(0, 1000)
MISMATCH: Final = Range(0, 0.5)
AGES: Final = (0, 1, 2, 4, 8, 16)
MISMATCHES: Final = (0.0, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class OffPolicy:
    """Every variant's measures, at each distance of the sampler from the policy."""

    kind: Literal["age", "mismatch"]
    at: Sequence[float]
    """Ages in updates, or mismatches in nats a token."""
    policies: Sequence[TabularPolicy]
    """The policy at each, with its sampler."""
    variants: Sequence[Variant]
    numbers: Mapping[str, Sequence[Mapping[str, float]]]
    """By name, then one for each of `at`: by the names of `measures`."""
    group_size: int
    seed: int

    @functools.cached_property
    def divergences(self) -> list[float]:
        """Nats a token from the sampler to the policy, at each of `at`."""
        return [divergence(policy.behaviour, policy) for policy in self.policies]

    @property
    def labels(self) -> list[str]:
        """Each of `at`, as it was asked for."""
        return [f"{value:g}" for value in self.at]


def measure_off_policy(
    variants: Sequence[Variant],
    *,
    kind: Literal["age", "mismatch"],
    at: Sequence[float],
    group_size: int = GROUP_SIZE,
    seed: int = 0,
    start: TabularPolicy | None = None,
    advance: Callable[[str, int, int], None] = lambda *_: None,
) -> OffPolicy:
    """Measure variants at each age or mismatch of `at`, in batches of one group.

    `start` is the sampler by age, and the policy by mismatch. `advance` is called with the variant's name, and how many
    of all expectations are done.
    """
    for variant in variants:
        check_variant(variant, group_size)
    start = start or make_policy(DIFFICULTIES, max_tokens=MAX_TOKENS)
    policies = at_ages(start, [int(age) for age in at]) if kind == "age" else at_mismatches(start, at, seed)
    numbers: dict[str, list[Mapping[str, float]]] = {}
    with one_thread():
        for variant in variants:
            constant = token_constant(variant.aggregator, start.responses.max_tokens)
            numbers[variant.name] = []
            for policy in policies:
                advance(variant.name, sum(map(len, numbers.values())), len(variants) * len(policies))
                _, moments = expected_gradient(policy, variant, groups=1, group_size=group_size)
                numbers[variant.name].append(exact_numbers(moments, constant))
    return OffPolicy(kind, at, policies, variants, numbers, group_size, seed)


def exact_numbers(moments: Moments, constant: float | None) -> dict[str, float]:
    """The measures; NaN where there is no expected gradient that one could be relative to."""
    numbers = {name: float(value) for name, value in moments.numbers(constant).items()}
    if moments.square < NO_GRADIENT:
        numbers |= dict.fromkeys(("cosine", "direction_bias_squared", "variance", "mse"), math.nan)
    return numbers


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors are small: several threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
