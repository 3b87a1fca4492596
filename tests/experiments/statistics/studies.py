"""Whole studies of equal arms, pushed through the public entry: a tidy table in, a verdict out.

R, the number of studies, is the caller's, so that the fast tests and a longer calibration run share them.
"""

import numpy as np

from experiments.foreign.tables import Question, judge_table, read_rows
from experiments.statistics import Judgement

SD = 0.02
EVALUATIONS = 5


def rows_of_equal_arms(arms: int, n: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """The tidy rows of one study: curves that rise alike, with noise of the seed, of the run and of each evaluation."""
    level = 0.3 + SD * rng.normal(size=(1, n, 1)) + SD * rng.normal(size=(arms, n, 1))
    gain = 0.1 * np.linspace(0.0, 1.0, EVALUATIONS)
    values = (level + gain + 0.5 * SD * rng.normal(size=(arms, n, EVALUATIONS))).tolist()
    return [
        {"arm": f"a{a}", "seed": s, "step": 10 * k, "metric": "accuracy", "value": values[a][s][k]}
        for a in range(arms)
        for s in range(n)
        for k in range(EVALUATIONS)
    ]


def judged(arms: int, n: int, rng: np.random.Generator) -> Judgement:
    """One study of equal arms, judged against the first."""
    return judge_table(read_rows(rows_of_equal_arms(arms, n, rng)), Question("a0", margin=SD))


def false_positive_rate(R: int, n: int, arms: int = 2, seed: int = 0) -> float:
    """The share of R studies of equal arms, n seeds each, with at least one `better` or `worse`."""
    rng = np.random.default_rng([seed, n, arms])
    wrong = 0
    for _ in range(R):
        comparisons = judged(arms, n, rng).analysis.comparisons
        wrong += any(c.verdict in ("better", "worse") for c in comparisons)
    return wrong / R
