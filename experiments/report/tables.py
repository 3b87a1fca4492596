"""The verdict table: the rows that terminal and page share, and how numbers, units and verdicts are written."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from core.store.integrity import REEVALUATED
from experiments.results.scored import steps_text
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Analysis, Comparison, Judgement
from experiments.statistics.numbers import rounded
from experiments.statistics.outcomes import collapse_warnings, outcomes
from experiments.statistics.scalars import last_evaluations
from experiments.statistics.sharpening import BESIDE

MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈", "inconclusive": "?", "untestable": "–"}
STYLES = {"better": "bold blue", "worse": "bold red", "equivalent": "green"}
AXIS_WORDS = {"steps": "rollout steps", "sampled_tokens": "sampled tokens", "seconds": "seconds of training"}
POLICY_WORDS = {
    "intersect": "a seed that is missing in one arm is left out of all",
    "worst": "a run that fails of its own doing keeps a score declared before the study",
}

_NAMES = {
    "accuracy": "accuracy",
    "lenient_accuracy": "lenient accuracy",
    "greedy_accuracy": "greedy accuracy",
    "pass_at_k": "pass at k",
    "length": "response length",
    "truncated": "share of truncated responses",
}
_SHARES = ("accuracy", "lenient_accuracy", "greedy_accuracy", "pass_at_k", "truncated", "no_spread")


@dataclass(frozen=True)
class Unit:
    """How a metric's values are written: multiplied by `scale`, with `digits` decimals."""

    scale: float
    digits: int
    value: str  # after a value: 66.1 %
    difference: str  # of a difference: points


PLAIN = Unit(1.0, 2, "", "")


def unit(metric: str) -> Unit:
    """The unit of `split/name`: shares are written in percent and their differences in points."""
    if metric.rpartition("/")[2] in _SHARES or "/shows/" in metric:
        return Unit(100.0, 1, " %", "points")
    return Unit(1.0, 3, "", "")


def metric_name(metric: str) -> str:
    """`test/accuracy` in words."""
    split, _, name = metric.partition("/") if "/" in metric else ("", "", metric)
    if split.endswith(REEVALUATED):
        return f"{metric_name(f'{split.removesuffix(REEVALUATED)}/{name}')} (further questions)"
    words = _NAMES.get(name, name.removeprefix("shows/").replace("_", " "))
    return f"held-out {words}" if split == "test" else f"{words} on {split}" if split else words


def axis_words(axis: str) -> str:
    """What a budget is counted in."""
    return AXIS_WORDS.get(axis, axis.replace("_", " "))


def budget_text(study: StoredStudy) -> str:
    """The declared budget in words."""
    plan = study.plan
    if plan.budget is None:
        return f"the fewest {axis_words(plan.axis)} of a finished run"
    return f"{plan.budget:,.0f} {axis_words(plan.axis)}".replace(",", "\u202f")


def alpha_of(judgement: Judgement, comparison: Comparison) -> float:
    """The level at which a comparison was judged and its intervals hold: α, or that of the look it rests on."""
    return dict(judgement.plan.looks).get(comparison.effect.n, judgement.analysis.alpha)


def level_text(judgement: Judgement, comparison: Comparison | None = None) -> str:
    """The confidence level of a comparison, or of all of them: 95 %; looks may differ: 99 or 98 %."""
    of = judgement.analysis.comparisons if comparison is None else [comparison]
    alphas = dict.fromkeys(alpha_of(judgement, each) for each in of) or [judgement.analysis.alpha]
    return f"{' or '.join(f'{100 * (1 - alpha):g}' for alpha in alphas)}\u00a0%"


def own_level(judgement: Judgement, comparison: Comparison) -> str:
    """What an interval's words add where not all of a study have one level: `, 99 %`."""
    level = level_text(judgement, comparison)
    return f", {level}" if level != level_text(judgement) and comparison.effect.interval is not None else ""


def verdict_text(comparison: Comparison) -> str:
    """The verdict as a badge says it."""
    if comparison.verdict in ("better", "worse") and comparison.smaller_than_margin:
        return f"{comparison.verdict}, but smaller than Δ"
    return "equivalent within ±Δ" if comparison.verdict == "equivalent" else comparison.verdict


