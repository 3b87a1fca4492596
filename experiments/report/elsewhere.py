"""One HTML file with the verdicts on runs that were trained elsewhere: a study's report, less what needs its answers.

The numbers existed before the question, so that the page does not speak of a declaration.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from experiments.report.answer import answer_in
from experiments.report.arm_style import arm_styles
from experiments.report.context import Judged, question_of
from experiments.report.coupling import coupling_section
from experiments.report.curves import Curve, axis_switch, curves_figure
from experiments.report.details import details_section
from experiments.report.differences import differences_section
from experiments.report.distribution import distribution
from experiments.report.exploratory import exploratory_section
from experiments.report.export import write_report_file
from experiments.report.formatting import POLICY_WORDS, axis_words, counted, margin_text, metric_name, value_text
from experiments.report.grid import Grid, column, number_cell, text_cell, to_html
from experiments.report.grids import course_cell
from experiments.report.markup import arm_name, breakable, contents, facts, figure, legend, section
from experiments.report.outcomes import OUTCOME_WORDS, outcome_grid
from experiments.report.page import document
from experiments.report.ranks import ranks_section
from experiments.report.sensitivity import sensitivity_section
from experiments.report.verdicts import (
    FAMILY_WORDS,
    SCALAR_WORDS,
    compared,
    differences_words,
    verdict_list,
    warnings_alert,
)
from experiments.results.stored_run import StudyError
from experiments.results.tables.measurements import SCORED
from experiments.statistics import Judgement, Trajectory
from experiments.statistics.runs import arms_of, least_spent, scores
from experiments.statistics.stability import courses


def check_report_file(path: Path) -> None:
    """StudyError, before anything is read, for a path at which no file can be."""
    if path.is_dir():
        raise StudyError(f"--report {path}: a folder, but the report is one file; e.g. {path / 'report.html'}")


def write_report_elsewhere(judgement: Judgement, runs: Sequence[Trajectory], source: str, path: Path) -> Path:
    """Write the page to `path` and return it; the file appears whole or not at all."""
    return write_report_file(path, render_elsewhere(judgement, runs, source).encode("utf-8", errors="replace"))


def render_elsewhere(judgement: Judgement, runs: Sequence[Trajectory], source: str) -> str:
    """The page as text; the same runs and question give the same bytes."""
    baseline = judgement.analysis.baseline
    judged = Judged(judgement, arm_styles(arms_of(runs), baseline))
    question = question_of(judgement.plan.metric, arms_of(runs), baseline)
    sections = (
        section("Verdicts", *compared(judged, judgement), about=differences_words(judgement)),
        sensitivity_section(judged),
        _asked(judgement, judged, runs),
        _curves(judgement, judged, runs),
        differences_section(judged),
        distribution(judged, f"{source} {judgement.plan.metric}"),
        ranks_section(judged),
        coupling_section(judged),
        _runs(judgement, judged, runs),
        exploratory_section(judged),
        details_section(judged),
    )
    rest = [each for each in sections if each]
    head = _head(judgement, runs, source, question)
    return document(f"{source}: {question}", "\n".join((head, contents(rest), *rest)))


def _head(judgement: Judgement, runs: Sequence[Trajectory], source: str, question: str) -> str:
    finished = sum(run.status == "finished" for run in runs)
    seeds = counted(len(judgement.plan.seeds), "seed")
    lede = f"{counted(len(arms_of(runs)), 'arm')} × {seeds}; {finished} of {len(runs)} runs finished."
    return (
        f'<header><p class="eyebrow">Trained elsewhere: {breakable(source)}</p>'
        f"<h1>{breakable(question).replace('-', '-&#8288;')}</h1>"
        f'<p class="answer">{breakable(answer_in(judgement, ()))}</p><p class="lede">{lede}</p>'
        f"{warnings_alert(judgement)}{verdict_list(judgement, ())}</header>"
    )


def _asked(judgement: Judgement, judged: Judged, runs: Sequence[Trajectory]) -> str:
    """The question in full, and the notes."""
    plan = judgement.plan
    pairs = {
        "Metric": f"{metric_name(plan.metric)} ({plan.metric})",
        "One number per run": "as the table has it" if plan.axis == SCORED else SCALAR_WORDS[plan.scalar],
        "Baseline": plan.baseline,
        "Comparisons": FAMILY_WORDS[plan.family],
        "Error rate α": f"{plan.alpha:g}, two-sided, over all comparisons together",
        "Smallest effect of interest Δ": margin_text(plan.margin, judged.measure),
        "Better is": "higher" if plan.higher_is_better else "lower",
        "Seeds": ", ".join(map(str, plan.seeds)),
        "Failed runs": f"{plan.failures}: {_failure_words(judgement)}",
    }
    if plan.axis != SCORED:
        pairs["Budget"] = f"{_budget(judgement, runs):,.0f} {_axis_words(plan.axis)}".replace(",", "\u202f")
    items = "".join(f"<li>{escape(note)}</li>" for note in judgement.analysis.notes)
    about = (
        "Asked of numbers that existed: nothing was declared before the runs, and the error rate holds for a question "
        "that was not chosen by its answer."
    )
    return section("What was asked", facts(pairs), f'<h3>Notes</h3><ul class="notes">{items}</ul>', about=about)


def _curves(judgement: Judgement, judged: Judged, runs: Sequence[Trajectory]) -> str:
    """The metric's learning curves over each axis that every finished run has."""
    plan = judgement.plan
    having = [run for run in runs if plan.metric in run.curves]
    done = [run.curves[plan.metric].spent for run in having if run.status == "finished"]
    axes = [axis for axis in (done[0] if done else ()) if axis != SCORED and all(axis in spent for spent in done)]
    axes.sort(key=lambda axis: axis != plan.axis)
    if not axes or not any(len(spent[plan.axis]) > 1 for spent in done):
        return ""
    blocks = []
    for axis in axes:
        finished, others = (_by_arm(having, plan.metric, axis, finished=each) for each in (True, False))
        title = metric_name(plan.metric)
        drawing = curves_figure(
            finished,
            judged.styles,
            unfinished=others,
            axis=axis,
            title=title,
            measure=judged.measure,
            budget=_axis_words(axis),
        )
        declared = " declared" if axis == plan.axis else ""
        blocks.append(
            f'<div class="on-axis on-{axis}{declared}"><h3>By {_axis_words(axis)}</h3>'
            f'<div class="panels">{figure(drawing, escape(title), "main")}</div></div>'
        )
    about = (
        "Thin lines are runs, one per seed; the bold line is their mean. With three seeds or more the band is the "
        "pointwise 95\u00a0% t interval of that mean, which is not the interval of a paired difference. Dotted lines "
        "that end in a cross are runs that failed; they enter no mean."
    )
    return section(
        "Learning curves", legend(judged.styles, plan.baseline), axis_switch(axes, _axis_words), *blocks, about=about
    )


