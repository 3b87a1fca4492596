"""No interval of a difference goes beyond what the metric allows, in whatever design and output."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from experiments import lab
from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge
from experiments.statistics.racing import race
from experiments.statistics.records import to_plain
from experiments.statistics.samples import within

WILD = [0.0, 0.9, 0.05, 1.0, 0.1, 0.95, 0.0, 1.0, 0.5, 0.02, 1.0, 0.97]


def intervals(value: Any) -> Iterator[tuple[str, list[float]]]:
    """Every interval of a difference in the plain form of a judgement, with its key."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, list) and ("interval" in str(key) or " vs " in str(key)):
                yield str(key), item
            yield from intervals(item)
    elif isinstance(value, list):
        for item in value:
            yield from intervals(item)


def judged(seeds: int, largest: float, **declared: Any) -> Judgement:
    scores = {"base": [0.0 if k % 3 else 0.3 for k in range(seeds)], "wild": WILD[:seeds]}
    names = ("test/accuracy", "test/greedy_accuracy")
    runs = [
        Trajectory(arm, seed, "finished", {name: Curve({"steps": [1.0]}, [x], largest=largest) for name in names})
        for arm, row in scores.items()
        for seed, x in enumerate(row)
    ]
    plan = Plan(
        metric=names[0], baseline="base", seeds=tuple(range(seeds)), budget=1.0, margin=0.1, largest=largest, **declared
    )
    result = judge(plan, runs)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("seeds", "declared"), [(3, {}), (3, {"looks": ((3, 0.05),)}), (8, {"alpha": 0.0001}), (12, {"race": True})]
)
def test_intervals_of_shares_end_at_one(seeds: int, declared: dict[str, Any]) -> None:
    """Of three seeds, differences -0.3, 0.9, 0.05: the t interval is 0.217 -+ 4.303 * 0.617 / sqrt(3), up to 1.75."""
    known, unknown = judged(seeds, 1.0, **declared), judged(seeds, math.inf, **declared)
    shown = list(intervals(known.to_json()))
    assert all(abs(end) <= 1 for name, pair in shown if name != "excess_interval" for end in pair)
    beyond = [pair for _, pair in intervals(unknown.to_json()) if max(map(abs, pair)) > 1]
    assert bool(beyond) == (seeds < 12)
    for ours, theirs in zip(known.analysis.comparisons, unknown.analysis.comparisons, strict=True):
        assert (ours.verdict, ours.adjusted_p) == (theirs.verdict, theirs.adjusted_p)
        assert "+1.7" not in ours.sentence


def test_a_race_of_three_seeds_says_no_more_than_is_possible() -> None:
    scores = {"a": dict(enumerate([0.0] * 12)), "b": dict(enumerate(WILD))}
    options: dict[str, Any] = {"seeds": range(12), "baseline": "a", "margin": 0.1, "alpha": 1e-3}
    (whole,), (cut,) = race(scores, **options).comparisons, race(scores, **options, largest=0.8).comparisons
    assert whole.interval is not None
    assert cut.interval == within(whole.interval, 0.8) != whole.interval
    assert (cut.verdict, cut.p_anytime) == (whole.verdict, whole.p_anytime)


def test_what_has_no_end_stays_open() -> None:
    assert within((-math.inf, math.inf), 1.0) == (-math.inf, math.inf)
    assert within((-2.0, 0.5), 1.0) == (-1.0, 0.5)
    assert within((0.5, 2.0), 1.0) == (0.5, 1.0)
    assert within(None, 1.0) is None


def test_covering_is_not_lost() -> None:
    """A cut interval covers a possible difference exactly when the whole one does."""
    rng = np.random.default_rng(0)
    for low, width, truth in zip(rng.normal(size=500), rng.exponential(2, 500), rng.uniform(-1, 1, 500), strict=True):
        whole = (float(low), float(low + width))
        cut = within(whole, 1.0)
        assert cut is not None
        assert (cut[0] <= truth <= cut[1]) == (whole[0] <= truth <= whole[1])


@pytest.mark.parametrize(("scale", "largest"), [(1.0, 1.0), (100.0, 100.0), (1000.0, math.inf)])
def test_accuracies_of_a_table_in_shares_and_percent(scale: float, largest: float) -> None:
    table = {"base": dict(enumerate([0.3 * scale, 0.0, 0.0])), "wild": dict(enumerate(x * scale for x in WILD[:3]))}
    verdicts = lab.judge(table, baseline="base", metric="accuracy", margin=0.01 * scale)
    assert verdicts.judgement.plan.largest == largest
    row = verdicts.table().iloc[0]
    assert (row["high"] == largest) == math.isfinite(largest)
    assert to_plain(verdicts.judgement.plan)["largest"] == (largest if math.isfinite(largest) else None)
