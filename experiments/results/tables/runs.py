"""From a run's measurements to its curves."""

from collections.abc import Sequence
from itertools import pairwise

from experiments.results.tables.measurements import Measurement
from experiments.results.tables.sheets import TableError
from experiments.statistics import Curve, Trajectory
from experiments.statistics.runs import Status


def run_of(arm: str, seed: int, measured: Sequence[Measurement]) -> Trajectory:
    """A run's curves in order of steps; a TableError for what one run cannot be."""
    by_status: dict[Status, Measurement] = {}
    by_metric: dict[str, dict[float, Measurement]] = {}
    never = next((each for each in measured if each.value is not None and not each.spent), None)
    for each in measured:
        if each.status is not None:
            by_status.setdefault(each.status, each)
        if each.value is None or not each.spent:
            continue
        at = by_metric.setdefault(each.metric, {})
        step = next(iter(each.spent.values()))
        if step in at:
            raise TableError(
                f"{each.place}: arm {arm!r}, seed {seed} has {each.metric!r} at step {step:g} already, from "
                f"{at[step].place}; keep one (of a resumed run, the later), and give each metric its own name"
            )
        at[step] = each
    if len(by_status) > 1:
        (one, first), (other, second) = list(by_status.items())[:2]
        raise TableError(
            f"{second.place}: arm {arm!r}, seed {seed} is {other}, but {one} in {first.place}; a run has one status"
        )
    curves = {metric: _curve(arm, seed, [at[step] for step in sorted(at)]) for metric, at in by_metric.items()}
    status: Status = next(iter(by_status), "finished")
    if status == "finished" and never is not None:
        return Trajectory(arm, seed, "failed", curves, cause=f"no step and no value in {never.place}")
    return Trajectory(arm, seed, status, curves)


def _curve(arm: str, seed: int, points: Sequence[Measurement]) -> Curve:
    axes = [axis for axis in points[0].spent if all(axis in each.spent for each in points)]
    for axis in axes:
        for before, after in pairwise(points):
            if after.spent[axis] <= before.spent[axis]:
                raise TableError(
                    f"{after.place}: {axis} of arm {arm!r}, seed {seed} does not grow from step "
                    f"{before.spent['steps']:g} to {after.spent['steps']:g}; count what was spent since the start"
                )
    spent = {axis: [each.spent[axis] for each in points] for axis in axes}
    answers = [each.answers for each in points if each.answers is not None]
    values = [each.value for each in points if each.value is not None]
    return Curve(spent, values, answers if len(answers) == len(points) else None)
