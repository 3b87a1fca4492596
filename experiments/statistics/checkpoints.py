"""Compare two trained checkpoints question by question: a question about two files, not about two algorithms.

Across training runs of one algorithm such a test calls about half of all pairs different at 500 questions, and more
questions make it more confident. Algorithms are compared over seeds, by `analyze` or `crossed_t`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from experiments.statistics.numbers import rounded
from experiments.statistics.paired import paired_t
from experiments.statistics.rates import mcnemar
from experiments.statistics.samples import Array, Interval, differences

CAVEAT = (
    'This answers "do these two checkpoints differ", never "do the two algorithms differ": '
    "the latter takes several training seeds per algorithm."
)


@dataclass(frozen=True)
class CheckpointComparison:
    """Two checkpoints a and b on the same Q questions with K samples each; differences are a - b.

    `p_t` and `interval` are the paired t test over questions, samples averaged first (1.0 and None when all
    questions agree). `p_mcnemar` is exact McNemar: of the questions on which the two differ, `higher_a` and
    `higher_b`, each is as likely to favour one as the other; with K > 1 a question favours the checkpoint with the
    higher mean over samples, so that no sample counts as an independent question. `sentence` ends in the caveat.
    """

    questions: int
    samples: int
    mean_a: float
    mean_b: float
    mean_difference: float
    interval: Interval | None
    p_t: float
    higher_a: int
    higher_b: int
    p_mcnemar: float
    sentence: str


def compare_checkpoints(
    correct_a: ArrayLike, correct_b: ArrayLike, *, names: tuple[str, str] = ("a", "b"), level: float = 0.95
) -> CheckpointComparison:
    """Do two checkpoints differ on such questions? Scores [Q, K], 0/1 or graded, the same Q questions in one order.

    Valid for independent questions; says nothing on whether the algorithms that made the checkpoints differ.
    ValueError: shapes differ or are not [Q >= 2, K >= 1], non-finite scores, level outside (0, 1). McNemar 1947.
    """
    a, b = _scores(correct_a, names[0]), _scores(correct_b, names[1])
    if a.shape != b.shape:
        raise ValueError(
            f"compare_checkpoints: {names[0]} has shape {a.shape}, {names[1]} {b.shape}; "
            "evaluate both on the same questions with the same number of samples"
        )
    questions, samples = a.shape
    d = differences(a.mean(axis=1), b.mean(axis=1))
    p_t, interval = paired_t(d, level)
    higher_a, higher_b = int((d > 0).sum()), int((d < 0).sum())
    p_mcnemar = mcnemar(higher_a, higher_b)
    ends = ", ".join(rounded(end, 3, [0.0], sign="+") for end in interval or ())
    shown = f"[{ends}]" if ends else "not defined"
    p_values = [rounded(p, 4, [1 - level]) for p in (p_t, p_mcnemar)]
    by = "" if samples == 1 else f" by the mean of {samples} samples"
    sentence = (
        f"Checkpoint {names[0]} vs {names[1]}: mean {a.mean():.3g} vs {b.mean():.3g} on {questions} questions, "
        f"difference {d.mean():+.3g}, {100 * level:.4g} % interval {shown}, p = {p_values[0]} (paired t over "
        f"questions), p = {p_values[1]} (exact McNemar, {higher_a} questions to {higher_b}{by}). {CAVEAT}"
    )
    return CheckpointComparison(
        questions=questions,
        samples=samples,
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        mean_difference=float(d.mean()),
        interval=interval,
        p_t=p_t,
        higher_a=higher_a,
        higher_b=higher_b,
        p_mcnemar=p_mcnemar,
        sentence=sentence,
    )


def _scores(values: ArrayLike, name: str) -> Array:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < 1:
        raise ValueError(f"compare_checkpoints: {name} has shape {scores.shape}, not [2 or more questions, samples]")
    if not np.isfinite(scores).all():
        question = int(np.argwhere(~np.isfinite(scores))[0][0])
        raise ValueError(f"compare_checkpoints: {name} has a score that is not finite at question {question}; grade it")
    return scores