def test_name(comparison: Comparison) -> str:
    """What the adjusted p comes from, which the plan and n decide; empty where there was no test."""
    return "" if comparison.label == "descriptive" else comparison.test


def interval_of(comparison: Comparison) -> tuple[float, float] | tuple[None, None]:
    """The unadjusted interval of the mean difference, or two Nones where there is none."""
    return comparison.effect.interval or (None, None)


def value_text(value: float | None, measure: Unit, *, suffix: bool = True) -> str:
    """A value of the metric in its unit: `66.1 %`."""
    if value is None or math.isnan(value):
        return "–"
    return number_text(value * measure.scale, measure.digits) + (measure.value if suffix else "")


def difference_text(value: float | None, measure: Unit, margin: float = 0.0) -> str:
    """A difference in the metric's unit, with its sign, on its own side of 0 and of the margin: `+4.7`."""
    if value is None or math.isnan(value):
        return "–"
    limits = [measure.scale * limit for limit in (-margin, 0.0, margin)]
    return number_text(value * measure.scale, measure.digits, signed=True, limits=limits)


def error_text(error: float | None, measure: Unit) -> str:
    """A standard error, to one digit more than a difference."""
    return "–" if error is None else number_text(error * measure.scale, measure.digits + 1)


def interval_text(interval: tuple[float, float] | None, measure: Unit, margin: float = 0.0) -> str:
    """An interval of a difference: `−1.0 to +9.0`."""
    return " to ".join(difference_text(end, measure, margin) for end in interval) if interval else "–"


def margin_text(margin: float, measure: Unit) -> str:
    """The smallest difference of interest, with its unit."""
    return f"{difference_text(margin, measure).lstrip('+')} {measure.difference}".strip()


def number_text(value: float | None, digits: int, *, signed: bool = False, limits: Sequence[float] = ()) -> str:
    """A number with a real minus sign, or a dash when there is none; more digits where a limit takes them."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = rounded(value, digits, limits, kind="f", sign="+" if signed else "")
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def p_text(p: float | None, alpha: float = 0.05) -> str:
    """A p-value, never written as 0, on its own side of the level at which it decides."""
    if p is None or math.isnan(p):
        return "–"
    if p < 0.0001 <= alpha:
        return "< 0.0001"
    return rounded(p, 4 if p < 0.1 else 2, [0.0, alpha], kind="f")


def thousands(value: float | None) -> str:
    """A large count in short: `50.4 k`, `1.20 M`."""
    if value is None or math.isnan(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return f"{value:.0f}"


def tick_text(value: float) -> str:
    """A round number under an axis: `50 k`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def signed_tick(value: float) -> str:
    """A round difference under an axis: `+5`."""
    return "0" if abs(value) < 1e-12 else f"{value:+g}".replace("-", "−")


def plain_text(value: Any) -> str:
    """A declared value in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def counted(number: int, word: str) -> str:
    """A number with its noun."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names with an "and" before the last."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)


@dataclass(frozen=True)
class Row:
    """One arm; what could not be computed is None."""

    arm: str
    finished: int
    planned: int
    seeds: tuple[int, ...]  # the seeds behind the numbers
    scores: tuple[float, ...]
    comparison: Comparison | None  # with the baseline
    sampled_tokens: float | None  # mean over runs, to the end of training
    length: float | None  # tokens; the declared scalar of the held-out response length, also by correctness
    length_correct: float | None
    length_incorrect: float | None
    beside: float | None  # the counterpart of the declared metric: greedy accuracy beside sampled accuracy

    @property
    def mean(self) -> float | None:
        """Mean score over the seeds."""
        return _mean(self.scores)


def arm_rows(study: StoredStudy, judgement: Judgement | None) -> list[Row]:
    """One row for each arm, in declared order, with its comparison with the baseline if there is one."""
    scores, counts = study.scores(), study.counts()
    judged = analyzed_scores(judgement.analysis) if judgement is not None else {}
    compared = against_baseline(judgement)
    suite = study.plan.metric.rpartition("/")[0]
    rows = []
    for arm in study.arms:
        used = judged.get(arm, scores[arm])
        seeds = tuple(seed for seed in study.seeds if seed in used)
        runs = [run for run in (study.run(arm, seed) for seed in seeds) if run is not None]
        lengths = []
        for key in (f"{suite}/length", f"{suite}/length_correct", f"{suite}/length_incorrect", counterpart(study)):
            values = [study.scalar(run, key) for run in runs] if key in study.keys else []
            lengths.append(_mean([value for value in values if not math.isnan(value)]))
        rows.append(
            Row(
                arm,
                counts[arm].finished,
                counts[arm].planned,
                seeds,
                tuple(used[seed] for seed in seeds),
                compared.get(arm),
                _mean([run.sampled_tokens for run in runs if run.sampled_tokens is not None]),
                *lengths,
            )
        )
    return rows


