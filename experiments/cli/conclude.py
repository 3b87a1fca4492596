"""The end of a study: verdicts, tables and report; and `grpolab report`, which writes them again."""

import argparse
import json
from pathlib import Path
from typing import Final

from experiments.report import verdict_table, write_figures, write_report, write_tables
from experiments.report.tables import no_verdict
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics import Judgement
from experiments.terminal import Console

MAX_SEEDS_NAMED: Final = 50
"""Larger numbers of seeds stand in the verdicts, but are not recommended."""


def conclude(folder: Path, console: Console, *, as_json: bool = False) -> int:
    """Judge a study, print the verdicts, write tables, report and figures into its folder, and print where."""
    study = load_study(folder)
    judgement = study.judge()
    if as_json:
        print(
            json.dumps(judgement.to_json() if judgement else {"broken": study.broken} if study.broken else {}, indent=1)
        )
    if judgement is None:
        console.print(no_verdict(study), highlight=False, markup=False)
    elif not as_json:
        _show(judgement, study, console)
    write_tables(study, judgement, folder / "tables")
    path = write_report(study, judgement, folder / "report.html")
    write_figures(study, path.read_text("utf-8"), folder / "figures")
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return 1 if study.broken else 0


def _show(judgement: Judgement, study: StoredStudy, console: Console) -> None:
    """The verdict table, warnings, verdicts in words, predictions and notes."""
    analysis = judgement.analysis
    console.print(verdict_table(judgement, study))
    for warning in judgement.warnings:
        console.print(warning, style="bold yellow", highlight=False, markup=False)
    for comparison in analysis.comparisons:
        console.print(comparison.sentence, highlight=False, markup=False)
    for assessment in judgement.claim.assessments if judgement.claim else ():
        console.print(f"predicted: {assessment.sentence}", highlight=False, markup=False)
    for note in analysis.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if not judgement.plan.sequential and any(c.verdict == "inconclusive" for c in analysis.comparisons):
        console.print(how_to_grow(judgement), highlight=False)


def how_to_grow(judgement: Judgement) -> str:
    """How an inconclusive study may grow, with the seeds that all inconclusive comparisons need, if few enough."""
    plan = judgement.plan
    inconclusive = [c.fixed_n for c in judgement.analysis.comparisons if c.verdict == "inconclusive"]
    needed = [
        fixed.seeds_for_margin for fixed in inconclusive if fixed is not None and fixed.seeds_for_margin is not None
    ]
    from_zero = plan.seeds == tuple(range(len(plan.seeds)))  # as `--seeds N` has them
    if from_zero and len(needed) == len(inconclusive) and len(plan.seeds) < max(needed) <= MAX_SEEDS_NAMED:
        return (
            f"more seeds: the same command with --seeds {max(needed)} and --grow uses all finished runs; so it does "
            "with further questions to the final models (compare.reevaluate)"
        )
    return (
        "more seeds, or further questions to the final models (compare.reevaluate): the same command with them "
        "and --grow uses all finished runs"
    )


def run_report(options: argparse.Namespace) -> int:
    """`grpolab report`."""
    folder = Path(options.folder)
    study = load_study(folder)
    judgement = study.judge()
    tables = write_tables(study, judgement, folder / "tables")
    page = write_report(study, judgement, folder / "report.html")
    for path in (*tables, *write_figures(study, page.read_text("utf-8"), folder / "figures"), page):
        print(path)
    return 0
