"""What would halve a study's interval, by the answers and seconds in its folder; and what the terminal makes of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli.main import main
from experiments.report import render
from experiments.report.sentences import halving_sentence
from experiments.results.halving import further_questions, halving, seconds_of_response
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics.allocation import Allocation, Cost, Halving, NoiseModel
from tests.experiments.report.studies import judge, write_study

QUESTIONS = 32


def noisy(path: Path, *, seeds: int = 4, sd: float = 0.0, last: int = 2, **declared: Any) -> StoredStudy:
    """Two arms, right half of the time, `last` samples a question at the three scored evaluations and 2 before.

    Runs of dapo are better by normal draws of `sd`. A run takes 100 s, of which 5 s a step are evaluations.
    """
    rng = np.random.default_rng(0)
    finals = {"grpo": [0.5] * seeds, "dapo": [0.5] * seeds}
    study = write_study(path, finals, margin=0.02, **declared)
    for arm, row in finals.items():
        for seed in range(len(row)):
            manifest = study.path / arm / f"seed={seed}" / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seconds": 100.0}))
            p = 0.5 + (sd * rng.normal() if arm == "dapo" else 0.0)
            for file in sorted((study.path / arm / f"seed={seed}" / "eval").iterdir()):
                record = json.loads(file.read_text())
                right = rng.random((QUESTIONS, last if record["step"] else 2)) < p
                record["summary"] = {"accuracy": right.mean(), "length": 8.0}
                record["questions"] = [
                    {
                        "index": q,
                        "prompt": f"{q}=",
                        "answer": "3",
                        "samples": [{"text": "3", "correct": bool(each), "length": 8} for each in row],
                    }
                    for q, row in enumerate(right)
                ]
                file.write_text(json.dumps(record))
    return load_study(path)


def test_noise_and_seconds_are_read_from_the_runs(tmp_path: Path) -> None:
    study = noisy(tmp_path / "pair", seeds=8)
    found = halving(study, judge(study))
    assert found is not None
    assert (found.now, found.multiple, found.level) == (Allocation(8, 6), 3, 0.95)
    # an answer has variance 1/4 in either arm; nothing else differs
    assert found.noise.within == pytest.approx(0.5 / QUESTIONS, rel=0.3)
    assert found.noise.between < found.noise.within / 6
    # 6 evaluations of 5 s, three of them written: 30 s for 3 x 32 x (2 + 1) responses
    response = 30 / (3 * QUESTIONS * 3)
    assert seconds_of_response(study.runs) == pytest.approx(response)
    assert found.cost.sample == pytest.approx(2 * QUESTIONS * response)
    assert found.cost.total(1, 6) == pytest.approx(2 * 100)
    assert judge(study).variances["dapo", "grpo"].total == pytest.approx(found.noise.sd(6) ** 2 / 8)


def test_more_samples_where_the_score_is_measured_are_counted(tmp_path: Path) -> None:
    study = noisy(tmp_path / "pair", last=16)
    found = halving(study, judge(study))
    assert found is not None
    assert found.now == Allocation(4, 48)
    assert found.noise.within == pytest.approx(0.5 / QUESTIONS, rel=0.15)
    assert seconds_of_response(study.runs) == pytest.approx(30 / (3 * QUESTIONS * 17))


def test_a_study_that_does_not_know_says_nothing(tmp_path: Path) -> None:
    other: list[dict[str, Any]] = [{"scalar": "auc"}, {"looks": [[3, 0.02], [4, 0.03]], "failures": "worst"}]
    for number, declared in enumerate(other):
        study = noisy(tmp_path / str(number), **declared)
        assert halving(study, judge(study)) is None
    two = noisy(tmp_path / "two", seeds=2)
    assert halving(two, judge(two)) is None
    untimed = noisy(tmp_path / "untimed")
    for file in untimed.path.glob("*/*/metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "seconds"}) + "\n" for row in rows))
    untimed = load_study(untimed.path)
    assert halving(untimed, judge(untimed)) is None
    whole = write_study(tmp_path / "one question")
    assert halving(whole, judge(whole)) is None


def test_the_terminal_names_samples_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = noisy(tmp_path / "pair", seeds=8)
    judgement = judge(study)
    assert [c.verdict for c in judgement.analysis.comparisons] == ["inconclusive"]
    asked = further_questions(study, judgement)
    assert asked is not None
    questions, models = asked
    assert models == 1
    assert questions % QUESTIONS == 0
    assert main(["analyze", str(study.path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    sentence = halving_sentence(halving(study, judgement))
    assert "samples a question (now 6) for +" in sentence
    assert f" {sentence} next: " in output
    growing = f'grpolab compare grpo dapo --seeds 3 -b "compare.reevaluate = {questions}" --grow'
    assert f"next: ask the models of the runs further questions, training nothing: {growing}" in output
    assert f"{sentence[1:]} (as these runs took it)" in render(study, judgement)

    for run in study.path.glob("*/seed=*"):
        for step in (2, 4):
            (run / "checkpoint" / "models").mkdir(parents=True, exist_ok=True)
            (run / "checkpoint" / "models" / f"step={step:06d}.safetensors").touch()
    fewer = further_questions(study, judgement)
    assert fewer is not None
    assert fewer[1] == 3
    assert questions / 3 <= fewer[0] <= questions, "three models answer each question"
    assert main(["analyze", str(study.path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    growing = f'-b "compare.reevaluate = {fewer[0]}" -b "compare.reevaluate_models = 3" --grow'
    assert growing in output


def test_where_runs_differ_it_takes_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = noisy(tmp_path / "pair", seeds=8, sd=0.2)
    found = halving(study, judge(study))
    assert found is not None
    assert found.cheapest is not None
    assert found.cheapest.seeds > 8
    assert main(["analyze", str(study.path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "seeds (now 8)" in output
    assert ("compare.reevaluate = " in output) == (found.cheapest.samples > 6)


def test_sentences_by_hand() -> None:
    few = NoiseModel(0.01, 4.0)
    both = Halving(NoiseModel(1.0, 4.0), Cost(100.0, 1.0), Allocation(5, 2), 0.95, multiple=1)
    assert both.cheapest is not None
    assert halving_sentence(both) == (
        f"to halve the interval: {both.cheapest.seeds} seeds (now 5) and {both.cheapest.samples} samples a question "
        f"(now 2) for {100 * both.more(both.cheapest):+.0f} % time, or 13 seeds alone for +160 %"
    )
    assert halving_sentence(Halving(few, Cost(100.0, 0.5), Allocation(5, 2), 0.95, multiple=3)) == (
        "to halve the interval: 9 samples a question (now 2) for +3 % time, or 13 seeds (now 5) for +160 %"
    )
    seeds = Halving(NoiseModel(1.0, 0.001), Cost(1.0, 1.0), Allocation(5, 2), 0.95, multiple=1)
    assert halving_sentence(seeds) == "to halve the interval: 13 seeds (now 5) for +160 % time"
    assert halving_sentence(None) == ""
    assert halving_sentence(Halving(NoiseModel(1, 4, fixed=9), Cost(1, 1), Allocation(5, 2), 0.95, multiple=1)) == ""
