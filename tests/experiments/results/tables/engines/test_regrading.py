"""Answers that a trainer kept, graded anew: strictly and in any form, with the verdicts of these grades."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import GrpoLabError
from experiments.cli.main import main
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import read_tables

BOXED, BARE, WRONG = "so it is \\boxed{4}", "the answer is 4", "it is \\boxed{5}"
# of six answers: right in a box, right without one, wrong
COUNTS = {
    ("grpo", 0): (2, 1, 3),
    ("grpo", 1): (3, 0, 3),
    ("grpo", 2): (1, 2, 3),
    ("rloo", 0): (4, 1, 1),
    ("rloo", 1): (5, 0, 1),
    ("rloo", 2): (3, 2, 1),
}


def responses(counts: tuple[int, int, int]) -> list[str]:
    return [text for text, count in zip((BOXED, BARE, WRONG), counts, strict=True) for _ in range(count)]


def write_verl(folder: Path, **more: Any) -> None:
    """verl gave every answer the score 1."""
    for (arm, seed), counts in COUNTS.items():
        run = folder / f"{arm}_s{seed}" / "validation"
        run.mkdir(parents=True)
        rows = [
            {"input": "2 + 2?", "output": r, "gts": "4", "score": 1.0, "step": 9, **more} for r in responses(counts)
        ]
        (run / "9.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_trl(folder: Path, **more: Any) -> None:
    """Conversations, in the folder of completions."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for (arm, seed), counts in COUNTS.items():
        run = folder / f"{arm}-s{seed}" / "completions"
        run.mkdir(parents=True)
        rows = [
            {
                "step": 10,
                "prompt": [{"role": "user", "content": "2 + 2?"}],
                "completion": [{"role": "assistant", "content": response}],
                "accuracy_reward": 1.0,
                "advantage": 0.0,
                **more,
            }
            for response in responses(counts)
        ]
        parquet.write_table(pyarrow.Table.from_pylist(rows), run / "completions_00010.parquet")


def shares(folder: Path, metric: str | None) -> dict[tuple[str, int], float]:
    table = read_tables([folder], metric=metric, regrade="math_answer")
    (name,) = table.metrics
    assert {tuple(run.curves[name].answers or ()) for run in table.runs} == {(6.0,)}
    return {(run.arm, run.seed): run.curves[name].values[0] for run in table.runs}


def test_answers_of_verl_are_graded_strictly_and_in_any_form(tmp_path: Path) -> None:
    write_verl(tmp_path)
    assert shares(tmp_path, None) == {run: boxed / 6 for run, (boxed, _, _) in COUNTS.items()}
    lenient = shares(tmp_path, "validation/regraded/*/lenient")
    assert lenient == {run: (boxed + bare) / 6 for run, (boxed, bare, _) in COUNTS.items()}
    notes = read_tables([tmp_path], regrade="math_answer").notes
    folder = tmp_path / "grpo_s0" / "validation"
    assert f"{folder}: math_answer and the trainer's own score differ on 4 of 6 answers." in notes


def test_completions_of_trl_are_graded_by_the_solution_that_was_logged_beside(tmp_path: Path) -> None:
    write_trl(tmp_path, solution="4")
    assert shares(tmp_path, None) == {run: boxed / 6 for run, (boxed, _, _) in COUNTS.items()}


def test_the_command_compares_the_strict_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_verl(tmp_path)
    assert main(["analyze", str(tmp_path), "--baseline", "grpo", "--regrade", "math_answer", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metric"] == "validation/regraded/math_answer"
    assert printed["comparisons"][0]["mean_difference"] == pytest.approx(1 / 3)


def test_what_cannot_be_graded_anew_is_refused(tmp_path: Path) -> None:
    write_trl(tmp_path / "trl")
    with pytest.raises(TableError, match=r"completions_00010\.parquet: no gold answer beside the answers .*log_extra"):
        read_tables([tmp_path / "trl"], regrade="math_answer")
    write_verl(tmp_path / "verl", gts=None)
    with pytest.raises(TableError, match=r"9\.jsonl: no gold answer beside the answers"):
        read_tables([tmp_path / "verl"], regrade="math_answer")
    with pytest.raises(GrpoLabError, match=r"--regrade math_anwser: no such reward; did you mean math_answer"):
        read_tables([tmp_path / "verl"], regrade="math_anwser")
    (tmp_path / "none").mkdir()
    with pytest.raises(TableError, match="--regrade math_answer finds no answers here: verl keeps them with"):
        read_tables([tmp_path / "none"], regrade="math_answer")
