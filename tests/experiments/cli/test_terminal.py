"""Somebody else's words are printed and not obeyed."""

import io
from pathlib import Path

import pytest
from rich.table import Table

from core.printable import printable
from experiments.cli.main import main
from experiments.terminal import Console

COMMANDS = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\r\x08\x7f\u202ed"


def test_control_characters_are_left_out() -> None:
    assert printable(COMMANDS) == "a[2J]0;titleb31mcd"
    assert printable("1\t2\n3 \u00e9\u4e2d") == "1\t2\n3 \u00e9\u4e2d"
    assert printable("1\t2\n\n3", lines=False) == "1 2 3"


def test_the_console_prints_its_own_sequences_alone() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60)
    table = Table()
    table.add_column("arm")
    table.add_row(COMMANDS)
    console.print(table)
    console.print(COMMANDS, style="red", markup=False)
    assert "\x1b[31m" in file.getvalue()
    for command in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\x08", "\u202e"):
        assert command not in file.getvalue()


def test_an_error_is_printed_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "-c", f"no{COMMANDS}such"]) == 2
    assert "config file not found: noa[2J]0;titleb31mcdsuch" in capsys.readouterr().err


def test_names_of_a_table_are_printed_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"{arm},{seed},{0.5 + seed / 50 + shift}"
        for arm, shift in (("x\x1b[2J", 0), ("y\x1b]0;t\x07", 0.1))
        for seed in range(5)
    ]
    (tmp_path / "scores.csv").write_text("\n".join(["arm,seed,score", *rows]) + "\n")
    main(["analyze", str(tmp_path / "scores.csv"), "--baseline", "x\x1b[2J"])
    output = capsys.readouterr()
    assert "x[2J" in output.out + output.err
    assert "\x1b]0" not in output.out + output.err
    assert "\x1b[2J" not in output.out + output.err
