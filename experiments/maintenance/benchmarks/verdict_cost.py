"""Core-minutes until a difference of two points is decided, by this bench, without what it saves by, and as elsewhere.

    python -m experiments.maintenance.benchmarks.verdict_cost --peer PYTHON

Prints Markdown. `--peer` is the Python of an environment with trl and datasets; without it "elsewhere" is left out.

Noise is that of two finished studies, which are run first where they are not there yet: `demo` as it stands
(`--study`), whose evaluations ask a moving average of the weights, and the same runs with the weights of every step
(the same name and `_weights`). It is the sd of a seed's difference under each plan, as the root mean square over the
arms against the baseline. A plan with fewer samples or evaluations takes the first ones. Seeds are the fewest with
which the t test at 5 % finds a true difference of two points, or two one-sided tests a true difference of none to be
within two points, with a chance of 80 % (`decisions.py`). Cost is that of
whole runs, measured side by side on this machine (`whole_runs.py`), with one thread each: a decision takes seeds x 2
runs.

The sd is known from the studies' seeds only, and so is the ratio: its interval is by the jackknife over the seeds.
What is done elsewhere is taken to be two samples a question of the last model, and unpaired seeds; its sd is that of
our runs read so.
"""

import argparse
import math
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from experiments.maintenance.benchmarks.decisions import ratio_interval, seeds_for
from experiments.maintenance.benchmarks.whole_runs import Cost, compare_command, ours, theirs
from experiments.results.stored_run import ADJUSTED
from experiments.results.stored_study import StoredStudy, load_study
from experiments.setup import import_parts, quiet_libraries
from experiments.statistics.answers import noise

POINTS: Final = 0.02
SUITE: Final = "test"
EVALUATIONS: Final = 3
"""That the score of a run of the demo is the mean of."""
ASKED: Final = ("a difference of 2 points", "equivalence within 2 points")
WITH: Final = "this bench, evaluation plan"
"""The plan whose cost the ratio to what is done elsewhere is taken of."""

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How a difference is measured."""

    name: str
    samples: int
    """A question, at every scored evaluation."""
    evaluations: int
    paired: bool
    cost: Cost
    metric: str = "accuracy"
    averaged: bool = False
    """Whether a moving average of the weights answers."""


@dataclass(frozen=True)
class Noise:
    """Of a seed's difference under a plan."""

    variance: float
    """Mean over the arms against the baseline, squared points of 1."""
    answers: float
    """The least that the sampled answers allow it to be; 0 where seeds are not paired and nobody asks."""

    def seeds(self, plan: Plan, *, equivalent: bool) -> float:
        """Seeds an arm that decide, not rounded."""
        sd = math.sqrt(self.variance)
        floor = math.sqrt(self.answers) / sd
        return seeds_for(POINTS / sd, paired=plan.paired, equivalent=equivalent, floor=floor)


def answers(study: StoredStudy, plan: Plan) -> dict[str, Table]:
    """By arm, what the scores under a plan are means of: [S, Q, K], averaged over the evaluations."""
    scores: dict[str, dict[int, Table]] = {}
    for run in study.runs:
        rows = [row for row in run.evals if row["split"] == SUITE][-plan.evaluations :]
        tables = [row["numbers"].get(plan.metric, np.empty((0, 0)))[:, : plan.samples] for row in rows]
        if any(table.shape[1] < plan.samples for table in tables):
            raise SystemExit(
                f"{run.path}: fewer than {plan.samples} samples a question at the last evaluations, or none of their "
                "surprise; give --study a folder where there is none, and the study is run"
            )
        scores.setdefault(run.arm, {})[run.seed] = np.mean(tables, axis=0)
    return {arm: np.array([row[seed] for seed in sorted(row)]) for arm, row in scores.items()}


