"""Answers of real runs of the embedded model, kept for calibration: tests/data/real_answers.npz.

    grpolab compare -c demo -b "compare.variants = [@grpo, @dr_grpo]" -b "evaluation.final_samples = 24" \\
        -b "evaluation.surprise = True" --seeds 16
    python -m tests.experiments.statistics.real_answers runs/demo    # keep those of a study
    python -m tests.experiments.statistics.real_answers              # the sd of a difference, by reading
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from experiments.results.stored_study import load_study
from experiments.statistics.ability import adjusted
from tests.experiments.statistics.studies import Array

FILE: Final = Path(__file__).parents[2] / "data" / "real_answers.npz"
EVALUATIONS: Final = 3
"""The last ones, which make the score."""


def read() -> tuple[Array, Array]:
    """Right or wrong, and surprise in nats: [arms, seeds, evaluations, questions, samples] each."""
    with np.load(FILE) as stored:
        surprise = stored["surprise"].astype(np.float64)
        right = np.unpackbits(stored["right"], count=surprise.size).reshape(surprise.shape)
    return right.astype(np.float64), surprise


RIGHT, SURPRISE = read()
READINGS: Final = {
    "accuracy by 24 samples": ("accuracy", 8),
    "accuracy by 2 x 3 samples": ("accuracy", 2),
    "adjusted_accuracy by 24 samples": ("adjusted_accuracy", 8),
}
"""A metric, and how many samples of each evaluation it takes."""


def scores(metric: str, samples: int) -> Array:
    """The score of every run, [arms, seeds]."""
    right, surprise = RIGHT[..., :samples], SURPRISE[..., :samples]
    if metric == "accuracy":
        return np.asarray(right.mean((2, 3, 4)))
    shape, tables = right.shape, right.shape[-2:]
    pairs = zip(right.reshape(-1, *tables), surprise.reshape(-1, *tables), strict=True)
    means = np.array([adjusted(*pair).mean() for pair in pairs])
    return np.asarray(means.reshape(shape[:3]).mean(2))


def spread(seeds: slice) -> Iterator[str]:
    """A line for each reading: the sd of a difference over some seeds."""
    for name, reading in READINGS.items():
        one, other = scores(*reading)[:, seeds]
        yield f"{name}: {100 * (other - one).std(ddof=1):.2f} points"


def write(folder: Path) -> None:
    """Keep the answers of a finished study of two arms."""
    study = load_study(folder)
    assert all(run.finished for run in study.runs)
    right, surprise = [], []
    for run in study.runs:
        files = sorted((run.path / "eval" / "test").glob("step=*.json"))[-EVALUATIONS:]
        questions = [json.loads(file.read_text())["questions"] for file in files]
        samples = [[question["samples"] for question in each] for each in questions]
        right.append([[[bool(s["correct"]) for s in row] for row in each] for each in samples])
        surprise.append([[[s["surprise"] for s in row] for row in each] for each in samples])
    shape = (len(study.arms), len(study.seeds), *np.shape(right)[1:])
    np.savez_compressed(
        FILE,
        right=np.packbits(np.array(right, dtype=np.bool_)),
        surprise=np.array(surprise, dtype=np.float16).reshape(shape),
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        write(Path(sys.argv[1]))
    else:
        for name, seeds in (("the first five seeds", slice(5)), ("all sixteen", slice(None))):
            print(name, *spread(seeds), sep="\n  ")