def counterpart(study: StoredStudy) -> str:
    """The metric that the declared one is held against: greedy accuracy of sampled, and the other way round."""
    suite, _, name = study.plan.metric.rpartition("/")
    return f"{suite}/{BESIDE[name]}" if name in BESIDE else ""


def analyzed_scores(analysis: Analysis) -> dict[str, dict[int, float]]:
    """The scores behind an analysis, `{arm: {seed: score}}`; an arm that left a race early has only its first seeds."""
    return {each.arm: dict(zip(analysis.seeds, each.scores, strict=False)) for each in analysis.arms}


def compared_scores(judgement: Judgement, comparison: Comparison) -> tuple[dict[int, float], dict[int, float]]:
    """The scores of its two arms, by seed, that a comparison rests on: those of its first `n` seeds."""
    scores = analyzed_scores(judgement.analysis)
    ours, theirs = scores[comparison.arm], scores[comparison.baseline]
    seeds = [seed for seed in judgement.plan.seeds if seed in ours and seed in theirs][: comparison.effect.n]
    return {seed: ours[seed] for seed in seeds}, {seed: theirs[seed] for seed in seeds}


def compared_means(judgement: Judgement, comparison: Comparison) -> tuple[float, float]:
    """The means whose difference a comparison is about."""
    ours, theirs = compared_scores(judgement, comparison)
    return statistics.fmean(ours.values()), statistics.fmean(theirs.values())


def common_scores(analysis: Analysis) -> dict[str, tuple[float, ...]]:
    """The scores of the seeds that all arms have, in one order of seeds."""
    n = min((each.n for each in analysis.arms), default=0)
    return {each.arm: each.scores[:n] for each in analysis.arms}


def against_baseline(judgement: Judgement | None) -> dict[str, Comparison]:
    """The comparisons with the baseline, by arm."""
    analysis = judgement.analysis if judgement is not None else None
    return {each.arm: each for each in analysis.comparisons if each.baseline == analysis.baseline} if analysis else {}


def no_verdict(study: StoredStudy) -> str:
    """Why nothing is compared: what every arm has finished, what is still needed, and the command that goes on.

    Runs that collapsed, or were trained on nothing, are told all the same.
    """
    plan = study.plan
    assert plan.budget is not None
    collapsed = collapse_warnings(plan, outcomes(plan, study.trajectories, plan.budget))
    return " ".join((_why_no_verdict(study), *study.trained_on_nothing(), *collapsed))


def _why_no_verdict(study: StoredStudy) -> str:
    if study.broken:
        told = "; ".join(f"arm {arm} is broken ({why})" for arm, why in study.broken.items())
        goes_on = f" Mend it, then go on: {study.record['command']}" if study.record.get("command") else ""
        return f"No verdict: {told}. What did not work says nothing about a method.{goes_on}"
    if len(study.arms) == 1:
        return "The study has one arm, so nothing is compared."
    plan, command = study.plan, study.record.get("command")
    needed = f"a finished run of {study.baseline} and of another arm at the same seed"
    if plan.sequential:
        needed = f"the first {counted(plan.looks[0][0], 'seed') if plan.looks else 'seed'} in every arm"
    done = ", ".join(f"{arm} {each.finished} of {each.planned}" for arm, each in study.counts().items())
    if plan.further:
        needed += f" whose models have answered {plan.further:,} further questions"
        asked = [run.arm for run in study.runs if run.finished and study.is_answered(run)]
        done += f". Answered: {', '.join(f'{arm} {asked.count(arm)}' for arm in study.arms)}"
    goes_on = f" To go on: {command}" if command else ""
    return f"Nothing to compare yet: that takes {needed}. Finished: {done}.{goes_on}"


def terminal_table(title: str) -> Table:
    """An empty table for a terminal of 80 columns."""
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,  # the box already puts a space between columns
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
    )


