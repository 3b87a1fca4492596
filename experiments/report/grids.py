"""Tables as data: verdicts, arms, and every run with its score, for the page and for files alike."""

import statistics
from collections.abc import Callable, Mapping
from html import escape

from experiments.report.arm_style import Style, arm_styles
from experiments.report.drawing import Scale, box, line, mark, svg
from experiments.report.formatting import (
    Unit,
    alpha_of,
    difference_text,
    interval_text,
    level_text,
    metric_name,
    number_text,
    own_level,
    p_text,
    test_name,
    thousands,
    unit,
    value_text,
    verdict_text,
)
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell
from experiments.report.markup import arm_name, badge, breakable
from experiments.report.tables import arm_rows, compared_means, counterpart, trouble
from experiments.results.pairing import PAIRED_BY
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Analysis, Comparison, Course, Judgement, interquartile_mean
from experiments.statistics.stability import courses

MAX_LENGTH_OF_CAUSE = 400  # characters; the rest is in the run's manifest


def comparison_grid(judgement: Judgement, styles: Mapping[str, Style], measure: Unit) -> Grid:
    """Every comparison of the family with its verdict."""
    analysis = judgement.analysis
    points = f", {measure.difference}" if measure.difference else ""
    columns = (
        column("arm", "arm"),
        column("baseline", "against"),
        column("seeds", "n", numeric=True),
        Column(("mean", "baseline_mean"), f"{metric_name(analysis.metric)}, means", numeric=True),
        column("difference", f"difference{points}", numeric=True),
        Column(
            ("interval_low", "interval_high", "interval_level"), f"{level_text(judgement)} interval", note="strip: ±Δ"
        ),
        Column(("adjusted_p", "test", "p_equivalence"), "adjusted p", numeric=True),
        column("g_z", "g_z", numeric=True, note="difference / sd of seeds"),
        column("win_rate", "win rate", numeric=True),
        Column(("verdict", "rests_on", "collapsed", "baseline_collapsed"), "verdict"),
    )
    collapsed = {each.arm: each.collapsed for each in judgement.outcomes}
    extent = _extent(analysis)
    rows = []
    for each in analysis.comparisons:
        arm, base = compared_means(judgement, each)
        interval = interval_text(each.effect.interval, measure, analysis.margin) + own_level(judgement, each)
        wrong = [f"{name}: {reason}" for name in (each.arm, each.baseline) if (reason := trouble(judgement, name))]
        drawn = _interval_svg(each, extent, analysis.margin, styles[each.arm], measure)
        rows.append(
            (
                text_cell(each.arm, arm_name(each.arm, styles)),
                text_cell(each.baseline, breakable(each.baseline)),
                number_cell(each.effect.n, str(each.effect.n)),
                Cell(
                    f"{value_text(arm, measure)} vs {value_text(base, measure)}",
                    (arm, base),
                    f"{value_text(arm, measure)}<small>vs {value_text(base, measure)}</small>",
                ),
                number_cell(
                    each.effect.mean_difference, difference_text(each.effect.mean_difference, measure, analysis.margin)
                ),
                Cell(
                    interval,
                    (*each.effect.interval, 1 - alpha_of(judgement, each))
                    if each.effect.interval
                    else (None, None, None),
                    f"{drawn}<small>{interval}</small>",
                ),
                _p_cell(each, alpha_of(judgement, each)),
                number_cell(each.effect.g_z, number_text(each.effect.g_z, 2, signed=True)),
                number_cell(each.effect.win_rate, number_text(each.effect.win_rate, 2)),
                Cell(
                    "; ".join((verdict_text(each) + (f" ({each.label})" if test_name(each) else ""), *wrong)),
                    (each.verdict, each.label, collapsed.get(each.arm), collapsed.get(each.baseline)),
                    badge(each, with_label=True) + "".join(f"<small>{escape(words)}</small>" for words in wrong),
                ),
            )
        )
    return Grid(columns, tuple(rows))


