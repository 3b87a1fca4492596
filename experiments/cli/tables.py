"""`grpolab analyze` on runs trained elsewhere: its options, and the verdicts as printed."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.options import TABLE_LIMITS, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from experiments.results.stored_study import StoredStudy
    from experiments.statistics import Judgement


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options for tables and logs; a study's folder declares all of them."""
    group = parser.add_argument_group(
        "runs trained elsewhere", "logs of trainers, CSV files, and folders of them; docs/tables.md shows what is read"
    )
    group.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared with; needed")
    group.add_argument(
        "--metric",
        metavar="NAME",
        help="what is compared; a pattern such as 'eval_*/mean' must match one (default: the only one there is)",
    )
    group.add_argument(
        "--scalar",
        choices=("final", "auc"),
        help="a run's last evaluations, or the area under its curve (default: final)",
    )
    group.add_argument("--axis", metavar="NAME", help="what the budget is counted in (default: steps)")
    group.add_argument(
        "--budget",
        type=number("--budget", float, TABLE_LIMITS["budget"]),
        metavar="B",
        help="compare runs at B (default: the least that a finished run has spent)",
    )
    group.add_argument(
        "--margin",
        type=number("--margin", float, TABLE_LIMITS["margin"]),
        metavar="D",
        help="smallest difference of interest, in the metric's unit (default: 0.01)",
    )
    group.add_argument(
        "--alpha",
        type=number("--alpha", float, TABLE_LIMITS["alpha"]),
        metavar="A",
        help="level of the verdicts (default: 0.05)",
    )
    group.add_argument(
        "--family", choices=("baseline", "all"), help="every arm against the baseline, or all pairs (default: baseline)"
    )
    group.add_argument(
        "--lower-is-better", action="store_const", const=False, dest="higher_is_better", help="as with a loss"
    )
    group.add_argument(
        "--failures",
        choices=("worst", "intersect"),
        help="failed runs keep a bad score, or leave with their seeds (default: worst)",
    )
    group.add_argument(
        "--floor",
        type=number("--floor", float, TABLE_LIMITS["floor"]),
        metavar="F",
        help="the score of a failed run (default: 0)",
    )
    answers_help = "of how many answers a value is the mean (default: a column answers, or unknown)"
    group.add_argument(
        "--answers", type=number("--answers", int, TABLE_LIMITS["answers"]), metavar="N", help=answers_help
    )
    _add_reading_options(group)


def _add_reading_options(group: "argparse._ArgumentGroup") -> None:
    """How runs are read, and what is written besides."""
    group.add_argument(
        "--regrade",
        metavar="VERIFIER",
        help="grade the answers anew that verl or TRL kept, e.g. by math_answer, and compare these verdicts",
    )
    group.add_argument("--report", type=Path, metavar="FILE.html", help="write the verdicts as a page, too")
    group.add_argument(
        "--runs", metavar="REGEX", help="reads groups arm, seed and perhaps metric from a file's or run's name"
    )


