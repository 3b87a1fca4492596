"""Time left is told from the share of its budget that each run has spent, whatever the budget is counted in."""

from io import StringIO

import pytest
from rich.console import Console

from core.recipe import Recipe
from core.registry import config
from core.rollout import Run
from experiments.progress import Progress
from experiments.study import CONFIGS, build


def record(step: int, share: float) -> dict[str, object]:
    return {"step": step, "budget_share": share, "reward": 0.5, "length": 9.0, "evaluation": {"test": 0.75}}


def test_time_left_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four runs are done; after 30 seconds one more is, and a resumed one went from a half to three quarters."""
    clock = iter([0.0, 30.0, 30.0])
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: next(clock))
    said = StringIO()
    progress = Progress(4, 2, Console(file=said, width=200))
    progress.step("a", 0, record(1, 0.25))
    progress.step("b", 0, record(3, 0.75))  # steps before the third were made another time
    progress.end("a", 0, "finished")
    assert said.getvalue() == "[3/4] a seed 0: test 0.750  time left 0:06\n"  # 30 s for 1.25 runs, 0.25 to go
    progress.end("b", 0, "failed")
    assert said.getvalue().endswith("b seed 0: failed\n")
    assert progress._time_left() == "time left 0:00"


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
    current = Run(recipe, 0, policy=None, **spent)  # type: ignore[arg-type]
    assert current.share(2) == pytest.approx(share)
