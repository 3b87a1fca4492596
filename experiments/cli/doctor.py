"""`grpolab doctor`: what this machine has, what works on it, and what to do about what does not."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import GrpoLabError
from core.parts.settings import Range
from experiments.doctor.finding import CAVEAT, FAILS, SKIPPED, WORKS, Finding
from experiments.options import file_to_write, number
from experiments.terminal import Console

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.doctor.rounds import Rounds
    from experiments.doctor.visit import Check

FILE: Final = "grpolab-doctor.json"
MINUTES: Final = 10.0
STYLES: Final = {WORKS: "green", CAVEAT: "yellow", FAILS: "bold red", SKIPPED: "dim"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `grpolab doctor`."""
    parser.add_argument("--quick", action="store_true", help="what is there, and whether it trains, in under a minute")
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="also weigh and time this model, and train it for two steps (default: embedded)",
    )
    parser.add_argument(
        "--minutes",
        type=number("--minutes", float, Range(0.1, 24 * 60)),
        default=MINUTES,
        metavar="N",
        help=f"when these are over, no further check is begun (default: {MINUTES:g})",
    )
    parser.add_argument(
        "--out", type=file_to_write, default=FILE, metavar="FILE", help=f"the report as JSON (default: {FILE})"
    )


def run_doctor(options: argparse.Namespace) -> int:
    """Make the rounds, write the file after every check, and end with the table; 1 if something does not work."""
    from experiments.doctor.rounds import given_model, make_rounds

    console, file = Console(), Path(options.out)
    seen: list[Rounds] = []
    with console.status("") as status:

        def begin(check: "Check", title: str) -> None:
            status.update(f"{title}: {check.proves}?")

        def tell(rounds: "Rounds", found: Sequence[Finding]) -> None:
            seen[:] = [rounds]
            for finding in found:
                console.print(f"{finding.result}: {finding.name}", style=STYLES[finding.result], markup=False)
            _write(file, rounds, console)

        try:
            rounds = make_rounds(
                model=given_model(options.model),
                quick=options.quick,
                seconds=60 * options.minutes,
                begin=begin,
                tell=tell,
            )
        except KeyboardInterrupt:
            if seen:
                show(seen[0], console)
            raise
    show(rounds, console)
    if _write(file, rounds, console):
        console.print(f"to attach to a report of a fault: {file} (no paths, no host, no environment)", soft_wrap=True)
    return 1 if rounds.failed else 0


def _write(file: Path, rounds: "Rounds", console: Console) -> bool:
    """Whether the file could be written; a doctor on a full disk goes on without."""
    from core.store.files import write_json

    try:
        write_json(file, rounds.to_json())
        return True
    except GrpoLabError as error:
        console.print(f"warning: {error}", style="bold yellow", highlight=False, markup=False, soft_wrap=True)
        return False


def show(rounds: "Rounds", console: Console) -> None:
    """The table, and a line that counts."""
    console.print(table(rounds.findings))
    counts = {result: sum(finding.result == result for finding in rounds.findings) for result in STYLES}
    summary = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
    console.print(f"{summary}, in {sum(rounds.seconds.values()):.0f} seconds", highlight=False)


def table(findings: Sequence[Finding]) -> "Table":
    """A row for each finding; what to do stands below what was seen."""
    from rich.table import Table
    from rich.text import Text

    made = Table("check", "result", "what was seen, and what to do")
    for finding in findings:
        said = Text(finding.seen)
        if finding.remedy:
            said.append(f"\n→ {finding.remedy}", style="bold")
        made.add_row(Text(finding.name), Text(finding.result, style=STYLES[finding.result]), said)
    return made
