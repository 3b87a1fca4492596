"""What a decision costs: noise by hand, factors that multiply to the ratio, and seconds of all descendants."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.maintenance.benchmarks import verdict_cost
from experiments.maintenance.benchmarks.verdict_cost import Noise, Plan, answers, factors, minutes, noise_of
from experiments.maintenance.benchmarks.whole_runs import Cost, spent
from experiments.results.stored_run import StoredRun
from experiments.results.stored_study import StoredStudy

OURS = Cost(start=12, run=6, wall_start=12, wall_run=6, shared=True)
THEIRS = Cost(start=6, run=18, wall_start=6, wall_run=18, shared=False)


def test_the_noise_by_hand() -> None:
    """Differences 1, 1, 4 have variance 3; apart, the arms have variances 7/3 and 31/3."""
    scores = {"base": np.array([0.0, 1.0, 3.0]), "mine": np.array([1.0, 2.0, 7.0])}
    tables = {arm: np.broadcast_to(row[:, None, None], (3, 2, 2)) for arm, row in scores.items()}
    assert vars(noise_of(tables, "base", paired=True)) == pytest.approx({"variance": 3, "answers": 0})
    assert vars(noise_of(tables, "base", paired=False)) == pytest.approx({"variance": 38 / 3, "answers": 0})


def test_what_the_answers_allow_by_hand() -> None:
    """Samples 1 and 0 on each of two questions vary by 1/2: their mean by 1/4, and that of the questions by 1/8."""
    base, mine = np.zeros((2, 2, 2)), np.tile([1.0, 0.0], (2, 2, 1))
    assert noise_of({"base": base, "mine": mine}, "base", paired=True).answers == pytest.approx(1 / 8)


def test_core_minutes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seeds of two arms are ten runs: ours with one start-up, theirs with ten."""
    monkeypatch.setattr(verdict_cost, "seeds_for", lambda *_, **__: 4.2)
    noise = Noise(1e-4, 0.0)
    assert minutes(Plan("ours", 8, 3, True, OURS), noise, equivalent=False) == pytest.approx((12 + 60) / 60)
    assert minutes(Plan("theirs", 2, 1, False, THEIRS), noise, equivalent=False) == pytest.approx(10 * 24 / 60)


@pytest.mark.parametrize("equivalent", [False, True])
def test_the_factors_multiply_to_the_ratio(equivalent: bool) -> None:
    ours = Plan("ours", 8, 3, True, OURS), Noise(0.8e-4, 0.4e-4)
    theirs = Plan("theirs", 2, 1, False, THEIRS), Noise(6e-4, 0.0)
    found = factors(ours, theirs, equivalent=equivalent)
    assert found["variance of a seed's difference"] == pytest.approx(7.5)
    assert found["CPU seconds of a run, start-up apart"] == pytest.approx(3)
    whole, part = (minutes(*each, equivalent=equivalent) for each in (theirs, ours))
    assert math.prod(found.values()) == pytest.approx(whole / part)


def test_the_first_samples_of_the_last_evaluations_are_taken() -> None:
    """Of four evaluations of two questions the last two, of which the plan takes two samples of three."""
    tables = [value + np.array([[0.0, 0.1, 9.0]] * 2) for value in (5.0, 6.0, 1.0, 2.0)]
    evals = [{"split": "test", "numbers": {"accuracy": table}} for table in tables]
    runs = tuple(StoredRun("a", seed, "finished", Path("a"), {}, [], evals) for seed in (0, 1))
    study = StoredStudy(Path(), "s", {}, {}, runs, {})
    assert answers(study, Plan("", 2, 2, True, OURS))["a"] == pytest.approx(np.tile([1.5, 1.6], (2, 2, 1)))
    for plan in (Plan("", 4, 2, True, OURS), Plan("", 2, 2, True, OURS, "adjusted_accuracy")):
        with pytest.raises(SystemExit, match="fewer than"):
            answers(study, plan)


BUSY = "import time; begin = time.process_time()\nwhile time.process_time() < begin + {}: pass"
ORPHAN = "import subprocess, sys; print(input(), flush=True); subprocess.Popen([sys.executable, '-c', {!r}])"


@pytest.mark.skipif(sys.platform != "linux", reason="counted by a feature of Linux")
def test_seconds_are_those_of_all_descendants_orphans_too() -> None:
    """A grandchild is busy for a second of its own, and outlives its parent."""
    (cpu, _), printed = spent([sys.executable, "-c", ORPHAN.format(BUSY.format(1.0))], "hello")
    assert cpu > 1.0
    assert printed == ["hello"]
