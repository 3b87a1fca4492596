"""Whole simulated studies through the public entries: a tidy table, runs in memory or a folder in, a judgement out.

A study is an array of curves [arms, seeds, evaluations]; arm a0 is the baseline, and the evaluations are at `STEPS`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from experiments.results.stored_study import load_study
from experiments.results.tables.tables import Question, judge_table, read_rows
from experiments.statistics import Analysis, Comparison, Curve, FixedN, Judgement, Plan, Trajectory, judge
from tests.experiments.statistics.simulations import noise

Array: TypeAlias = NDArray[np.float64]
Statuses: TypeAlias = Mapping[tuple[int, int], str]
"""What became of the runs that did not finish, by (arm, seed)."""

SD: Final = 0.02
"""Of the difference of two arms with normal noise."""
STEPS: Final = (0, 10, 20, 30)
UNTRAINED: Final = 0.2


def curves(kind: str, arms: int, n: int, rng: np.random.Generator, shifts: tuple[float, ...] = ()) -> Array:
    """Curves of arms that differ by `shifts` (none: not at all); `kind` as in `simulations.noise`.

    Normal ones have noise of the seed, of the run and of each evaluation; others vary by run alone.
    """
    values = np.full((arms, n, len(STEPS)), UNTRAINED)
    if kind == "normal":  # differences of the mean of three evaluations have a variance of 2 (5/12 + 1/4/3) = 1 SD²
        run = rng.normal(size=(1, n, 1)) + math.sqrt(5 / 12) * rng.normal(size=(arms, n, 1))
        values[:, :, 1:] = 0.5 + SD * (run + 0.5 * rng.normal(size=(arms, n, len(STEPS) - 1)))
    else:
        values[:, :, 1:] = noise(kind, rng, (arms, n))[:, :, None]
    if shifts:
        values[:, :, 1:] += np.array(shifts)[:, None, None]
    return values


def rows_of(values: Array, statuses: Statuses | None = None) -> list[dict[str, object]]:
    """The study as a tidy table; a run with a status ends after its first evaluation."""
    listed, ended = values.tolist(), statuses or {}
    return [
        {
            "arm": f"a{a}",
            "seed": s,
            "step": step,
            "metric": "accuracy",
            "value": value,
            "status": ended.get((a, s), "finished"),
        }
        for a, seeds in enumerate(listed)
        for s, curve in enumerate(seeds)
        for step, value in zip(STEPS, curve, strict=True)
        if step == 0 or (a, s) not in ended
    ]


def of_rows(rows: list[dict[str, object]], **question: Any) -> Judgement:
    """The judgement of a tidy table."""
    return judge_table(read_rows(rows), Question("a0", **({"margin": SD, "floor": 0.0} | question)))


def of_table(values: Array, **question: Any) -> Judgement:
    """The judgement of a study that comes as a tidy table."""
    return of_rows(rows_of(values), **question)


def of_runs(values: Array, answers: Array | None = None, **plan: Any) -> Judgement:
    """The judgement of a study that comes as runs in memory.

    `answers` [arms, seeds, Q, K], right or wrong, are those to the evaluations after training, which agree.
    """
    arms, n, _ = values.shape
    listed = values.tolist()
    runs = [
        Trajectory(
            f"a{a}",
            s,
            "finished",
            {
                "accuracy": Curve(
                    {"steps": STEPS}, listed[a][s], samples=None if answers is None else everywhere(answers[a, s])
                )
            },
        )
        for a in range(arms)
        for s in range(n)
    ]
    settings: dict[str, Any] = {"metric": "accuracy", "budget": STEPS[-1], "margin": SD} | plan
    judgement = judge(Plan(baseline="a0", seeds=tuple(range(n)), **settings), runs)
    assert judgement is not None
    return judgement


def everywhere(answers: Array) -> Array:
    """Answers [Q, K] after training, and before it as many whose mean is `UNTRAINED`: [evaluations, Q, K]."""
    return np.stack([np.full_like(answers, UNTRAINED), *[answers] * (len(STEPS) - 1)])


def write_folder(folder: Path, values: Array, statuses: Statuses | None = None) -> Path:
    """The study as a folder of runs, as `grpolab compare` leaves them."""
    arms, n, _ = values.shape
    ended = statuses or {}
    declaration = {
        "metric": "test/accuracy",
        "budget": STEPS[-1],
        "baseline": "a0",
        "seeds": list(range(n)),
        "margin": SD,
        "failures": "worst",
    }
    folder.mkdir(parents=True)
    record = {"name": "simulated", "declaration": declaration, "arms": {f"a{a}": {} for a in range(arms)}}
    (folder / "study.json").write_text(json.dumps(record))
    for a, s in np.ndindex(arms, n):
        run, status = folder / f"a{a}" / f"seed={s}", ended.get((a, s), "finished")
        (run / "eval").mkdir(parents=True)
        (run / "manifest.json").write_text(json.dumps({"arm": f"a{a}", "seed": s, "status": status}))
        lines = [{"step": step, "total_sampled_tokens": 100 * step} for step in STEPS[1:]]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for step, value in zip(STEPS, values[a, s].tolist(), strict=True):
            known = value if math.isfinite(value) else None
            evaluation = {
                "step": step,
                "split": "test",
                "total_sampled_tokens": 100 * step,
                "summary": {"accuracy": known},
            }
            (run / "eval" / f"step={step:06d}.json").write_text(json.dumps(evaluation))
    return folder


def of_folder(folder: Path) -> Judgement:
    """The judgement of a folder of runs."""
    judgement = load_study(folder).judge()
    assert judgement is not None
    return judgement


def claims(analysis: Analysis | None) -> bool:
    """Whether any comparison is called better or worse."""
    return analysis is not None and any(c.verdict in ("better", "worse") for c in analysis.comparisons)


def only(judgement: Judgement) -> Comparison:
    """The one comparison of a study of two arms."""
    (comparison,) = judgement.analysis.comparisons
    return comparison


def fixed(comparison: Comparison) -> FixedN:
    """What holds of a comparison at a fixed number of seeds, which must be there."""
    assert comparison.fixed_n is not None
    return comparison.fixed_n
