"""What a study will cost and can detect: figures by hand, and what is read from runs."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import GrpoLabError
from core.loop.recipe import Recipe
from experiments.planning.cost import (
    Pace,
    earlier_paces,
    earlier_spread,
    final_samples,
    power_of,
    read_pace,
    token_bound,
)
from experiments.planning.dry_run import clock, power_lines, size
from experiments.statistics.allocation import Allocation, optimal_samples
from experiments.study.configs import CONFIGS
from experiments.study.declare import declare
from experiments.study.identity import facts
from experiments.study.study import (
    Study,
    prepare_study,
)


def study(*bindings: str, seeds: int = 8) -> Study:
    return prepare_study([str(CONFIGS / "embedded.gin")], bindings, range(seeds))


def recipe(*bindings: str) -> Recipe:
    return study("compare.arms = {'a': []}", *bindings).recipes["a"]


def test_a_pace_by_hand() -> None:
    """40 steps of 2 + 1 seconds; 9 tests of the first suite (0, 5, ..., 40) and 2 of the other, 384 responses each."""
    measured = recipe()
    pace = Pace(measured, "hand", sample=2.0, update=1.0, response=3 / 384, start=5.0, tokens=100.0, learned=True)
    assert pace.seconds(measured) == 5 + 40 * 3 + 11 * 3
    assert pace.sampled(measured) == 4000
    half = recipe("train.group_size = 4", "train.epochs = 3")
    assert pace.seconds(half) == 5 + 40 * (2 + 3 * 1) / 2 + 11 * 3
    assert pace.sampled(half) == 2000
    # 1,000 tokens pay for 10 steps: tests of the first suite at 0, 5 and 10, of the other at 0 and 10
    budgeted = recipe("train.token_budget = 1000")
    assert pace.seconds(budgeted) == 5 + 10 * 3 + 5 * 3
    assert pace.sampled(budgeted) == 1000
    # the last three tests of the first suite take 16 samples a question instead of 2, so 14 x 128 responses more
    assert pace.seconds(recipe("evaluation.final_samples = 48")) == 5 + 40 * 3 + 11 * 3 + 3 * 14


def test_a_pace_is_read_from_metrics(tmp_path: Path) -> None:
    made = replace(recipe(), steps=2)
    rows = [
        {
            "step": 1,
            "sampled_tokens": 100,
            "trained_tokens": 9,
            "seconds": {"sample": 1.0, "fill": 0.5, "update": 2.0, "evaluate": 0.0},
        },
        # no group was left to train on
        {"step": 2, "sampled_tokens": 300, "trained_tokens": 0, "seconds": {"sample": 2.0, "evaluate": 8.0}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pace = read_pace(tmp_path, made)
    assert (pace.sample, pace.update, pace.response, pace.tokens) == (1.75, 1.0, 8 / 768, 200)
    assert pace.learned
    (tmp_path / "metrics.jsonl").write_text(json.dumps(rows[1]) + "\n")
    assert not read_pace(tmp_path, made).learned
    with pytest.raises(GrpoLabError, match=r"metrics.jsonl cannot be read"):
        read_pace(tmp_path / "none", made)


def test_the_most_tokens_by_hand() -> None:
    assert token_bound(recipe()) == 40 * 16 * 8 * 56
    assert token_bound(recipe("train.variant = @dapo()")) == 40 * 16 * 8 * 56 * 10
    assert token_bound(recipe("train.variant = @remax()")) == 40 * 16 * (8 + 1) * 56
    assert token_bound(recipe("train.token_budget = 1000")) == 1000 + 16 * 8 * 56


def test_power_counts_the_comparisons_of_the_family() -> None:
    arms = "compare.variants = [@grpo, @rloo, @dapo]"
    two, three = power_of(study(arms)), power_of(study(arms, "compare.family = 'all'"))
    assert two is not None
    assert three is not None
    assert (two.comparisons, two.alpha) == (2, 0.025)
    assert three.comparisons == 3
    assert three.alpha == pytest.approx(0.05 / 3)
    assert two.detectable is not None
    assert two.seeds_for(two.detectable) == 8
    assert two.seeds_for(two.detectable * 0.99) == 9
    assert list(two.needed) == [0.5, 1.0, 1.5]
    assert two.needed[0.5] > two.needed[1.0] > two.needed[1.5] >= 3
    few = power_of(study(arms, seeds=2))
    assert few is not None
    assert few.detectable is None
    assert power_of(study("compare.variants = [@grpo]")) is None


def write_run(folder: Path, made: Study, label: str, seed: int, scores: list[float], status: str = "finished") -> None:
    """A run of a study as training leaves it, without the training."""
    arm = next(arm for arm in made.settings.arms if arm.label == label)
    run = folder / label / f"seed={seed}"
    (run / "eval" / "test").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"status": status, "seed": seed, **facts(made.config, arm, seed)}))
    row = {
        "step": 1,
        "sampled_tokens": 10,
        "trained_tokens": 10,
        "total_sampled_tokens": 10,
        "seconds": {"sample": 1.0, "evaluate": 0.0},
    }
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    for step, score in enumerate(scores):
        record = {"step": step, "split": "test", "total_sampled_tokens": 10, "summary": {"accuracy": score}}
        (run / "eval" / "test" / f"step={step:06d}.json").write_text(json.dumps(record))


def test_finished_runs_of_the_same_recipe_set_the_pace_whatever_the_study(tmp_path: Path) -> None:
    arms = "compare.variants = [@grpo, @rloo]"
    other = study("compare.arms = {'x': 'train.variant = @rloo()'}", "compare.name = 'other'")
    write_run(tmp_path / "other", other, "x", 0, [0.0])
    write_run(tmp_path / "cut", other, "x", 0, [0.0], status="interrupted")
    write_run(tmp_path / "damaged", study(arms), "grpo", 0, [0.0])
    folder = tmp_path / "damaged" / "grpo" / "seed=0"
    folder.rename(folder.with_name("seed=0.corrupt-1"))  # set aside
    (tmp_path / "broken" / "a" / "seed=0").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "seed=0" / "manifest.json").write_text("{")
    paces = earlier_paces(study(arms), tmp_path)
    assert list(paces) == ["rloo"]
    assert (paces["rloo"].tokens, paces["rloo"].sample) == (10, 1.0)
    assert earlier_paces(study(arms, "adamw.learning_rate = 1e-4"), tmp_path) == {}


def test_the_spread_of_an_earlier_study_by_hand(tmp_path: Path) -> None:
    """Differences 0.1, 0.2, 0.3 have the sd 0.1."""
    made = study("compare.variants = [@grpo, @rloo]", seeds=3)
    assert earlier_spread(made, tmp_path) is None
    folder = tmp_path / "study"
    declare(made, folder, "test")
    for seed, difference in enumerate((0.1, 0.2, 0.3)):
        write_run(folder, made, "grpo", seed, [0.5, 0.4, 0.4, 0.4])
        write_run(folder, made, "rloo", seed, [0.5, *[0.4 + difference] * 3])
    spread = earlier_spread(made, tmp_path)
    assert spread is not None
    assert spread.sd == pytest.approx(0.1)
    assert (spread.pairs, spread.seeds) == (1, 3)
    assert earlier_spread(study("compare.variants = [@grpo, @rloo]", "chain_sums.max_terms = 4"), tmp_path) is None
    assert earlier_spread(study("compare.variants = [@grpo, @dapo]"), tmp_path) is not None
    # with other samples a question it is another spread, and by how much is not known of these runs
    assert earlier_spread(study("compare.variants = [@grpo, @dapo]", "evaluation.samples = 4"), tmp_path) is None


def answered(folder: Path, seed: int) -> None:
    """Give every evaluation of a run 64 questions with two answers, right or wrong by chance, and each step 12 s."""
    rng = np.random.default_rng(seed)
    for file in sorted((folder / "eval" / "test").iterdir()):
        record = json.loads(file.read_text())
        right = rng.random((64, 2)) < 0.5
        record["summary"]["accuracy"] = right.mean()
        record["questions"] = [{"samples": [{"correct": bool(each)} for each in row]} for row in right]
        file.write_text(json.dumps(record))
    row = json.loads((folder / "metrics.jsonl").read_text())
    (folder / "metrics.jsonl").write_text(json.dumps({**row, "seconds": {"sample": 400.0, "evaluate": 57.6}}) + "\n")


def test_a_dry_run_tells_what_more_samples_would_do(tmp_path: Path) -> None:
    """Three evaluations of 64 x (2 + 1) responses in 57.6 s: 0.1 s each, 6.4 s for a sample of every question."""
    made = study("compare.variants = [@grpo, @rloo]", seeds=4)
    declare(made, tmp_path / "study", "test")
    for place, (arm, seed) in enumerate(itertools.product(("grpo", "rloo"), range(4))):
        write_run(tmp_path / "study", made, arm, seed, [0.5] * 4)
        answered(tmp_path / "study" / arm / f"seed={seed}", place)
    spread = earlier_spread(made, tmp_path)
    assert spread is not None
    assert spread.known is not None
    assert spread.known.now == Allocation(4, 6)
    assert spread.known.cost.sample == pytest.approx(2 * 6.4)
    assert spread.known.cost.total(1, 6) == pytest.approx(2 * 457.6)
    within, between = spread.known.noise.within, spread.known.noise.between
    assert spread.sd == pytest.approx(math.sqrt(between + within / 6))
    assert spread.at(48).sd == pytest.approx(math.sqrt(between + within / 48))
    assert spread.at(6) is spread
    assert spread.at(None) is spread

    text = "\n".join(power_lines(made, tmp_path))
    best = 3 * round(optimal_samples(spread.known.noise, spread.known.cost) / 3)
    assert "of the variance of a difference there was sampled answers, 6 a question; now 6 are declared" in text
    assert f"the smallest interval for the time takes evaluation.final_samples = {best}: one sd of " in text
    grown = study("compare.variants = [@grpo, @rloo]", f"evaluation.final_samples = {best}")
    text = "\n".join(power_lines(grown, tmp_path))
    assert f"with {best} samples a question, as declared now, it would have been {spread.at(best).sd:.3g}" in text
    assert "which is the smallest interval for the time" in text
    budget = study("compare.variants = [@grpo, @rloo]", "train.token_budget = 1000")
    assert "samples" not in "\n".join(power_lines(budget, tmp_path))


def test_without_an_earlier_study_the_answers_bound_what_they_do(tmp_path: Path) -> None:
    """√(2 · 1/4 / (128 · 6)) = 0.0255 and √(2 · 1/4 / (128 · 48)) = 0.00902."""
    arms = "compare.variants = [@grpo, @rloo]"
    assert (final_samples(recipe()), final_samples(recipe("train.token_budget = 1000"))) == (6, None)
    text = "\n".join(power_lines(study(arms), tmp_path))
    assert (
        "samples 128 questions x 6 samples behind a score: sampled answers alone make one sd of 0.026 at most" in text
    )
    assert "one sd of 0.009 at most" in "\n".join(power_lines(study(arms, "evaluation.final_samples = 48"), tmp_path))


def test_figures_in_words() -> None:
    assert clock(3723.4) == "1:02:03"
    assert clock(59.6) == "0:01:00"
    assert size(3 * 2**20) == "3 MiB"
    assert size(1.5 * 2**30) == "1.5 GiB"
