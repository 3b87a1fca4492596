"""What a study predicts before its first run, and the outcome: supported, not supported, or underpowered."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from experiments.statistics.analysis import analyze
from experiments.statistics.answers import Answers
from experiments.statistics.multiplicity import holm
from experiments.statistics.numbers import rounded
from experiments.statistics.records import Comparison
from experiments.statistics.rule import FLIP_SEEDS, T_SEEDS

Outcome: TypeAlias = Literal["supported", "not supported", "underpowered"]
Relation: TypeAlias = Literal[">", "<", "="]

_FORM: Final = re.compile(r"\s*(\S+)\s+([<>=])\s+(\S+)\s+on\s+(\S+)\s+by\s+(\S+)\s*")
_WORDS: Final[Mapping[Relation, str]] = {">": "higher than", "<": "lower than", "=": "equivalent to"}


@dataclass(frozen=True)
class Prediction:
    """`arm` is higher (>) or lower (<) than `baseline`, or within ±margin of it (=), on a metric.

    `margin` is the smallest difference of interest, in the metric's unit: if shown to be smaller, no `>` or `<`.
    """

    arm: str
    relation: Relation
    baseline: str
    metric: str
    margin: float

    @classmethod
    def parse(cls, text: str) -> "Prediction":
        """Read `dr_grpo < grpo on test/length_incorrect by 0.5`; ValueError for anything else."""
        match = _FORM.fullmatch(text)
        example = "write it like 'dr_grpo < grpo on test/length_incorrect by 0.5', with <, > or ="
        if match is None:
            raise ValueError(f"prediction {text!r} cannot be read: {example}")
        arm, relation, baseline, metric, margin = match.groups()
        try:
            size = float(margin)
        except ValueError:
            size = math.nan
        if not 0 < size < math.inf or arm == baseline:
            raise ValueError(f"prediction {text!r}: two different arms, and a margin above 0; {example}")
        return cls(arm, relation, baseline, metric, size)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.arm} {_WORDS[self.relation]} {self.baseline} on {self.metric}, margin {self.margin:g}"


@dataclass(frozen=True)
class Assessment:
    """One prediction and its outcome; p-values are Holm's over all predictions of the claim."""

    prediction: Prediction
    comparison: Comparison
    p_difference: float
    p_equivalence: float
    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim is supported when all its predictions are, and not supported when one of them is not."""

    outcome: Outcome
    assessments: tuple[Assessment, ...]


def assess(
    predictions: Sequence[Prediction],
    scores_of: Callable[[str], Mapping[str, Mapping[int, float]]],
    alpha: float = 0.05,
    answers_of: Callable[[str], Answers | None] | None = None,
) -> ClaimVerdict | None:
    """Judge every prediction by differences paired by seed; None below 3 seeds in any of them.

    `scores_of(metric)` gives {arm: {seed: score}}, `answers_of(metric)` what they are means of, as in `analyze`. A
    prediction of a difference is supported by a significant one of the right sign, and not supported by one of the
    wrong sign or by equivalence within its margin. A prediction of
    equivalence is supported by TOST, and not supported by a significant difference that is observed beyond the
    margin. Anything else is underpowered. Tests are those of `analyze` (n decides), each Holm-adjusted over the
    predictions at `alpha`.

    ValueError: no prediction, or an arm or metric that there is no score of.
    """
    if not predictions:
        raise ValueError("assess: a claim needs a prediction")
    comparisons, fixed = [], []
    for prediction in predictions:
        scores = scores_of(prediction.metric)
        for arm in (prediction.arm, prediction.baseline):
            if arm not in scores:
                raise ValueError(f"prediction '{prediction}': no arm {arm!r} there; arms are {', '.join(scores)}")
        pair = {arm: scores[arm] for arm in (prediction.baseline, prediction.arm)}
        if len(set.intersection(*map(set, pair.values()))) < T_SEEDS:
            return None
        analysis = analyze(
            pair,
            baseline=prediction.baseline,
            metric=prediction.metric,
            alpha=alpha,
            margin=prediction.margin,
            answers=answers_of(prediction.metric) if answers_of else None,
        )
        (comparison,) = analysis.comparisons
        assert comparison.fixed_n is not None  # as in every study that is no race
        comparisons.append(comparison)
        fixed.append(comparison.fixed_n)
    raw = [
        (f.p_t if c.effect.n < FLIP_SEEDS else max(f.p_flip or 1.0, f.p_answers or 0.0)) or 1.0
        for c, f in zip(comparisons, fixed, strict=True)
    ]
    differ = holm(raw).tolist()
    alike = holm([f.p_equivalence or 1.0 for f in fixed]).tolist()
    assessments = tuple(_assess(*each, alpha) for each in zip(predictions, comparisons, differ, alike, strict=True))
    outcomes = {each.outcome for each in assessments}
    outcome: Outcome = (
        "not supported"
        if "not supported" in outcomes
        else "underpowered"
        if "underpowered" in outcomes
        else "supported"
    )
    return ClaimVerdict(outcome, assessments)


def _assess(
    prediction: Prediction, c: Comparison, p_difference: float, p_equivalence: float, alpha: float
) -> Assessment:
    d, different, equivalent = c.effect.mean_difference, p_difference <= alpha, p_equivalence <= alpha
    outcome: Outcome = "underpowered"
    if prediction.relation == "=":
        if equivalent:
            outcome = "supported"
        elif different and abs(d) > prediction.margin:
            outcome = "not supported"
    else:
        as_predicted = (d > 0) == (prediction.relation == ">")
        if different and as_predicted and not equivalent:
            outcome = "supported"
        elif (different and not as_predicted) or equivalent:
            outcome = "not supported"
    limits = (0.0, -prediction.margin, prediction.margin)
    ends = [rounded(end, 3, limits, sign="+") for end in c.effect.interval or ()]
    interval = f", interval [{', '.join(ends)}]" if ends else ""
    seeds = c.fixed_n.seeds_for_margin if c.fixed_n else None
    missed = outcome == "underpowered" and prediction.relation != "="
    needed = f"; {seeds} seeds would detect the margin" if seeds and missed else ""
    sentence = (
        f"{prediction}: {outcome} (difference {rounded(d, 3, limits, sign='+')}{interval}, {c.effect.n} seeds; "
        f"Holm-adjusted p = {rounded(p_difference, 4, [alpha])} for a difference, "
        f"{rounded(p_equivalence, 4, [alpha])} for equivalence{needed})."
    )
    return Assessment(prediction, c, p_difference, p_equivalence, outcome, sentence)
