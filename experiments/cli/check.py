"""`grpolab check`: put parts through the contract suite and say what holds."""

import argparse
import json
from typing import TYPE_CHECKING

from experiments.options import add_config_options
from experiments.terminal import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.check.suite import Findings


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="FILE.py|NAME",
        help="files of your own, whose parts are checked, and names of parts, then only these (default: every part)",
    )
    add_config_options(parser)
    parser.add_argument("--json", action="store_true", help="print every outcome as JSON")


def run_check(options: argparse.Namespace) -> int:
    """Check, print, and return 1 if something fails that must hold."""
    import experiments.study.study  # noqa: F401 - registers what the file of a study binds beside parts
    from core.parts.bindings import bindings_used, refuse_unused
    from core.parts.registry import bindings_in_force, config
    from experiments.check.files import find_parts, is_file
    from experiments.check.suite import examine
    from experiments.study.configs import (
        CONFIGS,
        find_config,
    )

    find_parts([target for target in options.targets if is_file(target)])  # a gin file may bind what is in them
    with config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        parts = find_parts(options.targets)
        for part in parts:
            part.settings()  # a wrong setting is the user's mistake, no finding about the part
        findings = [examine(part) for part in parts]
        if not options.config:  # a whole study's file binds more than parts
            refuse_unused(bindings_in_force(), bindings_used(), parts, [p.name for p in parts if p.kind == "variant"])
    failures = sum(len(part_findings.failures) for part_findings in findings)
    if options.json:
        print(json.dumps([part_findings.to_json() for part_findings in findings], indent=1))
    else:
        show(findings, Console(highlight=False))
    return 1 if failures else 0


def show(findings: "Sequence[Findings]", console: "Console") -> None:
    """A block for each part, and a line at the end."""
    console.print("✓ holds   · does not hold, and need not   ✗ must hold\n", style="dim")
    for part_findings in findings:
        _show_part(part_findings, console)
    failed = [(part_findings.part, check) for part_findings in findings for check, _ in part_findings.failures]
    for part, check in failed if len(findings) > 1 else ():
        console.print(f"✗ {part.name}: {check.name}", style="red", markup=False)
    counts = ((len(findings), "part"), (len(failed), "failure"))
    summary = ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for number, word in counts)
    console.print(summary, style="bold red" if failed else "bold green")


def _show_part(findings: "Findings", console: "Console") -> None:
    """What holds, contracts in one paragraph, and then what does not, a line each."""
    from rich.text import Text

    part, outcomes = findings.part, findings.outcomes
    title = Text.assemble((f"{part.kind} {part.name}", "bold"), (f"  {_shortest(part.place)}", "dim"))
    console.print(title, soft_wrap=True)
    if not outcomes:
        _line("·", "dim", "registered; nothing to check without a model", console)
    elif all(outcome.state == "does not apply" for _, outcome in outcomes):
        _line("·", "dim", f"nothing could be checked: {outcomes[0][1].reason}", console)
    contracts = [check.name for check, outcome in outcomes if check.must and outcome.state == "holds"]
    if contracts:
        _line("✓", "green", "; ".join(contracts), console)
    for state, mark, style in (("holds", "✓", "green"), ("does not hold", "·", "dim")):
        for check, outcome in outcomes:
            if outcome.state == state and not check.must:
                _line(mark, style, ": ".join(filter(None, (check.name, outcome.reason))), console)
    for check, outcome in findings.failures:
        _line("✗", "bold red", f"{check.name}: {outcome.reason}", console)
        _line(" ", "", f"→ {outcome.remedy}", console)
    console.print()


def _line(mark: str, style: str, text: str, console: "Console") -> None:
    """A mark and text, wrapped beside it."""
    import textwrap

    from rich.text import Text

    first, *rest = textwrap.wrap(text, max(console.width - 4, 20), break_on_hyphens=False)
    console.print(Text.assemble("  ", (mark, style), " ", first), soft_wrap=True)
    for line in rest:
        console.print(Text("    " + line), soft_wrap=True)


def _shortest(place: str) -> str:
    """A place relative to the current folder, where that is shorter."""
    import os

    return min(place, os.path.relpath(place), key=len)
