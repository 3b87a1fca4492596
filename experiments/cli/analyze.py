"""`grpolab analyze`: verdicts of a study's folder, of anybody's logs and tables, or of two runs."""

import argparse
from pathlib import Path

from core.errors import GrpoLabError
from experiments.cli.compare_runs import are_runs, compare_runs
from experiments.cli.conclude import conclude
from experiments.cli.tables import are_tables, given_options, run_tables
from experiments.terminal import Console


def run_analyze(options: argparse.Namespace) -> int:
    """`grpolab analyze`."""
    paths = [Path(path) for path in options.paths]
    unused, is_study = given_options(options), (paths[0] / "study.json").is_file()
    asks_more = options.report is not None or options.regrade is not None
    if asks_more and (is_study or are_runs(paths)):
        raise GrpoLabError(
            "--report and --regrade are for runs trained elsewhere; a study's report is report.html in its folder: "
            "grpolab report STUDY"
        )
    if are_runs(paths):
        return compare_runs(paths, as_json=options.json)
    if are_tables(paths) or ((unused or asks_more) and paths[0].is_dir() and not is_study):
        return run_tables(options)
    if unused and is_study:
        declared = ", ".join(name.replace("_", " ") for name in unused)
        message = f"{paths[0]} is a study's folder, which declares its own {declared}: leave the options out"
        if "margin" in unused:
            anew = f"""-b "compare.margin = {options.margin:g}" --grow"""
            message += f"; its margin may be declared anew, by the study's command with {anew}"
        raise GrpoLabError(message)
    return conclude(paths[0], Console(stderr=options.json), as_json=options.json, verbose=options.verbose)