def noise_of(scores: Mapping[str, Table], baseline: str, *, paired: bool) -> Noise:
    """Noise of the differences to the baseline, from [S, Q, K] by arm: mean over the arms."""
    base, others = scores[baseline], [row for arm, row in scores.items() if arm != baseline]
    if not paired:
        spread = [row.mean((1, 2)).var(ddof=1) + base.mean((1, 2)).var(ddof=1) for row in others]
        return Noise(float(np.mean(spread)), 0.0)
    differences = [row - base for row in others]
    spread = [d.mean((1, 2)).var(ddof=1) for d in differences]
    return Noise(float(np.mean(spread)), statistics.fmean(noise(d) / d.shape[1] for d in differences))


def plans(samples: int, with_plan: Cost, without: Cost, peer: Cost | None) -> list[Plan]:
    """From what the bench can do to what is done elsewhere."""
    each = samples // EVALUATIONS
    return [
        Plan("this bench, control variate", each, EVALUATIONS, True, with_plan, ADJUSTED, averaged=True),
        Plan(WITH, each, EVALUATIONS, True, with_plan, averaged=True),
        Plan("without pairing", each, EVALUATIONS, False, with_plan, averaged=True),
        Plan("without the moving average", each, EVALUATIONS, True, with_plan),
        Plan(f"without the plan (2 samples x {EVALUATIONS}, no average)", 2, EVALUATIONS, True, without),
        Plan("neither, last model only", 2, 1, False, without),
        *([Plan("as done elsewhere, runs of TRL", 2, 1, False, peer)] if peer else []),
    ]


def minutes(plan: Plan, found: Noise, *, equivalent: bool) -> float:
    """Core-minutes of a decision, by whole seeds."""
    return plan.cost.seconds(2 * math.ceil(found.seeds(plan, equivalent=equivalent))) / 60


def plan_rows(chosen: Sequence[Plan], found: Sequence[Noise]) -> Iterator[str]:
    """A table with a row for each plan."""
    heads = "sd of a seed's difference, points | CPU seconds of a run | of start-up"
    yield f"| | {heads} | {' | '.join(f'{asked}: seeds | core-minutes' for asked in ASKED)} |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for plan, each in zip(chosen, found, strict=True):
        cells = [f"{100 * math.sqrt(each.variance):.2f}", f"{plan.cost.run:.1f}"]
        cells.append(f"{plan.cost.start:.1f} a {'study' if plan.cost.shared else 'run'}")
        for equivalent in (False, True):
            cells.append(str(math.ceil(each.seeds(plan, equivalent=equivalent))))
            cells.append(f"{minutes(plan, each, equivalent=equivalent):.1f}")
        yield f"| {plan.name} | {' | '.join(cells)} |"


def factors(ours: tuple[Plan, Noise], theirs: tuple[Plan, Noise], *, equivalent: bool) -> dict[str, float]:
    """What theirs is as a multiple of ours; the product is the ratio of core-minutes."""
    (plan, mine), (other, its) = ours, theirs
    n, m = (math.ceil(found.seeds(each, equivalent=equivalent)) for each, found in (ours, theirs))
    variance, run = its.variance / mine.variance, other.cost.run / plan.cost.run
    whole = other.cost.seconds(2 * m) / plan.cost.seconds(2 * n)
    return {
        "variance of a seed's difference": variance,
        "seeds, for the variance": m / n / variance,
        "CPU seconds of a run, start-up apart": run,
        "start-up": whole / (m / n * run),
    }


