"""pass@k: the chance that one of k samples is right, which separates new ability from sharper guessing."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import Array

TINY: Final = 1e-12
"""Squared surprise, in nats², below which there is none."""


def adjusted(correct: ArrayLike, surprise: ArrayLike) -> Array:
    """Right or wrong answers [Q, K] less what chance made of them: correct - β_q surprise, [Q, K].

        β_q = Σ_{r≠q} Σ_k (x_rk - x̄_r) (c_rk - c̄_r) / Σ_{r≠q} Σ_k (c_rk - c̄_r)²

    Surprise c has the known mean 0 (`core.loop.evaluation`), and β_q, the slope within the other questions, does not
    depend on the answers to q: the mean of each question is unbiased, and varies the less the better c tells right from
    wrong. 0 where the others have no surprise to go by. ValueError: shapes differ or are not [Q >= 2, K >= 2].
    Control variates: Owen 2013, "Monte Carlo theory, methods and examples", section 8.9.
    """
    x, c = np.asarray(correct, dtype=np.float64), np.asarray(surprise, dtype=np.float64)
    if x.shape != c.shape or x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"adjusted: answers of shape {x.shape}, surprise of {c.shape}; give [Q >= 2, K >= 2] of both")
    centred = c - c.mean(axis=1, keepdims=True)
    together, squares = ((each * centred).sum(axis=1) for each in (x, centred))
    others, total = together.sum() - together, squares.sum() - squares
    slopes = np.divide(others, total, out=np.zeros_like(others), where=total > TINY)
    return np.asarray(x - slopes[:, None] * c, dtype=np.float64)


def pass_at_k(correct: ArrayLike) -> Array:
    """pass@k for k = 1 to K, [K], from right (1) or wrong (0) answers [Q, K], averaged over questions.

        pass@k = mean_q [1 - C(K - c_q, k) / C(K, k)],   c_q of the K samples right

    Unbiased for every k. ValueError: not [Q >= 1, K >= 1], or values that are neither 0 nor 1.
    Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    return np.asarray(pass_by_question(correct).mean(axis=0), dtype=np.float64)


def pass_by_question(correct: ArrayLike) -> Array:
    """pass@k of each question for k = 1 to K, [Q, K]: what `pass_at_k` is the mean of, with the same errors."""
    table = np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isin(table, (0.0, 1.0)).all():
        raise ValueError(f"pass_at_k: expected right or wrong answers [questions, samples], got shape {table.shape}")
    K = table.shape[1]
    wrong = K - table.sum(axis=1)
    # C(K - c, k) / C(K, k) = prod_{i < k} (K - c - i) / (K - i), which is 0 from k > K - c on
    i = np.arange(K)
    miss = np.cumprod(np.maximum(wrong[:, None] - i, 0.0) / (K - i), axis=1)
    return np.asarray(1 - miss, dtype=np.float64)