def comparison_cells(each: Comparison, measure: Unit, judgement: Judgement) -> tuple[str, str, str, Text]:
    """Difference with its interval, adjusted p, effect size and verdict."""
    margin = judgement.analysis.margin
    ends = ", ".join(difference_text(end, measure, margin) for end in each.effect.interval or ())
    return (
        difference_text(each.effect.mean_difference, measure, margin) + (f" [{ends}]" if ends else ""),
        p_text(each.adjusted_p, alpha_of(judgement, each)) if test_name(each) else "–",
        number_text(each.effect.g_z, 2, signed=True),
        Text(f"{MARKS[each.verdict]} {verdict_text(each)}", style=STYLES.get(each.verdict, "")),
    )


def trouble(judgement: Judgement, arm: str) -> str:
    """How many of an arm's runs failed or collapsed: `2 of 5 collapsed`; empty if none did."""
    return next((each.trouble for each in judgement.outcomes if each.arm == arm), "")


def with_trouble(verdict: str | Text, judgement: Judgement, arm: str) -> Text:
    """The last cell of an arm's row in a terminal: its verdict, and below it what went wrong with its runs."""
    told = trouble(judgement, arm)
    cell = verdict if isinstance(verdict, Text) else Text(verdict)
    return cell.append(f"\n{told}", style="red") if told else cell


def scored_words(study: StoredStudy) -> str:
    """What the one number of a run is, and at which steps it was measured where all finished runs agree."""
    plan = study.plan
    assert plan.budget is not None
    if plan.further:
        return f"a run's score: its final model on {plan.further:,} further questions, asked after training"
    if plan.scalar != "final":
        return "a run's score: mean height of its curve"
    used = set()
    for run in study.trajectories:
        if run.status == "finished":
            curve = run.curves[plan.metric].spent
            steps = [s for s, at in zip(curve["steps"], curve[plan.axis], strict=True) if at <= plan.budget]
            used.add(tuple(steps[-last_evaluations(len(steps)) :]))
    which = steps_text(used.pop()) if len(used) == 1 else "mean of each run's last evaluations"
    return f"a run's score: {which}"


def tests_told(analysis: Analysis) -> str | None:
    """What the adjusted p of a table come from, for its caption."""
    tests = {test_name(each) for each in analysis.comparisons} - {""}
    return f"adj. p: {', '.join(sorted(tests))}. Differences are paired by seed." if tests else None


def verdict_table(judgement: Judgement | None, study: StoredStudy) -> Table:
    """The verdict table for a terminal of 80 columns; without a judgement, the means alone."""
    metric = study.plan.metric
    measure = unit(metric)
    analysis = judgement.analysis if judgement is not None else None
    table = terminal_table(f"{study.name}: {metric_name(metric)}")
    table.add_column("arm", overflow="fold", max_width=20, min_width=6)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    if judgement is not None:
        level = level_text(judgement).replace("\u00a0", " ")
        table.add_column(f"{measure.difference or 'difference'}, {level}", justify="right", no_wrap=True)
        table.add_column("adj. p", justify="right", no_wrap=True)
        table.add_column("g_z", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    if analysis is not None:
        table.add_column("verdict", min_width=14, overflow="fold")
    for row in arm_rows(study, judgement):
        each, n, mean = row.comparison, len(row.seeds), row.mean
        if judgement is not None and each is not None:
            n, mean = each.effect.n, compared_means(judgement, each)[0]
        cells: list[str | Text] = [
            row.arm,
            str(n) if row.finished == row.planned else f"{n}/{row.planned}",
            value_text(mean, measure, suffix=False),
        ]
        tokens = thousands(row.sampled_tokens)
        if each is not None:
            assert judgement is not None
            *compared, verdict = comparison_cells(each, measure, judgement)
            cells += [*compared, tokens, with_trouble(verdict, judgement, row.arm)]
        elif judgement is not None:
            said = "baseline" if row.arm == judgement.analysis.baseline else "no finished run"
            cells += ["", "", "", tokens, with_trouble(said, judgement, row.arm)]
        else:
            cells.append(tokens)
        table.add_row(*cells)
    told = tests_told(analysis) if analysis is not None else None
    table.caption = "\n".join((*([told] if told else []), f"A{scored_words(study)[1:]}."))
    return table


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
