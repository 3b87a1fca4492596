"""Equal tuning: rates and the best of them by hand, seeds and questions apart, and the comparison that follows."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from core import GrpoLabError
from core.loop.recipe import Recipe
from experiments.cli.main import main
from experiments.cli.tune import conclude_tuning, tuning_of
from experiments.study.configs import CONFIGS
from experiments.study.declare import declare
from experiments.study.study import (
    Study,
    prepare_study,
)
from experiments.study.tuned import sensitivity, tuned_rates, tuning_seeds
from experiments.terminal import Console

EMBEDDED = str(CONFIGS / "embedded.gin")
ARMS = "compare.arms = {'grpo': [], 'mine': 'grpo.advantage = @group_mean'}"
TINY = f"""
include 'embedded.gin'
train.steps = 3
train.prompts = 2
train.group_size = 4
train.max_tokens = 24
evaluation.every = 1
evaluation.questions = 2
{ARMS}
compare.name = 'tiny'
tune.rates = [1e-3, 3e-4]
"""


def study(*bindings: str, seeds: tuple[int, ...] = (0, 1)) -> Study:
    return prepare_study([EMBEDDED], bindings, seeds)


def test_the_best_rate_by_hand() -> None:
    """Means 0.5 and 0.6 for a; equal means for b, so the lower rate; c's 0.2 failed once, at the floor of 0."""
    runs = {arm: {0.1: f"{arm}1", 0.2: f"{arm}2", 0.3: f"{arm}3"} for arm in "abc"}
    scores = {
        "a1": {7: 0.4, 8: 0.6},
        "a2": {7: 0.5, 8: 0.7},
        "a3": {7: 0.0, 8: 0.9},
        "b1": {7: 0.5, 8: 0.5},
        "b2": {7: 0.4, 8: 0.6},
        "b3": {7: 0.0, 8: 0.0},
        "c1": {7: 0.1, 8: 0.1},
        "c2": {7: 0.9, 8: 0.0},
        "c3": {7: 0.5, 8: 0.5},
    }
    result = sensitivity(scores, runs, [7, 8])
    assert result["best"] == {"a": 0.2, "b": 0.1, "c": 0.3}
    assert result["at_the_edge"] == ["b", "c"]
    assert result["table"]["a"]["0.2"] == {"mean": pytest.approx(0.6), "scores": {"7": 0.5, "8": 0.7}}
    assert result["table"]["c"]["0.2"] == {"mean": pytest.approx(0.45), "scores": {"7": 0.9, "8": 0.0}}


def test_seeds_of_tuning_are_a_range_of_their_own() -> None:
    assert tuning_seeds((0, 1, 2), "3") == (1000, 1001, 1002)
    assert tuning_seeds((1004, 1007), "1004,1007") == (1004, 1007)
    with pytest.raises(GrpoLabError, match="seeds of tuning start at 1000"):
        tuning_seeds((0, 1000), "0,1000")


def test_every_arm_is_tuned_alike_in_the_recipe_of_the_comparison() -> None:
    declared = study(ARMS, "compare.name = 'x'", "compare.metric = 'test/greedy_accuracy'")
    tuning = tuning_of(declared, [1e-4, 1e-3], [1000, 1001])
    assert tuning.settings.name == "x-tune"
    assert tuning.settings.metric == "tune/greedy_accuracy"
    rates = {label: recipe.optimizer.learning_rate for label, recipe in tuning.recipes.items()}
    assert rates == {
        "grpo,rate=0.0001": 1e-4,
        "grpo,rate=0.001": 1e-3,
        "mine,rate=0.0001": 1e-4,
        "mine,rate=0.001": 1e-3,
    }
    recipe: Recipe = tuning.recipes["mine,rate=0.001"]
    assert recipe.evaluation.split == "tune"
    assert recipe.variant == declared.recipes["mine"].variant
    assert recipe.steps == declared.recipes["mine"].steps


@pytest.mark.parametrize("early", ["compare.race = True", "compare.looks = ((3, 0.01), (10, 0.04))"])
def test_a_study_that_may_end_early_is_tuned_like_any_other(
    early: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "early.gin").write_text(f"{TINY}\ncompare.seeds = 10\n{early}\n")
    assert main(["tune", "-c", "early.gin", "--seeds", "2", "--dry-run", "--no-probe"]) == 0
    assert "runs    4 arms x 2 seeds = 8" in capsys.readouterr().out


