"""The verdict table: the rows that terminal and page share, and the table for a terminal."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from experiments.report.formatting import (
    MARKS,
    Unit,
    alpha_of,
    axis_words,
    counted,
    difference_text,
    interval_ends,
    level_text,
    metric_name,
    p_text,
    test_name,
    thousands,
    unit,
    value_text,
    verdict_text,
)
from experiments.results.scored import steps_text
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Analysis, Comparison, Judgement
from experiments.statistics.outcomes import collapse_warnings, outcomes
from experiments.statistics.scalars import last_evaluations
from experiments.statistics.sharpening import BESIDE

STYLES = {"better": "bold blue", "worse": "bold red", "equivalent": "green"}


def budget_text(study: StoredStudy) -> str:
    """The declared budget in words."""
    plan = study.plan
    if plan.budget is None:
        return f"the fewest {axis_words(plan.axis)} of a finished run"
    return f"{plan.budget:,.0f} {axis_words(plan.axis)}".replace(",", "\u202f")


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
    analyzed = analyzed_scores(judgement.analysis) if judgement is not None else {}
    compared = against_baseline(judgement)
    suite = study.plan.metric.rpartition("/")[0]
    rows = []
    for arm in study.arms:
        used = analyzed.get(arm, scores[arm])
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
    """The counterpart of the declared metric: greedy accuracy for sampled, and the other way round."""
    suite, _, name = study.plan.metric.rpartition("/")
    return f"{suite}/{BESIDE[name]}" if name in BESIDE else ""


def analyzed_scores(analysis: Analysis) -> dict[str, dict[int, float]]:
    """The scores behind an analysis, `{arm: {seed: score}}`; an arm that left a race early has only its first seeds."""
    return {each.arm: dict(zip(analysis.seeds, each.scores, strict=False)) for each in analysis.arms}


def compared_scores(judgement: Judgement, comparison: Comparison) -> tuple[dict[int, float], dict[int, float]]:
    """The scores of a comparison's two arms by seed: those of its first `n` seeds."""
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
    """Why nothing is compared: the arms' finished runs, what is still needed, and the command that continues.

    Runs that collapsed, or were trained on nothing, are reported all the same.
    """
    plan = study.plan
    assert plan.budget is not None
    collapsed = collapse_warnings(plan, outcomes(plan, study.trajectories, plan.budget))
    return " ".join((_why_no_verdict(study), *study.trained_on_nothing(), *collapsed))


def _why_no_verdict(study: StoredStudy) -> str:
    if study.broken:
        broken_arms = "; ".join(f"arm {arm} is broken ({why})" for arm, why in study.broken.items())
        hint = f" Mend it, then go on: {study.record['command']}" if study.record.get("command") else ""
        return f"No verdict: {broken_arms}. What did not work says nothing about a method.{hint}"
    if len(study.arms) == 1:
        return "The study has one arm, so nothing is compared."
    plan, command = study.plan, study.record.get("command")
    needed = f"a finished run of {study.baseline} and of another arm at the same seed"
    if plan.sequential:
        needed = f"the first {counted(plan.looks[0][0], 'seed') if plan.looks else 'seed'} in every arm"
    done = ", ".join(f"{arm} {each.finished} of {each.planned}" for arm, each in study.counts().items())
    if plan.further:
        needed += f" whose models have answered {plan.further:,} further questions"
        answered = [run.arm for run in study.runs if run.finished and study.is_answered(run)]
        done += f". Answered: {', '.join(f'{arm} {answered.count(arm)}' for arm in study.arms)}"
    hint = f" To go on: {command}" if command else ""
    return f"Nothing to compare yet: that takes {needed}. Finished: {done}.{hint}"


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


def comparison_cells(each: Comparison, measure: Unit, judgement: Judgement) -> tuple[str, str, Text]:
    """Difference with its interval, adjusted p and verdict."""
    margin = judgement.analysis.margin
    ends = ", ".join(interval_ends(each.effect.interval, measure, margin)) if each.effect.interval else ""
    return (
        difference_text(each.effect.mean_difference, measure, margin) + (f" [{ends}]" if ends else ""),
        p_text(each.adjusted_p, alpha_of(judgement, each)) if test_name(each) else "–",
        Text(f"{MARKS[each.verdict]} {verdict_text(each)}", style=STYLES.get(each.verdict, "")),
    )


def trouble(judgement: Judgement, arm: str) -> str:
    """How many of an arm's runs failed or collapsed: `2 of 5 collapsed`; empty if none did."""
    return next((each.trouble for each in judgement.outcomes if each.arm == arm), "")


def with_trouble(verdict: str | Text, judgement: Judgement, arm: str) -> Text:
    """The last cell of an arm's row in a terminal: its verdict, and below it the failures of its runs."""
    problem = trouble(judgement, arm)
    cell = verdict if isinstance(verdict, Text) else Text(verdict)
    return cell.append(f"\n{problem}", style="red") if problem else cell


def scored_words(study: StoredStudy) -> str:
    """How a run's score is computed, and at which steps, where all finished runs agree."""
    plan = study.plan
    assert plan.budget is not None
    if plan.further:
        asked = "its final model" if study.models_asked == 1 else f"its last {study.models_asked} evaluations' models"
        return f"a run's score: {asked} on {plan.further:,} further questions, asked after training"
    if plan.scalar != "final":
        return "a run's score: mean height of its curve"
    used = set()
    for run in study.trajectories:
        if run.status == "finished":
            curve = run.curves[plan.metric].spent
            steps = [s for s, at in zip(curve["steps"], curve[plan.axis], strict=True) if at <= plan.budget]
            used.add(tuple(steps[-last_evaluations(len(steps)) :]))
    which = steps_text(used.pop()) if len(used) == 1 else "mean of each run's last evaluations"
    average = ", of a moving average of the weights" if any(run.is_averaged for run in study.runs) else ""
    return f"a run's score: {which}{average}"


def tests_note(analysis: Analysis) -> str | None:
    """The tests behind a table's adjusted p, for its caption."""
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
            status = "baseline" if row.arm == judgement.analysis.baseline else "no finished run"
            cells += ["", "", tokens, with_trouble(status, judgement, row.arm)]
        else:
            cells.append(tokens)
        table.add_row(*cells)
    tests = tests_note(analysis) if analysis is not None else None
    table.caption = "\n".join((*([tests] if tests else []), f"A{scored_words(study)[1:]}."))
    return table


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
