"""The records an analysis consists of, and their plain form for JSON."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from experiments.statistics.answers import Basis
from experiments.statistics.samples import Interval

Family: TypeAlias = Literal["baseline", "all"]
Verdict: TypeAlias = Literal["better", "worse", "equivalent", "inconclusive", "untestable"]
Questions: TypeAlias = Literal["fixed", "population"]
Label: TypeAlias = Literal["model-based", "distribution-free", "anytime", "descriptive"]


@dataclass(frozen=True)
class ArmSummary:
    """Scores of one arm over the shared seeds, in the order of `Analysis.seeds`; sd divides by n - 1."""

    arm: str
    n: int
    mean: float
    sd: float | None
    interquartile_mean: float
    minimum: float
    maximum: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Effect:
    """How large one difference is, and how surely, in the terms that hold for the design at hand; d = arm - baseline.

    `standard_error` is that of the mean difference: `sd_difference` / √n, and at least `answers_error`, the least that
    sampled answers allow (`answers.py`; None where nothing is known of them). `answers` says how they are known: "by
    question", "by number" or "unknown".

    `interval` and `simultaneous_interval`, at 1 - α and 1 - α/m for m comparisons, are t intervals with that standard
    error at a fixed number of seeds, and anytime ones in a race: whoever makes an effect says which. `d_z` and `g_z`
    measure by the spread of differences that the standard error amounts to. `win_rate` (paired) and
    `probability_of_improvement` (all pairs) count in the direction that is better. `equal_shift`: all differences are
    one non-zero number, which usually means that the seed is not applied. `None` stands for what is not defined.
    """

    n: int
    mean_difference: float
    sd_difference: float | None
    standard_error: float | None
    answers_error: float | None
    answers: Basis
    correlation: float | None
    interval: Interval | None
    simultaneous_interval: Interval | None
    d_z: float | None
    g_z: float | None
    d_av: float | None
    win_rate: float
    probability_of_improvement: float
    equal_shift: bool

    @property
    def spread(self) -> float:
        """The sd of differences that `standard_error` amounts to, e √n; 0 where nothing can be tested."""
        return (self.standard_error or 0.0) * math.sqrt(self.n) if self.sd_difference else 0.0

    @property
    def agrees_too_well(self) -> bool:
        """Whether the seeds agree more closely than the answers allow, so that these give the standard error."""
        return bool(self.sd_difference and self.answers_error and self.answers_error > self.seeds_error)

    @property
    def seeds_error(self) -> float:
        """The standard error by the spread of the seeds alone: `sd_difference` / √n."""
        return (self.sd_difference or 0.0) / math.sqrt(self.n)


@dataclass(frozen=True)
class FixedN:
    """What holds only where the number of seeds was fixed before the first run, or at a declared look.

    With the standard error e of the effect: `p_t`, `p_equivalence` (TOST, Holm) and what power says. `p_answers` is the
    t test with `answers_error` alone. `adjusted_p_t` is Holm on `p_t`; `adjusted_p_flip` is max-T over joint sign
    flips. `flip_interval` inverts the sign-flip test (8 seeds or more), and is no narrower than a t interval with
    `answers_error`. `p_flip` and `p_wilcoxon` are of seeds alone.

    `detectable` is the true difference that n seeds detect with 80 % power at α/m, with e √n for the sd of
    differences; `seeds_for_margin` and `seeds_for_margin_high` are the seeds that detect the margin so, at that sd
    and at its upper 80 % limit sd √((n-1) / χ²_{0.2, n-1}).

    `None` stands for what is not defined or was not measured: every p and interval below 3 seeds, ratios to a spread of
    zero, and all that is of seeds alone where questions are a sample too.
    """

    p_t: float | None = None
    p_flip: float | None = None
    p_wilcoxon: float | None = None
    p_answers: float | None = None
    p_equivalence: float | None = None
    adjusted_p_t: float | None = None
    adjusted_p_flip: float | None = None
    flip_interval: Interval | None = None
    detectable: float | None = None
    seeds_for_margin: int | None = None
    seeds_for_margin_high: int | None = None


@dataclass(frozen=True)
class Comparison:
    """One arm against one baseline, paired by seed: what was measured, and the verdict that follows.

    `fixed_n` is None in a race, where no p or power of a fixed number of seeds holds.

    `adjusted_p` decides, and `test` names what it comes from. At fixed n it is `adjusted_p_t` for 3 to 7 seeds; from 8
    on the larger of `adjusted_p_flip` and Holm on `p_answers`. That is chosen by n, never by the data. In a race it is
    the anytime one.

    `label` says what the verdict rests on: "model-based" needs normal differences, which cannot be checked at
    such n (equivalence is always of this kind); "distribution-free" holds whatever distribution the two arms
    share, but does not cover arms with equal means and different shapes; "anytime" holds whenever one stops, if
    differences are symmetric about 0; "descriptive" is no test.
    `smaller_than_margin`: better or worse, yet equivalent within the margin.
    """

    arm: str
    baseline: str
    effect: Effect
    fixed_n: FixedN | None
    verdict: Verdict = "untestable"
    label: Label = "descriptive"
    test: str = ""
    adjusted_p: float | None = None
    smaller_than_margin: bool = False
    sentence: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it under one level of keys, whatever the design: those of `fixed_n` are None where it is."""
        parts = (self.effect, self.fixed_n or FixedN())
        own = [field.name for field in dataclasses.fields(self) if field.name not in ("effect", "fixed_n")]
        values = {name: getattr(self, name) for name in own}
        for part in parts:
            values |= {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        plain: dict[str, Any] = to_plain(values)
        return plain


@dataclass(frozen=True)
class Analysis:
    """Every comparison of one family on one metric, what was declared before, and what to know (`notes`)."""

    metric: str
    axis: str
    """Budgets were equal in these: `steps`, `sampled_tokens`, ...; empty where nothing is known of them."""
    baseline: str
    alpha: float
    margin: float
    family: Family
    higher_is_better: bool
    seeds: tuple[int, ...]
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return dicts and lists ready for JSON: finite floats in full precision, None for undefined, p never 0."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def to_plain(value: Any) -> Any:
    """A record as dicts and lists ready for JSON: finite floats in full precision, None for undefined."""
    if isinstance(value, Comparison):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
