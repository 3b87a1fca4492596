"""Answers of real runs of the embedded model, kept for calibration: tests/data/real_answers*.npz.

    grpolab compare -c demo -b "compare.variants = [@grpo, @dr_grpo]" -b "evaluation.final_samples = 24" \\
        -b "evaluation.surprise = True" -b "evaluation.ema_lag = None" --seeds 16
    grpolab compare -c demo -b "compare.variants = [@grpo, @dr_grpo]" -b "evaluation.final_samples = 24" \\
        -b "evaluation.surprise = True" --seeds 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31 --out averaged
    python -m tests.experiments.statistics.real_answers weights runs/demo        # keep those of a study
    python -m tests.experiments.statistics.real_answers averaged averaged/demo
    python -m tests.experiments.statistics.real_answers                          # the sd of a difference, by reading
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from experiments.results.stored_study import load_study
from experiments.statistics.ability import adjusted
from tests.experiments.statistics.studies import Array

DATA: Final = Path(__file__).parents[2] / "data"
FILES: Final = {
    "weights": DATA / "real_answers.npz",
    "averaged": DATA / "real_answers_averaged.npz",
}
"""Of the weights of every step, and of their moving average at other seeds."""
EVALUATIONS: Final = 3
"""The last ones, which make the score."""


class Answers(NamedTuple):
    """Right or wrong, and surprise in nats: [arms, seeds, evaluations, questions, samples] each."""

    right: Array
    surprise: Array


def read(file: Path) -> Answers:
    """The answers in a file."""
    with np.load(file) as stored:
        surprise = stored["surprise"].astype(np.float64)
        right = np.unpackbits(stored["right"], count=surprise.size).reshape(surprise.shape)
    return Answers(right.astype(np.float64), surprise)


ANSWERS: Final = {name: read(file) for name, file in FILES.items()}


class Reading(NamedTuple):
    """What a score is made of."""

    metric: str
    samples: int
    """Of each evaluation."""
    who: str = "weights"
    """That answered: a key of `ANSWERS`."""


READINGS: Final[Mapping[str, Reading]] = {
    "accuracy by 24 samples": Reading("accuracy", 8),
    "accuracy by 2 x 3 samples": Reading("accuracy", 2),
    "adjusted_accuracy by 24 samples": Reading("adjusted_accuracy", 8),
    "accuracy of a moving average by 24 samples": Reading("accuracy", 8, "averaged"),
}


def scores(reading: Reading) -> Array:
    """The score of every run, [arms, seeds]."""
    right, surprise = (each[..., : reading.samples] for each in ANSWERS[reading.who])
    if reading.metric == "accuracy":
        return np.asarray(right.mean((2, 3, 4)))
    shape, tables = right.shape, right.shape[-2:]
    pairs = zip(right.reshape(-1, *tables), surprise.reshape(-1, *tables), strict=True)
    means = np.array([adjusted(*pair).mean() for pair in pairs])
    return np.asarray(means.reshape(shape[:3]).mean(2))


def spread(seeds: slice) -> Iterator[str]:
    """A line for each reading: the sd of a difference over some seeds."""
    for name, reading in READINGS.items():
        one, other = scores(reading)[:, seeds]
        yield f"{name}: {100 * (other - one).std(ddof=1):.2f} points"


def write(file: Path, folder: Path) -> None:
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
        file,
        right=np.packbits(np.array(right, dtype=np.bool_)),
        surprise=np.array(surprise, dtype=np.float16).reshape(shape),
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        who, folder = sys.argv[1:]
        write(FILES[who], Path(folder))
    else:
        for name, seeds in (("the first five seeds", slice(5)), ("all sixteen", slice(None))):
            print(name, *spread(seeds), sep="\n  ")
