"""The hint on how to grow an inconclusive study."""

from pathlib import Path
from typing import Any

import pytest

from experiments.cli.main import main
from tests.experiments.report.studies import FINALS, judge, write_study

MANY = "more seeds, or further questions to the final models (compare.reevaluate): the same command with them"
ENOUGH = {"grpo": [0.5] * 12, "dapo": [0.531, 0.491] * 6}  # d = .031, -.009: mean .011, sd .02 √(12/11)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"margin": 0.02}, "more seeds: the same command with --seeds 10 and --grow uses all finished runs"),
        ({"margin": 0.01}, "--seeds 34 and --grow"),
        ({"margin": 0.005}, MANY),  # 128
        ({"margin": 0.02, "seeds": [2, 1, 0]}, MANY),  # `--seeds 10` would be other seeds, or in another order
        ({"margin": 0.02, "finals": ENOUGH}, MANY),  # 11 would do, and 12 there are: what is missing is luck
    ],
)
def test_an_inconclusive_study_names_the_seeds_that_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: dict[str, Any], message: str
) -> None:
    """d = .04, .06, .02 has an sd of .02: a margin of it takes 10 seeds, half of it 34."""
    study = write_study(tmp_path / "pair", **declared)
    assert [c.verdict for c in judge(study).analysis.comparisons] == ["inconclusive"]
    assert main(["analyze", str(study.path)]) == 0
    assert message in " ".join(capsys.readouterr().out.split())


def test_of_several_comparisons_the_one_that_needs_most_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "three", {**FINALS, "rloo": [0.46, 0.58, 0.55]}, margin=0.02)
    fixed = [c.fixed_n for c in judge(study).analysis.comparisons if c.verdict == "inconclusive"]
    needed = [each.seeds_for_margin for each in fixed if each is not None and each.seeds_for_margin is not None]
    assert len(needed) == 2
    assert min(needed) < max(needed)
    assert main(["analyze", str(study.path)]) == 0
    message = " ".join(capsys.readouterr().out.split())
    assert (f"--seeds {max(needed)} " in message) == (max(needed) <= 50)
    assert f"--seeds {min(needed)} " not in message


def test_a_margin_for_a_study_says_how_it_is_declared_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "pair")
    assert main(["analyze", str(study.path), "--margin", "0.05"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "which declares its own margin: leave the options out; its margin may be declared anew" in message
    assert 'with -b "compare.margin = 0.05" --grow' in message
    assert main(["analyze", str(study.path), "--alpha", "0.01"]) == 2
    assert "--grow" not in capsys.readouterr().err