def are_tables(paths: "Sequence[Path]") -> bool:
    """Whether the paths are tables or trainers' logs, or a folder of them, rather than a study's folder."""
    from experiments.results.tables.engines.readers import files_below
    from experiments.results.tables.gather import is_readable

    if len(paths) > 1 or paths[0].suffix.lower() == ".csv" or paths[0].is_file():
        return True
    return not (paths[0] / "study.json").exists() and any(map(is_readable, files_below(paths[0])))


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a table that were given, by name."""
    names = (
        "baseline",
        "metric",
        "scalar",
        "axis",
        "budget",
        "margin",
        "alpha",
        "family",
        "higher_is_better",
        "failures",
        "floor",
        "answers",
    )
    return {name: value for name in (*names, "runs") if (value := getattr(options, name)) is not None}


def run_tables(options: argparse.Namespace) -> int:
    """Read the tables, judge and print."""
    from experiments.report.elsewhere import check_report_file, write_report_elsewhere
    from experiments.report.tables import no_verdict
    from experiments.results.tables.sheets import TableError
    from experiments.results.tables.tables import Question, judge_runs, read_tables
    from experiments.terminal import Console

    paths = [Path(path) for path in options.paths]
    asks_more = given_options(options) or options.report is not None or options.regrade is not None
    if not asks_more and (study := _written_by(paths)) is not None:
        judgement = study.judge()
        if judgement is None:
            raise TableError(no_verdict(study))
        note = (
            f"Judged as the study {study.path}, whose tables are as it wrote them, with the answers behind the scores."
        )
        judgement = replace(judgement, analysis=replace(judgement.analysis, notes=(*judgement.analysis.notes, note)))
        _print_judgement(judgement, str(study.path), options, {})
        return 0
    if options.report is not None:
        check_report_file(options.report)
    table, question_options = read_tables(paths, options.runs, options.metric, options.regrade), given_options(options)
    question_options.pop("runs", None)
    if options.regrade is not None and options.metric is None:
        question_options["metric"] = f"*regraded/{options.regrade}"
    declared, notes = as_declared(paths, question_options)
    question_options = declared | question_options
    if "baseline" not in question_options:
        raise TableError(f"{table.source}: --baseline is needed; the arms are {', '.join(table.arms)}")
    judgement, runs = judge_runs(replace(table, notes=(*table.notes, *notes)), Question(**question_options))
    _print_judgement(judgement, table.source, options, table.lacking)
    if options.report is not None:
        path = write_report_elsewhere(judgement, runs, table.source, options.report)
        Console(stderr=options.json).print(f"report: {path}", soft_wrap=True, highlight=False)
    return 0


def _print_judgement(
    judgement: "Judgement", title: str, options: argparse.Namespace, lacking: "Mapping[str, Sequence[int]]"
) -> None:
    from experiments.cli.verdicts import show_verdicts
    from experiments.report.formatting import as_given
    from experiments.terminal import Console

    if options.json:
        print(json.dumps(judgement.to_json(), indent=1))
        return
    show_verdicts(
        verdicts(judgement, title),
        judgement,
        Console(),
        next_step=_next_step(judgement, lacking, options),
        more="the same command with --verbose",
        measure=as_given(judgement),
        verbose=options.verbose,
    )


def _next_step(judgement: "Judgement", lacking: "Mapping[str, Sequence[int]]", options: argparse.Namespace) -> str:
    """The one thing to do now that these are the verdicts."""
    from experiments.cli.verdicts import is_inconclusive, seeds_for_all, too_few_for_a_test
    from experiments.report.formatting import listed, seeds_text
    from experiments.statistics.rule import T_SEEDS

    if lacking:
        runs = listed([f"{arm} at {seeds_text(seeds)}" for arm, seeds in lacking.items()])
        return f"run {runs} too: a seed that one arm lacks counts in none"
    if too_few_for_a_test(judgement):
        return f"more seeds: a test takes {T_SEEDS} in every arm"
    if is_inconclusive(judgement):
        needed = seeds_for_all(judgement)
        return f"more seeds: {needed} in every arm" if needed else "more seeds, or more answers behind every score"
    if options.margin is None:
        return f"say which difference would matter to you: --margin D ({judgement.plan.margin:g} now)"
    if options.report is not None:
        return "see in the report what the verdicts rest on"
    return f"see with {'--report FILE.html' if options.verbose else '--verbose'} what the verdicts rest on"


def _folder_of(paths: "Sequence[Path]") -> Path | None:
    """The study whose `tables` folder holds all these paths, if there is one."""
    places = {(path if path.is_dir() else path.parent).resolve() for path in paths}
    place = next(iter(places))
    is_studys = len(places) == 1 and place.name == "tables" and (place.parent / "study.json").is_file()
    return place.parent if is_studys else None


def _written_by(paths: "Sequence[Path]") -> "StoredStudy | None":
    """The study that wrote these tables, if they still hold its scores."""
    from experiments.report.export import scores_csv
    from experiments.results.stored_study import load_study

    folder = _folder_of(paths)
    if folder is None or any(path.is_file() and path.name != "scores.csv" for path in paths):
        return None
    study, file = load_study(folder), folder / "tables" / "scores.csv"
    return study if file.is_file() and file.read_bytes() == scores_csv(study).encode() else None


def as_declared(paths: "Sequence[Path]", overrides: "Mapping[str, Any]") -> tuple[dict[str, Any], list[str]]:
    """The declared settings of tables in a study's folder, without those overridden, and the notes about them."""
    from experiments.results.stored_study import load_study
    from experiments.results.tables.sheets import TableError

    folder = _folder_of(paths)
    if folder is None:
        return {}, []
    plan = load_study(folder).plan
    if plan.sequential or plan.questions == "population":
        raise TableError(
            f"{folder}: a race, declared looks and a claim about questions like these need more than scores: grpolab "
            f"analyze {folder}"
        )
    names = ("baseline", "metric", "margin", "alpha", "family", "failures")
    declared = {name: getattr(plan, name) for name in names if name not in overrides}
    values = ", ".join(f"{name} {value}" for name, value in declared.items())
    return {**declared, "seen": plan.seen}, [f"As declared in {folder / 'study.json'}: {values}."] if declared else []


def verdicts(judgement: "Judgement", title: str) -> "Table":
    """The baseline's row, then one for each comparison."""
    from experiments.report.formatting import as_given, level_text, value_text
    from experiments.report.tables import compared_means, comparison_cells, terminal_table, tests_note, with_trouble

    analysis, measure = judgement.analysis, as_given(judgement)
    table = terminal_table(f"{title}: {analysis.metric}")
    table.add_column("arm", overflow="fold", max_width=20, min_width=6)
    for column in ("n", "mean", f"difference, {level_text(judgement)}".replace("\u00a0", " "), "adj. p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=14, overflow="fold")
    base = next(each for each in analysis.arms if each.arm == analysis.baseline)
    verdict_cell = with_trouble("baseline", judgement, base.arm)
    table.add_row(base.arm, str(base.n), value_text(base.mean, measure), "", "", verdict_cell)
    for each in analysis.comparisons:
        against = each.arm if each.baseline == analysis.baseline else f"{each.arm} vs {each.baseline}"
        mean = value_text(compared_means(judgement, each)[0], measure)
        *compared, verdict = comparison_cells(each, measure, judgement)
        table.add_row(against, str(each.effect.n), mean, *compared, with_trouble(verdict, judgement, each.arm))
    table.caption = tests_note(analysis)
    return table
