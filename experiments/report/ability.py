"""Section of the report: pass@k before and after training, for whether training added ability or sharpened guessing."""

from collections.abc import Mapping

import numpy as np

from experiments.report.arm_style import Style
from experiments.report.context import Context
from experiments.report.drawing import LEFT, RIGHT, Scale, frame, line, mark, svg
from experiments.report.formatting import counted
from experiments.report.markup import figure, legend, section
from experiments.results.stored_run import StoredRun
from experiments.results.stored_study import StoredStudy
from experiments.statistics.ability import pass_at_k
from experiments.statistics.samples import Array

MIN_SAMPLES = 4
"""Fewest samples a question for which a curve over k is drawn."""


def ability_section(context: Context) -> str:
    """pass@k of the untrained model and of every arm's last evaluation, on the same questions."""
    study, styles = context.study, context.styles
    found = pass_at_k_curves(study)
    if found is None:
        return ""
    base, curves = found
    about = (
        f"pass@k is the chance that one of k sampled responses is right, from {counted(len(base), 'sample')} a "
        "question, averaged over questions and runs. The dotted line is the model before training. An arm that leads "
        "at k = 1 and not at large k has become surer of what the model could already do; one that leads everywhere "
        "has learnt to do more. No verdict rests on it."
    )
    shown = legend(styles, study.baseline)
    drawing = figure(_drawn(base, curves, styles), "pass@k")
    return section("New ability, or surer guessing?", shown, f'<div class="panels">{drawing}</div>', about=about)


def pass_at_k_curves(study: StoredStudy) -> tuple[Array, dict[str, Array]] | None:
    """Mean pass@k [K] over runs, k = 1 to K: of the model before training, and of every arm's last evaluation.

    The last evaluation may have more samples than the first: K is then the first's. None where it has fewer, and where
    K is less than 4.
    """
    suite = study.plan.course_metric.rpartition("/")[0]
    finished = [run for run in study.runs if run.finished]
    base = _mean([table for run in finished if (table := _answers(run, suite, first=True)) is not None])
    trained = {
        arm: _mean([t for run in finished if run.arm == arm and (t := _answers(run, suite, first=False)) is not None])
        for arm in study.arms
    }
    curves = {arm: curve for arm, curve in trained.items() if curve is not None}
    if base is None or not curves or len(base) < MIN_SAMPLES or any(len(c) < len(base) for c in curves.values()):
        return None
    return base, {arm: curve[: len(base)] for arm, curve in curves.items()}


def _answers(run: StoredRun, suite: str, *, first: bool) -> Array | None:
    """Right or wrong [Q, K] before training, or at the end; None where a question lacks samples."""
    evaluations = [row for row in run.evals if row["split"] == suite]
    if not evaluations or (first and evaluations[0]["step"] != 0):
        return None
    table = evaluations[0 if first else -1]["correct"]
    if not table or len({len(row) for row in table}) != 1 or not table[0]:
        return None
    return np.asarray(table, dtype=np.float64)


def _mean(tables: list[Array]) -> Array | None:
    """Mean pass@k over runs, as far as all have samples."""
    curves = [pass_at_k(table) for table in tables]
    least = min(map(len, curves), default=0)
    return np.mean([curve[:least] for curve in curves], axis=0) if least else None


def _drawn(base: Array, curves: Mapping[str, Array], styles: Mapping[str, Style]) -> str:
    width, height = 440.0, 286.0
    x = Scale(1.0, float(len(base)), LEFT, width - RIGHT)
    y = Scale(0.0, 100.0, height - 44, 12)
    parts = frame(x, y, "k samples a question", "", lambda v: f"{v:g}", lambda v: f"{v:g} %", whole=True)
    parts.append(line([(x(k), y(100 * value)) for k, value in enumerate(base, start=1)], "untrained"))
    descriptions = [f"before training {100 * base[0]:.0f} % at k = 1 and {100 * base[-1]:.0f} % at k = {len(base)}"]
    for arm, curve in curves.items():
        points = [(x(k), y(100 * value)) for k, value in enumerate(curve, start=1)]
        parts.append(line(points, "mean", styles[arm], dashed=True))
        parts.append(mark(*points[-1], styles[arm]))
        descriptions.append(f"{arm} {100 * curve[0]:.0f} % and {100 * curve[-1]:.0f} %")
    return svg(parts, width, height, f"pass@k: {'; '.join(descriptions)}.")