def _by_arm(runs: Sequence[Trajectory], metric: str, axis: str, *, finished: bool) -> Mapping[str, list[Curve]]:
    found: dict[str, list[Curve]] = {}
    for run in runs:
        curve = run.curves[metric]
        if (run.status == "finished") == finished and axis in curve.spent:
            values = np.array([value if np.isfinite(value) else np.nan for value in curve.values], dtype=np.float64)
            found.setdefault(run.arm, []).append((np.array(curve.spent[axis], dtype=np.float64), values))
    return found


def _runs(judgement: Judgement, judged: Judged, runs: Sequence[Trajectory]) -> str:
    """What became of the runs, by arm and one by one."""
    plan, budget = judgement.plan, _budget(judgement, runs)
    table = scores(plan, runs, plan.axis, budget, plan.failures)
    ways = courses(plan, runs, budget)
    columns = (
        column("arm", "arm"),
        column("seed", "seed", numeric=True),
        column("score", f"{metric_name(plan.metric)}, {plan.scalar}", numeric=True),
        column("status", "status"),
        column("course", "course", note="of the score"),
        column("spent", "ends at", numeric=True, note=_axis_words(plan.axis)),
    )
    rows = []
    for run in sorted(runs, key=lambda run: (arms_of(runs).index(run.arm), run.seed)):
        score, curve = table[run.arm].get(run.seed), run.curves.get(plan.metric)
        end = curve.spent[plan.axis][-1] if curve is not None and plan.axis in curve.spent else None
        end = None if plan.axis == SCORED else end
        status = f"{run.status}: {run.cause}" if run.cause else run.status
        rows.append(
            (
                text_cell(run.arm, arm_name(run.arm, judged.styles)),
                number_cell(run.seed, str(run.seed)),
                number_cell(score, value_text(score, judged.measure)),
                text_cell(status, breakable(status)),
                course_cell(ways.get((run.arm, run.seed)), judged.measure),
                number_cell(end, f"{end:,.0f}".replace(",", "\u202f") if end is not None else "–"),
            )
        )
    about = f"{OUTCOME_WORDS} Here ({plan.failures}), {_failure_words(judgement)}."
    return section(
        "Runs",
        to_html(outcome_grid(judgement, judged.styles), "Outcomes"),
        "<h3>Every run</h3>",
        to_html(Grid(columns, tuple(rows)), "Every run", "runs"),
        about=about,
    )


def _budget(judgement: Judgement, runs: Sequence[Trajectory]) -> float:
    """The budget that was given, or the least that a finished run has spent."""
    plan = judgement.plan
    return least_spent(plan, runs, plan.axis) if plan.budget is None else plan.budget


def _failure_words(judgement: Judgement) -> str:
    plan = judgement.plan
    if plan.failures == "worst":
        return f"a run whose training failed scores {plan.floor:g}, or what it had before training if that is worse"
    return POLICY_WORDS[plan.failures]


def _axis_words(axis: str) -> str:
    """A trainer's own steps, which need not be rollouts."""
    return "steps" if axis == "steps" else axis_words(axis)
