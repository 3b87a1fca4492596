"""What a run scored: where it began, the one number it is judged by, and the steps of which that is the mean."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import GrpoLabError
from experiments.results.stored_run import StoredRun, numbers, read_run
from experiments.statistics import SCALARS
from experiments.statistics.scalars import last_evaluations

LISTED = 5  # steps by number at most


@dataclass(frozen=True)
class Scores:
    """The scores of runs in `folder`/ARM/seed=SEED, by the declared metric, scalar, axis and budget (None: all of it).

    Every method gives a line, or an empty one where the run's files cannot be read from here.
    """

    folder: Path
    metric: str
    scalar: str = "final"
    axis: str = "steps"
    budget: float | None = None

    def start(self, arm: str, seed: int) -> str:
        """`test/accuracy 0.352 before training`."""
        run = self._run(arm, seed)
        first = {m: _points(run, m, "steps")[0] for m in _measured(run, self.metric)} if run else {}
        return "  ".join(f"{m} {value:.3f} before training" for m, (step, _, value) in first.items() if step == 0)

    def end(self, arm: str, seed: int) -> str:
        """`test/accuracy 0.352 before training, 0.932 (mean of steps 40, 50, 60)`."""
        run = self._run(arm, seed)
        return "" if run is None else "  ".join(self._of(run, metric) for metric in _measured(run, self.metric))

    def _of(self, run: StoredRun, metric: str) -> str:
        points = _points(run, metric, self.axis)
        last = points[-1][1] if self.budget is None else self.budget
        within = [point for point in points if point[1] <= last] or points[:1]
        start = f"{within[0][2]:.3f} before training, " if within[0][0] == 0 and len(within) > 1 else ""
        steps, spent, values = ([point[k] for point in within] for k in range(3))
        value, which = values[-1], steps_text(steps[-1:])
        with suppress(ValueError):  # a curve that cannot be reduced so, which the judgement explains
            if metric == self.metric:
                value = SCALARS[self.scalar](spent, values, last)
                of_final = steps_text(steps[-last_evaluations(len(steps)) :])
                which = of_final if self.scalar == "final" else "mean height of its curve"
        return f"{metric} {start}{value:.3f} ({which})"

    def _run(self, arm: str, seed: int) -> StoredRun | None:
        try:
            return read_run(self.folder / arm / f"seed={seed}", arm, seed)
        except (GrpoLabError, OSError):  # another machine's folder, or one that is being written
            return None


def steps_text(steps: Sequence[float]) -> str:
    """Of which steps a score is the mean: `mean of steps 40, 50, 60`."""
    if len(steps) == 1:
        return f"step {steps[0]:g}"
    if len(steps) <= LISTED:
        return f"mean of steps {', '.join(f'{step:g}' for step in steps)}"
    return f"mean of {len(steps)} evaluations at steps {steps[0]:g} to {steps[-1]:g}"


def _measured(run: StoredRun, metric: str) -> list[str]:
    """The metric, and the accuracy on every other suite."""
    suites = dict.fromkeys(row["split"] for row in run.evals)
    others = (f"{suite}/accuracy" for suite in suites if suite != metric.split("/")[0])
    return [each for each in (metric, *others) if _points(run, each, "steps")]


def _points(run: StoredRun, metric: str, axis: str) -> list[tuple[int, float, float]]:
    """Step, what had been spent and value of every evaluation that measured the metric."""
    split, _, name = metric.partition("/")
    points = []
    for row in run.evals:
        value = numbers(row["summary"]).get(name) if row["split"] == split else None
        if value is not None:
            points.append((int(row["step"]), run.spent(row, axis), value))
    return points
