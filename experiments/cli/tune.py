"""`grpolab tune`: a study over learning rates, which writes `tuned.json` for the comparison."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from core import GrpoLabError
from core.parts.registry import config
from core.store.files import write_json
from experiments.cli.run_study import parse_seeds, read_run_options, run_study
from experiments.results import stored_study as results
from experiments.study.configs import CONFIGS, build, find_config
from experiments.study.study import Study, prepare_study
from experiments.study.tuned import PARAMETER, sensitivity, tuning_seeds
from experiments.terminal import Console

SPLIT = "tune"


def run_tune(options: argparse.Namespace) -> int:
    """`grpolab tune`."""
    if not options.config and not options.bind:
        raise GrpoLabError("tune needs a study: -c FILE.gin --rates 1e-4,3e-4,1e-3 (try: grpolab tune -c demo ...)")
    files = [find_config(file) for file in options.config]
    rate_bindings = [] if options.rates is None else [f"tune.rates = [{options.rates}]"]
    # tuned.json does not exist yet, and every rate takes all its seeds
    overrides = ["compare.tuned = None", "compare.race = False", "compare.looks = ()", "compare.reevaluate = None"]
    bindings = [*options.bind, *rate_bindings, *overrides]
    rates = declared_rates(files, bindings)
    study = prepare_study(files, bindings, [0])
    tuning = tuning_of(study, rates, tuning_seeds(parse_seeds(options.seeds), options.seeds))
    console = Console()

    def conclude(folder: Path) -> int:
        return conclude_tuning(study, tuning, rates, folder, console)

    return run_study(tuning, read_run_options(options), console, conclude, judged=False)


def declared_rates(files: Sequence[str], bindings: Sequence[str]) -> tuple[float, ...]:
    """`tune.rates` of a config."""
    with config(files, bindings, include_from=[CONFIGS]):
        rates: tuple[float, ...] = build("tune")
        return rates


def label_of(arm: str, rate: float) -> str:
    """The arm of the tuning study that runs `arm` at `rate`."""
    return f"{arm},rate={rate!r}"


def tuning_of(study: Study, rates: Sequence[float], seeds: Sequence[int]) -> Study:
    """Every arm of `study` at every rate, tested on the tuning questions; same recipe, budget, scalar and floor.

    Failed runs count with their declared score whatever the comparison does with its own: without them an unstable
    rate would be judged by its lucky seeds. GrpoLabError when arms differ in the learning rate already.
    """
    rate_key = ("settings.adamw", PARAMETER.split(".")[1])
    if len({bound.get(rate_key) for bound in study.bound.values()}) > 1:
        raise GrpoLabError(f"the arms bind {PARAMETER} themselves: what is compared cannot be tuned as well")
    if study.settings.metric.split("/")[0] == SPLIT:
        raise GrpoLabError(
            f"compare.metric = '{study.settings.metric}': rates are tuned on that split; compare on another"
        )
    arms = {
        label_of(arm.label, rate): [*arm.bindings, f"{PARAMETER} = {rate!r}"]
        for arm in study.settings.arms
        for rate in rates
    }
    settings = study.settings
    declared = {
        "arms": arms,
        "name": f"{settings.name}-tune",
        "metric": f"{SPLIT}/{settings.metric.split('/')[1]}",
        "scalar": settings.scalar,
        "axis": settings.axis,
        "failures": "worst",
        "floor": settings.floor,
    }
    lines = [f"compare.{name} = {value!r}" for name, value in declared.items()]
    return prepare_study([], [study.config, f"evaluation.split = '{SPLIT}'", *lines], seeds)


def conclude_tuning(study: Study, tuning: Study, rates: Sequence[float], folder: Path, console: Console) -> int:
    """Choose, write `tuned.json` into the tuning study's folder, and show the whole table.

    GrpoLabError while a run is pending or lost: its rate would lose for no fault of its own.
    """
    stored = results.load_study(folder)
    refuse_missing(stored)
    runs = {arm.label: {rate: label_of(arm.label, rate) for rate in rates} for arm in study.settings.arms}
    scores = stored.scores()
    result = sensitivity(scores, runs, tuning.seeds)
    path = folder / "tuned.json"
    write_json(
        path,
        {
            "parameter": PARAMETER,
            "rates": list(rates),
            "seeds": list(tuning.seeds),
            "metric": tuning.settings.metric,
            "study": tuning.hash,
            "arms": {arm.label: list(arm.bindings) for arm in study.settings.arms},
            "config": study.config.splitlines(),
            **result,
        },
    )
    table = Table("arm", *(f"{rate:g}" for rate in rates), title=f"{tuning.settings.metric} by {PARAMETER}")
    for label in runs:
        cells = [f"{result['table'][label][repr(rate)]['mean']:.3f}" for rate in rates]
        marked = [
            f"{cell} *" if rate == result["best"][label] else cell for rate, cell in zip(rates, cells, strict=True)
        ]
        table.add_row(label, *marked)
    console.print(table)
    for run in stored.trajectories:
        if run.status == "failed":
            console.print(
                f"{run.arm} seed {run.seed} failed in training and counts as {scores[run.arm][run.seed]:g}",
                style="yellow",
                highlight=False,
                markup=False,
            )
    for label in result["at_the_edge"]:
        end = "lowest" if result["best"][label] == rates[0] else "highest"
        console.print(
            f"warning: the best rate of '{label}' is the {end} that was tried: a better one may lie beyond; "
            "widen tune.rates for all arms",
            style="yellow",
            highlight=False,
            markup=False,
        )
    console.print(f"to compare at these rates: -b \"compare.tuned = '{path}'\"", soft_wrap=True, highlight=False)
    return 0


def refuse_missing(stored: results.StoredStudy) -> None:
    """Raise a GrpoLabError that names the runs which are not finished or were lost by the machine."""
    missing = [run for run in stored.trajectories if run.status in ("pending", "lost")]
    if missing:
        causes = [": ".join([run.status, *run.cause.strip().splitlines()[-1:]]) for run in missing]
        descriptions = (f"{run.arm} seed {run.seed} ({cause})" for run, cause in zip(missing, causes, strict=True))
        raise GrpoLabError(
            f"{len(missing)} of {len(stored.trajectories)} tuning runs are missing, so no rate is chosen and no "
            f"tuned.json written: {'; '.join(descriptions)}. Give the same command again: it makes up for them"
        )
