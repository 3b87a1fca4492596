"""Time left follows from the share of its budget that each run has spent, whatever the budget is counted in."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.parts.registry import config
from experiments.launchers.progress import Progress, curve
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


def test_reward_and_accuracy_are_shown_as_they_come() -> None:
    """Rewards 0, 0.25, 1 and accuracies 0.2, 0.4 (the second step has no evaluation), in 80 columns."""
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    progress = Progress(2, 0, console)
    for step, reward, evaluation in ((1, 0.0, {"test": 0.2}), (2, 0.25, {}), (3, 1.0, {"test": 0.4})):
        causes = {"wrong answer": 3, "no answer": 1}
        progress.step(
            "grpo", 4, record(step, step / 8) | {"reward": reward, "evaluation": evaluation, "causes": causes}
        )
    with console.capture() as capture:
        console.print(progress)
    header, line, _ = (line.rstrip() for line in capture.get().splitlines())
    assert header.split()[:6] == ["run", "step", "reward", "accuracy", "length", "scored"]
    assert line.startswith("grpo seed 4 ")
    assert "wrong answer 3" in line
    assert "3/8" in line
    assert "▁▃█ 1.000" in line
    assert "▁█ 0.400" in line
    assert len(line) <= 80


def test_a_curve_is_eight_characters_at_most() -> None:
    assert curve([]) == ""
    assert curve([0.3]) == curve([0.5]) == "▁"
    assert curve([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert curve([0, 0, 7, 7, 0, 0, 7, 7, 3]) == "▁█▁█▄"  # means of two: 0, 7, 0, 7, and 3 alone


def test_without_a_terminal_evaluations_are_lines_a_tenth_of_the_budget_apart() -> None:
    """Of 20 steps every one is evaluated: of a run alone steps 3, 5, ..., of several the quarters from the first on."""
    for runs, steps in ((1, [3, 5, 7, 9, 11, 13, 15, 17, 19]), (2, [6, 11, 16])):
        output = StringIO()
        progress = Progress(runs, 0, Console(file=output, width=200))
        for step in range(1, 21):
            progress.step("a", 0, record(step, step / 20))
        lines = output.getvalue().splitlines()
        assert [line.split(": ")[0] for line in lines] == [f"a seed 0, step {step}/20" for step in steps]
        assert all(": reward 0.500, test accuracy 0.750  time left " in line for line in lines)


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
