"""A gain in sampled answers alone is stated beside the headline and shown side by side with greedy ones."""

from pathlib import Path

import pytest

from experiments.cli.main import main
from tests.experiments.report.pages import read
from tests.experiments.report.studies import write_curves


def test_sampled_and_greedy_answers_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Greedily both are always right on half of the questions; sampled, the second gains 24, 25 and 26 of 256."""
    base = [[90, *[168 + 2 * seed] * 3] for seed in range(3)]
    arm = [[90, *[168 + 2 * seed + 24 + seed] * 3] for seed in range(3)]
    study = write_curves(tmp_path / "pair", {"grpo": base, "mine": arm})
    assert main(["analyze", str(study.path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "▲ better" in output
    assert (
        "Sampled and greedy answers disagree: mine vs grpo differs by +0.0977 in sampled answers, but by +0" in output
    )
    page = read(study.path / "report.html")
    head, row = page.table("Sampled and greedy")
    assert head[3:5] == ["held-out accuracy difference, points", "held-out greedy accuracy difference, points"]
    assert row[:5] == ["mine", "grpo", "3", "+9.8", "0.0"]
    assert row[-1] == "they disagree"
    assert page.table("The arms")[1][2:4] == ["66.4 %", "50.0 %"]
    assert "Sampled and greedy answers disagree" in (study.path / "report.html").read_text("utf-8").split("<ul")[0]
    # beside the verdict too: a long list of warnings is folded
    assert "Turns out otherwise: greedy answers." in (study.path / "report.html").read_text("utf-8")