RATES = (1e-4, 1e-3)
ENDED = {"status": "finished"}
FAILED = {"status": "failed", "failure": "algorithmic", "error": "the loss was nan"}
LOST = {"status": "failed", "failure": "infrastructure", "error": "the disk is full"}


def tuned(tmp_path: Path, odd: dict[str, Any] | None, *bindings: str) -> tuple[int, dict[str, Any], str]:
    """Tune one arm at two rates and two seeds, all .5 at 1e-4 and .9 at 1e-3; the last run is as `odd` has it."""
    declared = study("compare.arms = {'grpo': []}", "compare.name = 'x'", *bindings)
    tuning, folder = tuning_of(declared, RATES, [1000, 1001]), tmp_path / "x-tune"
    declare(tuning, folder, "grpolab tune -c x.gin")
    for rate, score in zip(RATES, (0.5, 0.9), strict=True):
        for seed in (1000, 1001):
            state = odd if (rate, seed) == (1e-3, 1001) else ENDED
            if state is not None:
                write_run(folder, tuning, f"grpo,rate={rate!r}", seed, score, state)
    console = Console(record=True, width=200, file=io.StringIO())
    code = conclude_tuning(declared, tuning, RATES, folder, console)
    return code, json.loads((folder / "tuned.json").read_text()), console.export_text()


def write_run(folder: Path, tuning: Study, label: str, seed: int, score: float, state: dict[str, Any]) -> None:
    """A run as training leaves it, without the training."""
    run = folder / label / f"seed={seed}"
    (run / "eval" / "tune").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"arm": label, "seed": seed, **state}))
    for step in (0, 30, 35, 40):
        record = {"step": step, "split": "tune", "total_sampled_tokens": 10, "summary": {"accuracy": score}}
        (run / "eval" / "tune" / f"step={step:06d}.json").write_text(json.dumps(record))


def test_the_rate_with_the_highest_mean_is_written(tmp_path: Path) -> None:
    code, record, _ = tuned(tmp_path, ENDED)
    assert code == 0
    assert record["best"] == {"grpo": 1e-3}
    assert record["table"]["grpo"]["0.001"]["mean"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (None, r"grpo,rate=0.001 seed 1001 \(pending\)"),
        ({"status": "running"}, r"grpo,rate=0.001 seed 1001 \(pending\)"),
        (LOST, r"grpo,rate=0.001 seed 1001 \(lost: the disk is full\)"),
    ],
)
def test_no_rate_is_chosen_before_every_run_has_ended(tmp_path: Path, odd: dict[str, Any] | None, message: str) -> None:
    """With .9 at one seed of two, 1e-3 must not lose to .5 because the machine, or nobody yet, ran the other seed."""
    with pytest.raises(GrpoLabError, match=f"1 of 4 tuning runs.*{message}.*the same command"):
        tuned(tmp_path, odd)
    assert not (tmp_path / "x-tune" / "tuned.json").exists()


@pytest.mark.parametrize("policy", ["worst", "intersect"])
def test_a_rate_at_which_a_run_fails_loses_by_its_floor(tmp_path: Path, policy: str) -> None:
    """(.9 + 0) / 2 = .45 is below .5, whatever the comparison does with its own failures."""
    _, record, shown = tuned(tmp_path, FAILED, f"compare.failures = '{policy}'")
    assert record["best"] == {"grpo": 1e-4}
    assert record["table"]["grpo"]["0.001"] == {"mean": pytest.approx(0.45), "scores": {"1000": 0.9, "1001": 0.0}}
    assert "grpo,rate=0.001 seed 1001 failed in training and counts as 0" in shown


