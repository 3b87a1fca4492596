"""pass@k before and after training, as the report shows it."""

import json
from pathlib import Path

import pytest

from experiments.report import render
from experiments.results.stored_study import load_study
from tests.experiments.report.studies import write_study


def answer(folder: Path, step: int, right: int, samples: int = 4) -> None:
    """Give the one question of an evaluation so many right samples."""
    file = next(folder.glob(f"eval/**/step={step:06d}.json"))
    record = json.loads(file.read_text())
    record["questions"][0]["samples"] = [{"text": "", "correct": i < right, "length": 1} for i in range(samples)]
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("samples", [4, 3])
def test_pass_at_k_of_the_model_before_training_and_of_every_arm(tmp_path: Path, samples: int) -> None:
    write_study(tmp_path / "study")
    for folder in (tmp_path / "study").glob("*/seed=*"):
        answer(folder, 0, 1, samples)
        answer(folder, 6, 2 if folder.parent.name == "dapo" else 1, samples)
    page = render(load_study(tmp_path / "study"), None)
    label = "pass@k: before training 25 % at k = 1 and 100 % at k = 4; grpo 25 % and 100 %; dapo 50 % and 100 %."
    assert (label in page) == (samples == 4)  # three samples say too little


def test_more_samples_at_the_end_are_read_as_far_as_there_were_at_first(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    for folder in (tmp_path / "study").glob("*/seed=*"):
        answer(folder, 0, 1, 4)
        answer(folder, 6, 2, 8)
    page = render(load_study(tmp_path / "study"), None)
    assert "before training 25 % at k = 1 and 100 % at k = 4; grpo 25 % and 79 %;" in page  # 1 - C(6, 4) / C(8, 4)


def test_ways_of_answering_are_drawn(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    for file in (tmp_path / "study").glob("*/seed=*/eval/**/step=*.json"):
        record = json.loads(file.read_text())
        record["summary"]["shows"] = {"step_by_step": 0.25, "backtracking": None}
        file.write_text(json.dumps(record))
    study = load_study(tmp_path / "study")
    assert study.curve("grpo", 0, "test/shows/step_by_step")[1].tolist() == [0.25] * 4
    page = render(study, None)
    assert "Step by step, not judged" in page
    assert "Backtracking, not judged" not in page  # never measured
