"""What a table leaves open about runs: which failed, which are not there, and what a failed run scores."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from experiments.results.tables.measurements import SCORED
from experiments.results.tables.sheets import TableError
from experiments.statistics import Trajectory
from experiments.statistics.runs import arms_of

FLOOR = 0.0
NOTHING_LEFT = "no run was measured, or all have failed; nothing is left to compare"


def settle(source: str, metric: str, runs: Iterable[Trajectory]) -> tuple[tuple[Trajectory, ...], list[str]]:
    """The runs, of which those have failed whose metric is not finite somewhere; a warning names them.

    Raises TableError for a finished run in which the metric was never measured, and where no run has a number.
    """
    runs = tuple(runs)
    settled: list[Trajectory] = []
    unsaid: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        curve = run.curves.get(metric)
        if run.status == "finished" and curve is None:
            raise TableError(
                f"{source}: arm {run.arm!r}, seed {run.seed} has no {metric!r}, only "
                f"{', '.join(run.curves)}; choose another metric, or give the run the status failed or lost"
            )
        pairs = zip(next(iter(curve.spent.values())), curve.values, strict=True) if curve else ()
        broken = next(((step, value) for step, value in pairs if not math.isfinite(value)), None)
        if run.status == "finished" and curve is not None and broken is not None:
            at = "" if SCORED in curve.spent else f" at step {broken[0]:g}"
            run = replace(run, status="failed", cause=f"{metric} is {broken[1]}{at}")
        if run.status == "failed" and run.cause:  # nobody called it so
            unsaid.setdefault((run.arm, run.cause), []).append(run.seed)
        settled.append(run)
    if not any(math.isfinite(value) for run in runs if metric in run.curves for value in run.curves[metric].values):
        raise TableError(f"{source}: {NOTHING_LEFT}")
    return tuple(settled), [
        f"{arm}, {_seeds(seeds)} count{'s' * (len(seeds) == 1)} as failed: {cause}. --failures and --floor say how. If "
        "the machine failed there and not the method, leave the run out, or give it the status lost."
        for (arm, cause), seeds in unsaid.items()
    ]


def complete(runs: tuple[Trajectory, ...]) -> tuple[tuple[Trajectory, ...], list[str]]:
    """A run that the table does not have cannot be judged, and its seed can be judged in no arm: warnings say so."""
    have, planned = {(run.arm, run.seed) for run in runs}, sorted({run.seed for run in runs})
    added, warnings = [], []
    for arm in arms_of(runs):
        absent = [seed for seed in planned if (arm, seed) not in have]
        added += [Trajectory(arm, seed, "lost", cause="not in the table") for seed in absent]
        if absent:
            warnings.append(
                f"{arm} has no run for {_seeds(absent)}, which therefore leave{'s' * (len(absent) == 1)} every arm: "
                "arms are compared at the same seeds. If training failed there, say so: the score nan, or a row with "
                "the status failed."
            )
    return (*runs, *added), warnings


def floor_of(
    source: str, declared: float | None, runs: Iterable[Trajectory], metric: str, *, higher_is_better: bool
) -> tuple[float, list[str]]:
    """The score of a failed run that was not evaluated before training: 0, unless that is no bad score here.

    Raises TableError where only the caller can say what a failed run scores.
    """
    runs = tuple(runs)
    failed = [run for run in runs if run.status == "failed"]
    if declared is not None or not failed:
        return declared or FLOOR, []
    if is_scored(runs):
        own = {(run.arm, run.seed): run.curves[metric].values[0] for run in failed if metric in run.curves}
        kept = [value for value in own.values() if math.isfinite(value)]
        if kept and len(kept) < len(failed):
            arm, seed = next(
                (run.arm, run.seed) for run in failed if not math.isfinite(own.get((run.arm, run.seed), math.nan))
            )
            raise TableError(
                f"{source}: failed runs have scores, but that of arm {arm!r}, seed {seed} has none; write it, or say "
                "with --floor what a failed run scores at best"
            )
        if kept:
            return (max if higher_is_better else min)(kept), ["Failed runs keep the scores that the table gives them."]
    curves = (run.curves[metric] for run in runs if metric in run.curves)
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    worst = min(values, default=FLOOR) if higher_is_better else max(values, default=FLOOR)
    if worst != FLOOR and (worst < FLOOR) == higher_is_better:
        raise TableError(
            f"{source}: runs failed, and the usual floor of {FLOOR:g} is a better {metric!r} than the {worst:g} "
            "that was measured; say with --floor what a failed run scores"
        )
    return FLOOR, [
        f"Assumed: a failed run scores {FLOOR:g}, or what it had before training if that is worse (--floor)."
    ]


def is_scored(runs: Iterable[Trajectory]) -> bool:
    """Whether there is one score a run."""
    return any(SCORED in curve.spent for run in runs for curve in run.curves.values())


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