def test_tuning_and_test_questions_are_apart() -> None:
    task = study(ARMS).recipes["grpo"].task
    tune, test = ({task.problem(split, 0, i).prompt for i in range(200)} for split in ("tune", "test"))
    assert not tune & test


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["ablate.axes = {'adamw.learning_rate': [1e-4, 1e-3]}"], "the arms bind adamw.learning_rate themselves"),
        ([ARMS, "evaluation.split = 'tune'", "compare.metric = 'tune/accuracy'"], "rates are tuned on that split"),
    ],
)
def test_what_cannot_be_tuned(bindings: list[str], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        tuning_of(study(*bindings), [1e-4, 1e-3], [1000])


def record_of(declared: Study, **changes: Any) -> dict[str, Any]:
    return {
        "best": {"grpo": 1e-3, "mine": 1e-4},
        "arms": {arm.label: list(arm.bindings) for arm in declared.settings.arms},
        "config": declared.config.splitlines(),
        "seeds": [1000, 1001],
    } | changes


def test_a_comparison_takes_the_best_rate_of_each_arm(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(record_of(study(ARMS))))
    tuned = study(ARMS, f"compare.tuned = '{path}'")
    assert {label: recipe.optimizer.learning_rate for label, recipe in tuned.recipes.items()} == {
        "grpo": 1e-3,
        "mine": 1e-4,
    }
    assert tuned.config == study(ARMS).config
    assert tuned.declaration["tuned"] == str(path)
    assert tuned.declaration["arms"]["mine"] == ["grpo.advantage = @group_mean", "adamw.learning_rate = 0.0001"]
    assert tuned.confounded() == [], "what is tuned equally is no second respect"
    declare(tuned, tmp_path / "study", "test")
    assert json.loads((tmp_path / "study" / "study.json").read_text())["tuned"]["best"] == {"grpo": 1e-3, "mine": 1e-4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1000]}, "was tuned on seed 1 too.*give --seeds below 1000"),
        ({"best": {"grpo": 1e-3, "min": 1e-4}}, "has no arm 'mine': did you mean min"),
        ({"arms": {"grpo": [], "mine": []}}, "arm 'mine' has other bindings than when it was tuned"),
        ({"config": []}, "is of another recipe"),
    ],
)
def test_what_was_tuned_otherwise_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(record_of(study(ARMS), **changes)))
    with pytest.raises(GrpoLabError, match=message):
        study(ARMS, f"compare.tuned = '{path}'")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match="no such file; grpolab tune writes it"):
        tuned_rates(str(tmp_path / "none.json"), {}, [], [])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(GrpoLabError, match=r"has no 'best': it is not a tuned.json"):
        tuned_rates(str(tmp_path / "other.json"), {}, [], [])


def test_from_rates_to_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gin").write_text(TINY)
    assert main(["tune", "-c", "tiny.gin", "--seeds", "1", "--workers", "1"]) == 0
    assert "tiny-tune/tuned.json" in capsys.readouterr().out
    folder = tmp_path / "runs" / "tiny-tune"
    record = json.loads((folder / "tuned.json").read_text())
    assert record["rates"] == [3e-4, 1e-3]
    assert record["seeds"] == [1000]
    assert set(record["best"]) == {"grpo", "mine"}
    for arm, by_rate in record["table"].items():
        for rate, entry in by_rate.items():
            evaluations = sorted(folder.glob(f"{arm},rate={rate}/seed=1000/eval/*/*.json"))
            assert {path.parent.name for path in evaluations} == {"tune"}
            summaries = [json.loads(path.read_text())["summary"]["accuracy"] for path in evaluations]
            assert entry["scores"]["1000"] == pytest.approx(sum(summaries[1:]) / 3), "the mean after step 0"
        assert record["best"][arm] == max(record["rates"], key=lambda rate: by_rate[repr(rate)]["mean"])
    compare = ["compare", "-c", "tiny.gin", "-b", "compare.tuned = 'runs/tiny-tune/tuned.json'", "--dry-run"]
    assert main([*compare, "--no-probe", "--seeds", "3"]) == 0
    assert f"adamw.learning_rate = {record['best']['mine']!r}" in capsys.readouterr().out
    assert main([*compare, "--seeds", "1000,1001,1002"]) == 2
    assert "was tuned on seed 1000 too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune"], "tune needs a study"),
        (["tune", "-c", "demo"], "tune.rates is not set"),
        (["tune", "-c", "demo", "--rates", "1e-4"], r"tune.rates = \[0.0001\]: must be two or more different numbers"),
        (["tune", "-c", "demo", "--rates", "1e-4,-1"], "must be a list of numbers above 0"),
        (["tune", "-c", "demo", "--rates", "1e-4,1e-4"], "must be two or more different numbers"),
        (["tune", "-c", "demo", "--rates", "1e-4,x"], "gin: "),
        (["tune", "-c", "demo", "--rates", "1e-4,1e-3", "--seeds", "0,1"], "seeds of tuning start at 1000"),
    ],
)
def test_mistakes_are_one_readable_message(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
