"""`grpolab analyze RUN RUN`: two trained runs, question by question."""

import json
from pathlib import Path

import pytest

from experiments.cli.main import main


def write_run(folder: Path, correct: list[list[bool]], status: str = "finished", prompts: str = "abcdef") -> Path:
    """A run as training leaves it, with one evaluation."""
    (folder / "eval" / "test").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"status": status, "arm": folder.name, "seed": 0}))
    questions = [
        {"index": i, "prompt": prompt, "samples": [{"correct": c, "text": "", "length": 1} for c in row]}
        for i, (prompt, row) in enumerate(zip(prompts, correct, strict=False))
    ]
    record = {"step": 1, "split": "test", "total_sampled_tokens": 1, "summary": {}, "questions": questions}
    (folder / "eval" / "test" / "step=000001.json").write_text(json.dumps(record))
    return folder


RIGHT = [[True]] * 6
MIXED = [[True]] + [[False]] * 5


def test_two_runs_are_compared_by_question_with_the_caveat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_run(tmp_path / "a", RIGHT), write_run(tmp_path / "b", MIXED)
    assert main(["analyze", str(a), str(b)]) == 0
    output = capsys.readouterr().out
    assert "mean 1 vs 0.167 on 6 questions" in output
    assert "p = 0.0625 (exact McNemar, 5 questions to 0)" in output  # 2 / 2^5
    assert 'never "do the two algorithms differ"' in output
    assert main(["analyze", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["p_mcnemar"] == pytest.approx(0.0625)


def test_runs_that_are_no_pair_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", RIGHT)
    other = write_run(tmp_path / "other", RIGHT, prompts="abcxyz")
    unfinished = write_run(tmp_path / "unfinished", RIGHT, status="interrupted")
    for paths, message in (
        ([a, other], "were not evaluated on the same questions"),
        ([a, unfinished], "is not finished"),
        ([a], "1 run folders given: two runs are compared"),
    ):
        assert main(["analyze", *map(str, paths)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
