"""Studies that grew after undeclared looks: the error rate that is reported, and that of the fresh seeds alone."""

from functools import partial

import numpy as np

from experiments.statistics import Plan, judge
from experiments.statistics.grown import Look, error_rate
from experiments.statistics.records import Analysis
from experiments.statistics.runs import Curve, Trajectory
from tests.experiments.statistics.calibration import Row, Simulation, each

ALPHA = 0.05


def claims(analysis: Analysis | None) -> bool:
    """Whether a difference is claimed; there is none."""
    return analysis is not None and any(c.verdict in ("better", "worse") for c in analysis.comparisons)


def growing(looks: tuple[tuple[int, int], ...], rng: np.random.Generator) -> tuple[bool, ...]:
    """Equal arms, judged at each of `looks`, (seeds, arms): a claim at any of them, and on the seeds since the last."""
    seeds, arms = looks[-1]
    scores = rng.normal(size=(arms, seeds))
    claimed: list[bool] = []
    seen: tuple[Look, ...] = ()
    fresh = False
    for n, of in looks:
        plan = Plan("test/score", "a0", tuple(range(n)), budget=3, failures="worst", seen=seen, margin=1e-6)
        runs = [
            Trajectory(f"a{k}", s, "finished", {"test/score": Curve({"steps": [1, 2, 3]}, [float(scores[k, s])] * 3)})
            for k in range(of)
            for s in range(n)
        ]
        judgement = judge(plan, runs)
        assert judgement is not None
        claimed.append(claims(judgement.analysis))
        fresh = claims(judgement.grown.fresh if judgement.grown else None)
        seen += (Look(n, of, ALPHA),)
    return any(claimed), fresh


def _simulation(looks: tuple[tuple[int, int], ...], fast: int) -> Simulation:
    description = ", then ".join(f"{n} seeds of {of} arms" for n, of in looks)
    rate = error_rate(tuple(Look(n, of, ALPHA) for n, of in looks))
    return Simulation(
        f"equal arms, grown: {description}",
        each(partial(growing, looks)),
        (
            # the sign flips attain 0.0488 with the nine seeds' differences, the simulated rate takes 0.05
            Row(15, "called better or worse at some look: the rate that is told", rate, width=0.004),
            Row(15, "called better or worse on the fresh seeds alone", ALPHA, "more"),
        ),
        fast=fast,
        slow=4_000,
    )


GROWN = (
    _simulation(((3, 2), (5, 2), (9, 2)), 250),
    _simulation(((5, 2), (8, 3)), 100),
    _simulation(((4, 3), (10, 3)), 100),
)
