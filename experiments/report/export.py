"""The report's tables as files, for a paper, a notebook or another program: the same rows as on the page."""

from collections.abc import Sequence
from pathlib import Path

from core.store.files import write_whole
from experiments.report.arm_style import arm_styles
from experiments.report.formatting import margin_text, metric_name, unit
from experiments.report.grid import Grid, column, latex_text, number_cell, to_csv, to_latex, to_markdown
from experiments.report.grids import comparison_grid, seed_grid
from experiments.report.outcomes import OUTCOME_WORDS, outcome_grid
from experiments.report.tables import budget_text, scored_words
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement

_SCORES = ("arm", "seed", "score", "status", "imputed", "course", "answers")


def write_tables(study: StoredStudy, judgement: Judgement | None, folder: Path) -> list[Path]:
    """Write `verdicts` and `outcomes` as `.md`, `.tex` (booktabs) and `.csv`, and `scores.csv`; return their paths.

    CSV files hold plain numbers in the metric's own unit. Without a judgement there is `scores.csv` alone.
    """
    texts: dict[str, str] = {}
    if judgement is not None:
        styles = arm_styles(list(study.arms), study.baseline)
        notes = [*_about(study, judgement), *judgement.analysis.notes]
        texts |= _forms("verdicts", comparison_grid(judgement, styles, unit(judgement.analysis.metric)), study, notes)
        texts |= _forms("outcomes", outcome_grid(judgement, styles), study, [OUTCOME_WORDS])
    texts["scores.csv"] = scores_csv(study)
    return [write_report_file(Path(folder) / name, text.encode()) for name, text in texts.items()]


def scores_csv(study: StoredStudy) -> str:
    """One line for each planned run: its score, its status, and the number of answers behind the score."""
    grid, answers = seed_grid(study), study.answers()
    keys = [(arm, seed) for arm in study.arms for seed in study.seeds]
    counts = [round(answers[key], 3) if key in answers else None for key in keys]
    rows = tuple((*row, number_cell(count, "")) for row, count in zip(grid.rows, counts, strict=True))
    return to_csv(Grid((*grid.columns, column("answers", "answers")), rows), _SCORES)


def write_report_file(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; StudyError where that fails."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}; the runs are as they were") from error
    return path


def _forms(name: str, grid: Grid, study: StoredStudy, notes: Sequence[str]) -> dict[str, str]:
    """A table's files by name; the notes are printed with the numbers."""
    listed = "".join(f"- {line}\n" for line in notes)
    needs = f"% {latex_text(study.name)}; needs \\usepackage{{booktabs,threeparttable}}\n"
    return {
        f"{name}.md": f"# {study.name}\n\n{to_markdown(grid)}\n{listed}",
        f"{name}.tex": f"{needs}{to_latex(grid, notes)}",
        f"{name}.csv": to_csv(grid),
    }


def _about(study: StoredStudy, judgement: Judgement) -> list[str]:
    """What the numbers are, and the warnings that belong to them."""
    plan = judgement.plan
    margin = margin_text(plan.margin, unit(plan.metric))
    origin = "" if study.declaration.get("margin_declared", True) else ", the default"
    return [
        f"{metric_name(plan.metric)} ({plan.metric}), {plan.scalar}, {budget_text(study)} per run, paired by seed; "
        f"{scored_words(study)}",
        f"alpha = {plan.alpha:g}, two-sided, over all comparisons together; Δ = {margin}{origin}",
        *judgement.warnings,
    ]
