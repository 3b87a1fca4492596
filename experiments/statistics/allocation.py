"""How seeds and samples share the work: what an interval takes of each, and what is cheapest.

A difference is a mean over S seeds of runs whose scores rest on K samples of every question. Its variance, and what
it costs, are those of two-stage sampling:

    Var(mean d) = fixed + (between + within / K) / S          cost = S (run + K sample)

Samples are cheap and seeds dear, but samples take away `within` alone: more of them pay until that is small beside
`between`. Cochran 1977, "Sampling Techniques", sections 10.3 and 10.6.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from scipy import special

from experiments.statistics.rule import T_SEEDS
from experiments.statistics.samples import check_level
from experiments.statistics.two_level import VarianceComponents

MAX_SEEDS: Final = 1000
"""More seeds than these are not looked for."""


@dataclass(frozen=True)
class NoiseModel:
    """What a difference of two arms varies by, at one seed, in the squared unit of the score."""

    between: float
    """Var of a seed's difference that no sample takes away: σ²_seed + σ²_seed×question / Q."""
    within: float
    """Var by the sampled answers, of one sample of every question: σ²_sampling / Q."""
    fixed: float = 0.0
    """Var of the mean difference that neither seeds nor samples take away: σ²_question / Q of a claim on others."""

    @classmethod
    def of(cls, components: VarianceComponents, seeds: int, samples: float) -> "NoiseModel":
        """Of a study whose mean difference, over so many seeds and samples a question, has these components."""
        between = seeds * (components.seed + components.seed_question)
        return cls(between, seeds * samples * components.sampling, components.question)

    @classmethod
    def mean(cls, models: "list[NoiseModel]") -> "NoiseModel":
        """Of several comparisons: the mean of each variance."""
        n = len(models)
        return cls(*(sum(getattr(each, name) for each in models) / n for name in ("between", "within", "fixed")))

    def sd(self, samples: float) -> float:
        """Standard deviation of the difference at one seed, with so many samples a question."""
        return math.sqrt(self.between + self.within / samples)

    def half_width(self, seeds: int, samples: float, level: float = 0.95) -> float:
        """Half the t interval of the mean difference, as it is expected: t_{S-1} √Var(mean d)."""
        return _t(seeds, level) * math.sqrt(self.fixed + self.sd(samples) ** 2 / seeds)

    def samples_for(self, half_width: float, seeds: int, level: float = 0.95) -> float:
        """Samples a question with which so many seeds have this half-width; infinite where no number gives it.

        K = within / (S ((w / t_{S-1})² - fixed) - between)
        """
        room = seeds * ((half_width / _t(seeds, level)) ** 2 - self.fixed) - self.between
        if room <= 0:
            return math.inf
        return self.within / room

    def seeds_for(self, half_width: float, samples: float, level: float = 0.95) -> int | None:
        """The fewest seeds, at so many samples a question, with this half-width; None beyond 1,000."""
        tried = range(T_SEEDS, MAX_SEEDS + 1)
        return next((seeds for seeds in tried if self.half_width(seeds, samples, level) <= half_width), None)


@dataclass(frozen=True)
class Cost:
    """What a seed of all arms costs, in seconds or in any other unit."""

    run: float
    """Its runs, but for the samples that their scores rest on."""
    sample: float
    """One sample of every question, in all of them."""

    def __post_init__(self) -> None:
        """Refuse what no run can cost."""
        check_level("Cost: run", self.run, high=math.inf)
        check_level("Cost: sample", self.sample, high=math.inf)

    def total(self, seeds: int, samples: float) -> float:
        """Of so many seeds and samples a question."""
        return seeds * (self.run + samples * self.sample)


@dataclass(frozen=True)
class Allocation:
    """So many seeds, and samples a question."""

    seeds: int
    samples: int


def optimal_samples(noise: NoiseModel, cost: Cost) -> float:
    """Samples a question that give the smallest interval for what is spent, however much that is.

        K = √(within / between · run / sample),   at most run / sample

    It minimises (between + within / K) (run + K sample), which the number of seeds does not enter. The bound, where
    samples cost as much as the runs, is for runs that were found to differ by little or nothing, which few seeds cannot
    show: there the product is at most twice what it could be.
    """
    dear = cost.run / cost.sample
    if noise.within >= noise.between * dear:
        return dear
    return math.sqrt(noise.within / noise.between * dear)


def cheapest(
    noise: NoiseModel,
    cost: Cost,
    half_width: float,
    level: float = 0.95,
    *,
    seeds: int = T_SEEDS,
    samples: int = 1,
    multiple: int = 1,
) -> Allocation | None:
    """The cheapest seeds and samples with this half-width; None where 1,000 seeds are not enough.

    At least so many `seeds` and `samples`, as of a study that grows, and samples a `multiple`, as where they are spread
    over evaluations. Every number of seeds that may pay is tried, with the fewest samples that do (`samples_for`).
    """
    best: Allocation | None = None
    for S in range(max(T_SEEDS, seeds), MAX_SEEDS + 1):
        if best is not None and cost.total(S, samples) >= cost.total(best.seeds, best.samples):
            break
        least = noise.samples_for(half_width, S, level)
        if math.isinf(least):
            continue
        K = multiple * max(math.ceil(samples / multiple), math.ceil(least / multiple * (1 - 1e-12)))
        if best is None or cost.total(S, K) < cost.total(best.seeds, best.samples):
            best = Allocation(S, K)
    return best


@dataclass(frozen=True)
class Halving:
    """What would halve the interval of a study as it is."""

    noise: NoiseModel
    cost: Cost
    now: Allocation
    level: float
    multiple: int
    """Of samples: how many evaluations they are spread over."""

    @property
    def half_width(self) -> float:
        """Half of the half-width that is expected now."""
        return self.noise.half_width(self.now.seeds, self.now.samples, self.level) / 2

    @cached_property
    def cheapest(self) -> Allocation | None:
        """By samples and seeds."""
        return cheapest(
            self.noise,
            self.cost,
            self.half_width,
            self.level,
            seeds=self.now.seeds,
            samples=self.now.samples,
            multiple=self.multiple,
        )

    @cached_property
    def seeds_alone(self) -> Allocation | None:
        """By seeds, with the samples as they are."""
        seeds = self.noise.seeds_for(self.half_width, self.now.samples, self.level)
        return None if seeds is None else Allocation(seeds, self.now.samples)

    def more(self, allocation: Allocation) -> float:
        """What it would cost beyond what the study did, as a share of that."""
        spent = self.cost.total(self.now.seeds, self.now.samples)
        return self.cost.total(allocation.seeds, allocation.samples) / spent - 1


def _t(seeds: int, level: float) -> float:
    return float(special.stdtrit(seeds - 1, (1 + level) / 2))
