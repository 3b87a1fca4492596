"""Time left follows from the share of its budget that each run has spent, whatever the budget is counted in."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.parts.registry import config
from experiments.launchers.progress import Progress
from experiments.results.scored import Scores
from experiments.study.configs import (
    CONFIGS,
    build,
)
from tests.experiments.report.studies import write_study


def record(step: int, share: float) -> dict[str, object]:
    return {"step": step, "budget_share": share, "reward": 0.5, "length": 9.0, "evaluation": {"test": 0.75}}


def test_time_left_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four runs are done; after 30 seconds one more is, and a resumed one went from a half to three quarters."""
    clock = iter([0.0, 30.0, 30.0])
    monkeypatch.setattr("experiments.launchers.progress.time.monotonic", lambda: next(clock))
    output = StringIO()
    progress = Progress(4, 2, Console(file=output, width=200))
    progress.step("a", 0, record(1, 0.25))
    progress.step("b", 0, record(3, 0.75))  # steps before the third were made another time
    progress.end("a", 0, "finished")
    assert output.getvalue() == "[3/4] a seed 0: test 0.750  time left 0:06\n"  # 30 s for 1.25 runs, 0.25 to go
    progress.end("b", 0, "failed")
    assert output.getvalue().endswith("b seed 0: failed\n")
    assert progress._time_left() == "time left 0:00"


def test_the_line_of_a_finished_run_has_the_number_it_is_judged_by(tmp_path: Path) -> None:
    """From .3 over .48 and .49 to .51: the table has .49, the mean of the last three, and so has the line."""
    study = write_study(tmp_path / "pair", {"grpo": [0.49]}, metric="test/accuracy")
    output = StringIO()
    scores = Scores(study.path, "test/accuracy", budget=6)
    progress = Progress(1, 0, Console(file=output, width=200), scores)
    progress.step("grpo", 0, record(1, 0.25))
    progress.end("grpo", 0, "finished")
    first, last = output.getvalue().splitlines()
    assert first == "grpo seed 0: test/accuracy 0.300 before training"
    scores_text = "test/accuracy 0.300 before training, 0.490 (mean of steps 2, 4, 6)"
    assert last.startswith(f"[1/1] grpo seed 0: {scores_text}  ")
    assert study.scores()["grpo"][0] == pytest.approx(0.49)
    assert Scores(study.path, "test/accuracy", budget=4).end("grpo", 0).endswith("(mean of steps 0, 2, 4)")
    by_area = Scores(study.path, "test/accuracy", "auc").end("grpo", 0)
    assert by_area.endswith("0.457 (mean height of its curve)")  # (.390 + .485 + .495) / 3
    assert Scores(tmp_path / "elsewhere", "test/accuracy").end("grpo", 0) == ""


@pytest.mark.parametrize(
    ("binding", "spent", "share"),
    [
        ("train.steps = 8", {}, 0.25),
        ("train.token_budget = 1000", {"sampled_tokens": 600}, 0.6),
        ("train.seconds_budget = 10.0", {"seconds": 9.0}, 0.9),
        ("train.seconds_budget = 10.0", {"seconds": 12.0}, 1.0),
        ("train.token_budget = 1000", {"sampled_tokens": 10}, 0.05),
    ],
)
def test_the_share_of_a_budget_that_is_spent(binding: str, spent: dict[str, float], share: float) -> None:
    with config([CONFIGS / "embedded.gin"], [binding]):
        recipe: Recipe = build("train")
    current = RunState(recipe, 0, policy=None, step=2, **spent)  # type: ignore[arg-type]
    assert current.budget_share == pytest.approx(share)
