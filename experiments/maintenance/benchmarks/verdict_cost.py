"""Core-minutes until a difference of two points is decided, by this bench and without what it saves by.

    grpolab compare -c demo -b 'evaluation.final_samples = 144' --out runs/cost
    python -m experiments.maintenance.benchmarks.verdict_cost runs/cost/demo --peer PYTHON

From a finished study whose scores rest on many samples a question, the standard deviation of a difference under each
plan is measured, as the root mean square over the arms against the baseline: a plan with fewer samples or evaluations
takes the first ones. Seeds are the fewest with which a t test at 5 % finds a true difference of two points, and two
one-sided tests a true difference of none to be within two points, with a chance of 80 %; a run's seconds are the
study's own. `--peer` is the Python of an environment with trl and datasets: its step is timed on the same model and
sizes, and a run of the study's steps with it takes the evaluation of ours. The sd is known from the study's few seeds
only: of five, it may be off by a third.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

from core import TASKS
from core.model.loading import EMBEDDED
from experiments.maintenance.benchmarks.step_time import trl_step
from experiments.results.halving import cost_of
from experiments.results.stored_study import StoredStudy, load_study
from experiments.setup import import_parts, quiet_libraries
from experiments.statistics.power import power

POINTS: Final = 0.02
ALPHA: Final = 0.05
POWER: Final = 0.8
SUITE: Final = "test"
MAX_SEEDS: Final = 2000


@dataclass(frozen=True)
class Plan:
    """How a difference is measured."""

    name: str
    samples: int
    """A question, at every scored evaluation."""
    evaluations: int
    paired: bool
    peer: bool = False
    """Whether its runs are those of the peer."""


def t_power(effect: float, seeds: int, *, paired: bool) -> float:
    """Chance that a two-sided t test finds `effect`, a difference in units of the sd of one seed's difference.

    Unpaired, of two samples of S: 2S - 2 degrees of freedom, and the sd is the root of the sum of both variances.
    """
    if paired:
        return power(effect, seeds, ALPHA)
    degrees, shift = 2 * seeds - 2, effect * math.sqrt(seeds)
    critical = float(special.stdtrit(degrees, 1 - ALPHA / 2))
    tails = special.nctdtr(degrees, shift, [critical, -critical])
    return float(1 - tails[0] + np.nan_to_num(tails[1]))  # scipy's value is nan where it is far below 1e-10


def equivalence_power(margin: float, seeds: int, *, paired: bool) -> float:
    """Chance that two one-sided t tests find a true difference of 0 within `margin`, in units of the same sd.

        E_s [2 Φ(margin √S - t s) - 1]+,   s² ~ χ²_df / df

    Source: Phillips 1990, "Power of the two one-sided tests procedure in bioequivalence".
    """
    degrees = (seeds - 1) * (1 if paired else 2)
    critical = float(special.stdtrit(degrees, 1 - ALPHA))
    spread = stats.chi(degrees, scale=1 / math.sqrt(degrees))

    def within(s: float) -> float:
        return float(spread.pdf(s)) * max(0.0, 2 * float(special.ndtr(margin * math.sqrt(seeds) - critical * s)) - 1)

    return float(integrate.quad(within, 0, margin * math.sqrt(seeds) / critical, limit=200)[0])


def seeds_for(sd: float, *, paired: bool, equivalent: bool) -> int:
    """The fewest seeds an arm with a chance of 80 %."""
    chance = equivalence_power if equivalent else t_power
    tried = range(2, MAX_SEEDS)
    return next(n for n in tried if chance(POINTS / sd, n, paired=paired) >= POWER)


def accuracies(study: StoredStudy, plan: Plan) -> dict[str, NDArray[np.float64]]:
    """By arm, the score of every seed under a plan."""
    scores: dict[str, dict[int, float]] = {}
    for run in study.runs:
        rows = [row["correct"] for row in run.evals if row["split"] == SUITE][-plan.evaluations :]
        taken = [float(np.mean([answers[: plan.samples] for answers in row])) for row in rows]
        scores.setdefault(run.arm, {})[run.seed] = statistics.fmean(taken)
    return {arm: np.array([row[seed] for seed in sorted(row)]) for arm, row in scores.items()}


def sd_of_difference(scores: Mapping[str, NDArray[np.float64]], baseline: str, *, paired: bool) -> float:
    """Root mean square over the arms of the sd of a seed's difference to the baseline."""
    others = [row for arm, row in scores.items() if arm != baseline]
    if paired:
        variances = [np.var(row - scores[baseline], ddof=1) for row in others]
    else:
        variances = [np.var(row, ddof=1) + np.var(scores[baseline], ddof=1) for row in others]
    return math.sqrt(float(np.mean(variances)))


def peer_seconds(python: str, steps: int = 6) -> float:
    """Of a step of the peer on the demo's model and sizes, one thread."""
    task = TASKS["chain_sums"]()
    problems = [task.problem("train", 0, index) for index in range(16)]
    asked = [(str(problem.prompt), problem.answer) for problem in problems]
    sizes = {"steps": steps, "group": 8, "new_tokens": 56, "threads": 1}
    return trl_step(python, str(EMBEDDED), "float32", asked, plain=True, **sizes)["seconds"]


def rows(study: StoredStudy, samples: int, peer: float | None) -> Iterator[str]:
    """A line for each plan."""
    finished = [run for run in study.runs if run.finished]
    answers = [row["correct"] for row in finished[0].evals if row["split"] == SUITE]
    behind = sum(len(row[0]) for row in answers[-3:])
    cost = cost_of(finished, SUITE, behind)
    if cost is None:
        raise SystemExit("the study does not say how long its evaluations took")
    arms = len({run.arm for run in finished})
    steps = max(row["step"] for row in finished[0].metrics)
    plans = [
        Plan("this bench, evaluation plan", samples // 3, 3, paired=True),
        Plan("without pairing", samples // 3, 3, paired=False),
        Plan("without the plan (2 x 3)", 2, 3, paired=True),
        Plan("neither, last model only", 2, 1, paired=False),
        *([Plan("done elsewhere (TRL)", 2, 1, paired=False, peer=True)] if peer else []),
    ]
    for plan in plans:
        sd = sd_of_difference(accuracies(study, plan), study.baseline, paired=plan.paired)
        evaluated = plan.samples * plan.evaluations * cost.sample / arms
        run = steps * peer if plan.peer and peer else cost.run / arms
        seeds = [seeds_for(sd, paired=plan.paired, equivalent=each) for each in (False, True)]
        minutes = [n * 2 * (run + evaluated) / 60 for n in seeds]
        yield (
            f"{plan.name:<28} sd {100 * sd:.2f} points, {run + evaluated:5.1f} s a run; "
            f"a difference: {seeds[0]:>3} seeds, {minutes[0]:6.1f} core-minutes; "
            f"equivalence: {seeds[1]:>3} seeds, {minutes[1]:6.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a finished study with many samples a question")
    parser.add_argument("--samples", type=int, default=24, help="of the evaluation plan, over three evaluations")
    parser.add_argument("--peer", help="Python of an environment with trl and datasets")
    options = parser.parse_args()
    import_parts()
    quiet_libraries()
    peer = peer_seconds(options.peer) if options.peer else None
    if peer:
        print(f"a step of TRL: {peer:.2f} s")
    for row in rows(load_study(options.study), options.samples, peer):
        print(row)


if __name__ == "__main__":
    main()
