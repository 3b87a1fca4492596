"""README's first example, as it was run: what three of its seeds say, and what eight do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.statistics import analyze

STORED = json.loads((Path(__file__).parent / "median.json").read_text())
"""{arm: [seed]}: the bits of [3 evaluations, 128 questions, 2 samples], right or wrong."""


def answers(seeds: int) -> dict[str, dict[int, Any]]:
    """By arm and seed, [Q, K]: the mean of the evaluations that a score averages."""
    return {
        arm: {
            seed: np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8)).reshape(3, 128, 2).mean(axis=0)
            for seed, bits in enumerate(runs[:seeds])
        }
        for arm, runs in STORED.items()
    }


def judged(seeds: int, known: bool = True) -> Any:
    by_arm = answers(seeds)
    scores = {arm: {seed: float(each.mean()) for seed, each in runs.items()} for arm, runs in by_arm.items()}
    return analyze(scores, baseline="grpo", margin=0.02, answers=by_arm if known else None).comparisons[0]


def test_three_seeds_hold_what_eight_give() -> None:
    three, all_seeds = judged(3), judged(8)
    assert three.effect.mean_difference == pytest.approx(-(6 + 7 + 6) / 768 / 3)  # -0.78, -0.91 and -0.78 points
    alone = judged(3, known=False)
    assert alone.effect.interval == pytest.approx((-0.0101, -0.0064), abs=1e-4)
    assert alone.verdict == "worse"
    assert not alone.effect.interval[0] < all_seeds.effect.mean_difference < alone.effect.interval[1]
    assert three.verdict == "inconclusive"
    assert three.effect.interval[0] < all_seeds.effect.mean_difference < three.effect.interval[1]
    assert three.effect.standard_error == pytest.approx(0.0042, abs=1e-4)
    assert "standard error 0.0042 (what the answers allow: the seeds agree to 0.000434)" in three.sentence
