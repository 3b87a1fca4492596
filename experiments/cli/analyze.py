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
    if options.report is not None and (are_runs(paths) or not are_tables(paths)):
        raise GrpoLabError(
            "--report is for runs trained elsewhere; a study's is report.html in its folder: grpolab report STUDY"
        )
    if are_runs(paths):
        return compare_runs(paths, as_json=options.json)
    if are_tables(paths):
        return run_tables(options)
    if unused := given_options(options):
        declared = ", ".join(name.replace("_", " ") for name in unused)
        message = f"{paths[0]} is a study's folder, which declares its own {declared}: leave the options out"
        if "margin" in unused:
            anew = f"""-b "compare.margin = {options.margin:g}" --grow"""
            message += f"; its margin may be declared anew, by the study's command with {anew}"
        raise GrpoLabError(message)
    return conclude(paths[0], Console(stderr=options.json), as_json=options.json, verbose=options.verbose)
