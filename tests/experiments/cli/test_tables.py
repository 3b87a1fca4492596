"""`grpolab analyze` on runs trained elsewhere: what its screen says."""

from pathlib import Path

import pytest

from experiments.cli.main import main
from tests.experiments.results.test_tables import TIDY


def test_the_next_step_is_never_what_was_just_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.csv").write_text(TIDY)
    command = ["analyze", str(tmp_path / "results.csv"), "--baseline", "grpo", "--margin", "0.02"]
    for options, place in (
        ([], "with --verbose"),
        (["--verbose"], "with --report FILE.html"),
        (["--report", str(tmp_path / "page.html")], "in the report"),
    ):
        assert main([*command, *options]) == 0
        assert f"next: see {place} what the verdicts rest on" in capsys.readouterr().out