def arm_grid(study: StoredStudy, judgement: Judgement | None) -> Grid:
    """Every arm by itself: scores over the seeds, sampled tokens, response lengths."""
    metric = study.plan.metric
    measure, styles = unit(metric), arm_styles(list(study.arms), study.baseline)
    rows = arm_rows(study, judgement)
    both = any(row.beside is not None for row in rows)
    columns = [
        column("arm", "arm"),
        column("seeds", "seeds", numeric=True),
        column("mean", f"mean {metric_name(metric)}", numeric=True),
        *([column("beside", metric_name(counterpart(study)), numeric=True, note="mean")] if both else []),
        column("sd", "sd", numeric=True, note="over seeds"),
        column("iqm", "interquartile mean", numeric=True),
        column("sampled_tokens", "sampled tokens", numeric=True, note="per run"),
    ]
    lengths = [
        ("length", "length", "tokens, all"),
        ("length_correct", "correct", "tokens"),
        ("length_incorrect", "incorrect", "tokens"),
    ]
    lengths = [each for each in lengths if any(getattr(row, each[0]) is not None for row in rows)]
    columns += [column(key, title, numeric=True, note=note) for key, title, note in lengths]
    body = []
    for row in rows:
        sd = statistics.stdev(row.scores) if len(row.scores) > 1 else None
        iqm = interquartile_mean(row.scores) if row.scores else None
        name = f"{row.arm} (baseline)" if row.arm == study.baseline else row.arm
        tag = '<small class="tagged">baseline</small>' if row.arm == study.baseline else ""
        of = f" of {row.planned}" if len(row.seeds) < row.planned else ""
        body.append(
            (
                Cell(name, (row.arm,), arm_name(row.arm, styles) + tag),
                number_cell(len(row.seeds), f"{len(row.seeds)}{of}"),
                number_cell(row.mean, value_text(row.mean, measure)),
                *([number_cell(row.beside, value_text(row.beside, measure))] if both else []),
                number_cell(sd, value_text(sd, measure, suffix=False)),
                number_cell(iqm, value_text(iqm, measure)),
                number_cell(row.sampled_tokens, thousands(row.sampled_tokens)),
                *(number_cell(getattr(row, key), number_text(getattr(row, key), 1)) for key, _, _ in lengths),
            )
        )
    return Grid(tuple(columns), tuple(body))


def seed_grid(study: StoredStudy) -> Grid:
    """Every planned run: its score, its status, and whether the score is the declared one of a failed run."""
    assert study.plan.budget is not None
    ways = courses(study.plan, study.trajectories, study.plan.budget)
    scores, measure = study.scores(), unit(study.plan.metric)
    styles = arm_styles(list(study.arms), study.baseline)
    hashes = {key: words for key, words in PAIRED_BY.items() if any(run.hash(key) for run in study.runs)}
    columns = (
        column("arm", "arm"),
        column("seed", "seed", numeric=True),
        column("score", f"{metric_name(study.plan.metric)}, {study.plan.scalar}", numeric=True),
        column("status", "status"),
        column("imputed", "imputed"),
        column("course", "course", note="of the score"),
        column("steps", "steps", numeric=True),
        column("sampled_tokens", "sampled tokens", numeric=True),
        column("run_seconds", "time", numeric=True),
        *(column(key, words) for key, words in hashes.items()),
    )
    rows = []
    for arm in study.arms:
        for seed in study.seeds:
            run, score = study.run(arm, seed), scores[arm].get(seed)
            failed = run is not None and run.outcome == "failed"
            imputed = failed and score is not None
            status = "not started" if run is None else "lost" if run.outcome == "lost" else run.status
            if run is not None and run.trained_on_nothing:
                status += ", trained on nothing"
            state = "" if status == "finished" else "failed" if failed else "open"
            cause = str(run.manifest.get("error") or "").strip()[-MAX_LENGTH_OF_CAUSE:] if run is not None else ""
            shown = f'<span class="{state}">{status}</span>' if state else status
            shown += f'<small class="cause">{escape(cause)}</small>' if cause else ""
            spent = run.manifest.get("seconds") if run is not None else None
            seconds = float(spent) if isinstance(spent, (int, float)) else None
            tokens = run.sampled_tokens if run is not None else None
            rows.append(
                (
                    text_cell(arm, arm_name(arm, styles)),
                    number_cell(seed, str(seed)),
                    number_cell(score, value_text(score, measure), "" if not imputed else _imputed(score, measure)),
                    text_cell(status, shown),
                    Cell("yes" if imputed else "", (imputed,)),
                    course_cell(ways.get((arm, seed)), measure),
                    number_cell(run.steps if run is not None else None, str(run.steps) if run is not None else "–"),
                    number_cell(tokens, thousands(tokens)),
                    number_cell(seconds, f"{seconds:.0f} s" if seconds is not None else "–"),
                    *(_hash(run.hash(key) if run is not None else "") for key in hashes),
                )
            )
    return Grid(columns, tuple(rows))


