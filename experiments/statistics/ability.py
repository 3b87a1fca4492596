"""pass@k: the chance that one of k samples is right, which separates new ability from sharper guessing."""

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.samples import Array


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
