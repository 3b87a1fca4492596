"""The end of a study: verdicts, tables and report; and `grpolab report`, which writes them again."""

import argparse
import json
from pathlib import Path

from experiments.cli.verdicts import (
    SEEDS_TO_BEGIN_WITH,
    interim_notes,
    is_inconclusive,
    seeds_for_all,
    show_verdicts,
    too_few_for_a_test,
)
from experiments.options import FIGURE_FORMATS
from experiments.report import verdict_table, write_figures, write_report, write_tables
from experiments.report.formatting import listed
from experiments.report.sentences import halving_sentence
from experiments.report.tables import no_verdict
from experiments.results.halving import further_questions, halving
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics import Judgement
from experiments.terminal import Console


def conclude(folder: Path, console: Console, *, as_json: bool = False, verbose: bool = False) -> int:
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
        show_verdicts(
            verdict_table(judgement, study),
            judgement,
            console,
            next_step=next_step(judgement, study),
            more=f"grpolab analyze {folder} --verbose",
            halving=halving_sentence(halving(study, judgement)),
            verbose=verbose,
        )
    write_tables(study, judgement, folder / "tables")
    path = write_report(study, judgement, folder / "report.html")
    write_figures(study, path.read_text("utf-8"), folder / "figures")
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return 1 if study.broken else 0


def next_step(judgement: Judgement, study: StoredStudy) -> str:
    """The one thing to do now that these are the verdicts."""
    command = study.record.get("command") or "the same command again"
    if interim_notes(judgement) or (judgement.sequential is not None and judgement.sequential.stop is None):
        return f"finish the runs: {command}"
    if any(each.lost for each in judgement.outcomes):
        return f"make up the runs that the machine ended: {command}"
    if nothing := _nothing_to_compare(judgement, study):
        return (
            f"{nothing}: read what the models wrote, a section of the report (grpolab report {study.path}), then "
            "see to train.rewards, train.max_tokens and policy.model"
        )
    if not judgement.plan.sequential and (is_inconclusive(judgement) or too_few_for_a_test(judgement)):
        return how_to_grow(judgement, study)
    if alike := [f"{c.arm} and {c.baseline}" for c in judgement.analysis.comparisons if not c.effect.sd_difference]:
        return f"find out why all seeds agree on {listed(alike)}: the report says what their runs share"
    if judgement.warnings:
        return "see in the report what the warnings are about"
    if not study.declaration.get("margin_declared", True):
        return (
            f"say which difference would matter to you ({judgement.plan.margin:g} is the default): the same command "
            'with -b "compare.margin = D" --grow judges anew'
        )
    return "see in the report what the verdicts rest on"


def _nothing_to_compare(judgement: Judgement, study: StoredStudy) -> str:
    """Why more runs of this kind would show nothing: no answer is right, or no arm learnt; empty otherwise."""
    metric = str(study.declaration["metric"])
    if metric.endswith("accuracy") and not any(score for arm in judgement.analysis.arms for score in arm.scores):
        return "no response was right"
    alike = not any(c.effect.sd_difference for c in judgement.analysis.comparisons)
    return "no arm was trained on anything" if alike and len(study.trained_on_nothing()) == len(study.arms) else ""


def how_to_grow(judgement: Judgement, study: StoredStudy) -> str:
    """How a study may grow: further questions where samples pay, else the seeds that all inconclusive comparisons need,
    if few enough.
    """
    seeds, found = judgement.plan.seeds, halving(study, judgement)
    if found and found.cheapest and found.cheapest.samples > found.now.samples and not too_few_for_a_test(judgement):
        asked = further_questions(study, judgement)
        if asked is not None:
            return f"ask the models of the runs further questions, training nothing: {_growing(study, *asked)}"
    needed = SEEDS_TO_BEGIN_WITH if too_few_for_a_test(judgement) else seeds_for_all(judgement)
    if needed is not None and len(seeds) < needed and seeds == tuple(range(len(seeds))):  # as `--seeds N` has them
        return f"more seeds: the same command with --seeds {needed} and --grow uses all finished runs"
    return (
        "more seeds, or further questions to the final models (compare.reevaluate): the same command with them "
        "and --grow uses all finished runs"
    )


def _growing(study: StoredStudy, questions: int, models: int) -> str:
    """The command that declares a study anew with so many further questions to so many models of each run."""
    command, binding = str(study.record.get("command") or ""), f'-b "compare.reevaluate = {questions}"'
    binding += f' -b "compare.reevaluate_models = {models}"' if models > 1 else ""
    if not command.startswith(("grpolab compare ", "grpolab ablate ")):
        return f"the same command with {binding} and --grow"
    grow = "" if "--grow" in command.split() else " --grow"
    return f"{command} {binding}{grow}"


def run_report(options: argparse.Namespace) -> int:
    """`grpolab report`."""
    folder = Path(options.folder)
    study = load_study(folder)
    judgement = study.judge()
    tables = write_tables(study, judgement, folder / "tables")
    page = write_report(study, judgement, folder / "report.html")
    figures = write_figures(study, page.read_text("utf-8"), folder / "figures")
    if options.figures is not None:
        from experiments.plots.files import write_plots  # with matplotlib, which nothing else of the command needs

        formats = options.figures or FIGURE_FORMATS
        figures += write_plots(study, judgement, folder / "figures" / "paper", formats, options.width)
    for path in (*tables, *figures, page):
        print(path)
    return 0
