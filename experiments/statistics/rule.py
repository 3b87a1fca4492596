"""What decides, fixed before the differences are looked at: the test that n seeds take, levels, margin and power."""

import math
from dataclasses import dataclass

from scipy import special

from experiments.statistics.power import seeds_needed
from experiments.statistics.sign_flips import EXACT_SEEDS

T_SEEDS = 3  # from here on the paired t test decides
FLIP_SEEDS = 8  # from here on sign flips do: below, they lose real power
ANSWERS_TEST = "t with what the answers allow, Holm"
POWER = 0.8
MAX_REMOVED = 0.2


@dataclass(frozen=True)
class Rule:
    """What is fixed before the differences are looked at: n seeds, m comparisons, and what was declared."""

    metric: str
    axis: str
    alpha: float
    margin: float
    higher_is_better: bool
    n: int
    m: int
    largest: float = math.inf
    """The largest difference that the metric can have."""
    crossed: bool = False
    """Whether questions are a sample as well: the t test over seeds and questions then decides at any n."""

    @property
    def measured(self) -> str:
        """The metric, and at equal what the arms are compared."""
        return f"{self.metric} at equal {self.axis.replace('_', ' ')}" if self.axis else self.metric

    @property
    def flips(self) -> bool:
        """Whether sign flips decide, which n alone says."""
        return self.n >= FLIP_SEEDS and not self.crossed

    @property
    def test(self) -> str:
        """What the adjusted p comes from."""
        if self.crossed:
            return "t over seeds and questions, Holm"
        if not self.flips:
            return "paired t, Holm"
        return "max-T over all joint sign flips" if self.n <= EXACT_SEEDS else "max-T over random joint sign flips"

    @property
    def family_alpha(self) -> float:
        """Level of a single comparison by Bonferroni, at which power is planned."""
        return self.alpha / self.m

    def seeds_for(self, sd: float) -> int:
        """Seeds that detect the margin with 80 % power at this sd of differences; a test takes 3 at least."""
        return max(T_SEEDS, seeds_needed(self.margin / sd, self.family_alpha, POWER))

    def upper_sd(self, sd: float) -> float:
        """Upper 80 % confidence limit of an sd estimated from n differences."""
        return sd * math.sqrt((self.n - 1) / float(special.chdtri(self.n - 1, 0.8)))