def factor_rows(chosen: Sequence[Plan], scores: Sequence[Mapping[str, Table]], baseline: str) -> Iterator[str]:
    """What the last plan takes as a multiple of the first two, by factor, with the interval of the product."""
    *_, last = chosen
    columns = [(place, equivalent) for place in (1, 0) for equivalent in (False, True)]

    def found(place: int, seeds: Sequence[int] | None = None) -> Noise:
        """Of the plan at this place, from all seeds or from some."""
        some = {arm: row if seeds is None else row[list(seeds)] for arm, row in scores[place].items()}
        return noise_of(some, baseline, paired=chosen[place].paired)

    def log_ratio(place: int, equivalent: bool, seeds: tuple[int, ...]) -> float:
        """Of core-minutes by the noise of these seeds, with numbers of seeds that are not rounded."""
        taken = [found(each, seeds).seeds(chosen[each], equivalent=equivalent) for each in (-1, place)]
        whole, part = (each.cost.seconds(2 * n) for each, n in zip((last, chosen[place]), taken, strict=True))
        return math.log(whole / part)

    yield f"| {last.name}, as a multiple of | {' | '.join(f'{chosen[p].name}: {ASKED[e]}' for p, e in columns)} |"
    yield "|---|--:|--:|--:|--:|"
    by_column = [factors((chosen[p], found(p)), (last, found(-1)), equivalent=e) for p, e in columns]
    for name in by_column[0]:
        yield f"| {name} | {' | '.join(f'{each[name]:.2f}' for each in by_column)} |"
    products = [math.prod(each.values()) for each in by_column]
    yield f"| **core-minutes: the product** | {' | '.join(f'**{product:.1f}**' for product in products)} |"
    seeds = len(scores[0][baseline])
    intervals = [ratio_interval(partial(log_ratio, p, e), seeds) for p, e in columns]
    yield f"| 95 % interval, from {seeds} seeds | {' | '.join(f'{low:.1f} to {high:.1f}' for low, high in intervals)} |"


def bindings(samples: int, *, averaged: bool) -> tuple[str, ...]:
    """Those of a score that rests on so many samples a question, with what the control variate takes."""
    average = () if averaged else ("evaluation.ema_lag = None",)
    return f"evaluation.final_samples = {samples}", "evaluation.surprise = True", *average


def finished_study(folder: Path, seeds: str, bound: Sequence[str]) -> StoredStudy:
    """The study in `folder`; where it is not finished, it is run or goes on."""
    command = compare_command(str(folder.parent), seeds, f"compare.name = {folder.name!r}", *bound)
    study = load_study(folder) if (folder / "study.json").is_file() else None
    if study is None or len(study.runs) < len(study.arms) * len(study.seeds) or not all(r.finished for r in study.runs):
        subprocess.run(command, check=True)
        study = load_study(folder)
    return study


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of an environment with trl and datasets")
    parser.add_argument("--study", type=Path, default=Path("runs/verdict_cost"), help="its folder (%(default)s)")
    parser.add_argument("--seeds", default="16", metavar="N|LIST", help="of the studies that are run (%(default)s)")
    parser.add_argument(
        "-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'", help="a setting of all our runs"
    )
    parser.add_argument("--samples", type=int, default=24, help="a question, of the evaluation plan (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in which costs are measured (%(default)s)")
    options = parser.parse_args()
    import_parts()
    quiet_libraries()
    folders = {True: options.study, False: options.study.with_name(f"{options.study.name}_weights")}
    studies = {
        averaged: finished_study(folder, options.seeds, [*options.bind, *bindings(options.samples, averaged=averaged)])
        for averaged, folder in folders.items()
    }
    study = studies[True]
    asked, steps = study.runs[0].answered_questions(SUITE), study.runs[0].steps
    plain = (options.samples, True), (2 * EVALUATIONS, False)
    with_plan, without = (ours(options.rounds, *options.bind, *bindings(n, averaged=ema)) for n, ema in plain)
    peer = theirs(options.peer, options.rounds, steps, asked) if options.peer else None
    chosen = plans(options.samples, with_plan, without, peer)
    scores = [answers(studies[plan.averaged], plan) for plan in chosen]
    found = [noise_of(each, study.baseline, paired=plan.paired) for plan, each in zip(chosen, scores, strict=True)]
    print("\n".join(plan_rows(chosen, found)), end="\n\n")
    print("\n".join(factor_rows(chosen, scores, study.baseline)), end="\n\n")
    for name, cost in (("ours, with the plan", with_plan), ("ours, without", without), ("TRL", peer)):
        if cost:
            print(f"{name}: {cost.wall_run:.1f} s on the clock a run, {cost.wall_start:.1f} s for start-up")


if __name__ == "__main__":
    main()