def course_cell(course: Course | None, measure: Unit) -> Cell:
    """The course of a finished run's score: steady, dipped or collapsed, with the numbers."""
    if course is None:
        return text_cell("")
    if course.kind == "steady":
        return text_cell("steady")
    between, at = (course.lowest, course.lowest_at) if course.kind == "dipped" else (course.peak, course.peak_at)
    start, middle, end = (value_text(value, measure) for value in (course.start, between, course.end))
    description = f"from {start} to {middle} at {at:g}, ends at {end}"
    shown = f'<span class="{"failed" if course.kind == "collapsed" else "open"}">{course.kind}</span>'
    return Cell(f"{course.kind}: {description}", (course.kind,), f"{shown}<small>{escape(description)}</small>")


def _imputed(score: float | None, measure: Unit) -> str:
    return f'<span class="failed">{value_text(score, measure)}</span>'


def _hash(digest: str) -> Cell:
    return text_cell(digest[:8] or "–", f'<span class="mono">{escape(digest[:8] or "–")}</span>')


def _p_cell(each: Comparison, alpha: float) -> Cell:
    """The adjusted p with its test; an equivalence rests on another p, which is then given too."""
    test = test_name(each)
    p_equivalence = each.fixed_n.p_equivalence if each.fixed_n else None
    values = (each.adjusted_p, test, p_equivalence)
    if not test:
        return Cell("– (no test)", values, "–<small>no test</small>")
    within = ""
    if each.verdict == "equivalent" or each.smaller_than_margin:
        within = f"within ±Δ: {p_text(p_equivalence, alpha)}"
    words = f"{p_text(each.adjusted_p, alpha)} ({test})" + (f"; {within}" if within else "")
    html = f"{escape(p_text(each.adjusted_p, alpha))}<small>{test}</small>"
    return Cell(words, values, html + (f"<small>{escape(within)}</small>" if within else ""))


def _extent(analysis: Analysis) -> float:
    """The largest distance from zero that the small intervals of the table must show."""
    ends = [
        end for each in analysis.comparisons for end in (*(each.effect.interval or ()), each.effect.mean_difference)
    ]
    return max(1.5 * analysis.margin, *map(abs, ends)) if ends else 1.5 * analysis.margin


def _interval_svg(each: Comparison, extent: float, margin: float, style: Style, measure: Unit) -> str:
    """A difference with its interval on a line whose middle is zero, one scale for all rows of the table."""
    place: Callable[[float], float] = Scale(-extent, extent, 5, 145)
    parts = [
        box(place(-margin), 1, place(margin) - place(-margin), 24, "margin"),
        line([(75, 1), (75, 25)], "zero"),
        line([(place(end), 13) for end in each.effect.interval or ()], "mean", style),
        mark(place(each.effect.mean_difference), 13, style),
    ]
    label = f"{difference_text(each.effect.mean_difference, measure)} {measure.difference}".strip()
    return svg(parts, 150, 26, label, "interval")
