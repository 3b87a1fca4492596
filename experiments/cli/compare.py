"""`grpolab compare` and `grpolab ablate`: arms x seeds of a study, or a race, which end with verdicts."""

import argparse

from core.errors import GrpoLabError
from experiments.cli.conclude import conclude
from experiments.cli.run_study import parse_seeds, read_run_options, run_study
from experiments.study.configs import find_config
from experiments.study.study import Study, prepare_study
from experiments.terminal import Console


def run_compare(options: argparse.Namespace) -> int:
    """`grpolab compare`."""
    if not options.config and not options.bind:
        raise GrpoLabError("compare needs a study: -c FILE.gin (try: grpolab compare -c demo)")
    return _compare(_read_study(options), options)


def run_ablate(options: argparse.Namespace) -> int:
    """`grpolab ablate`."""
    if not options.config and not options.bind:
        raise GrpoLabError("ablate needs axes: -c FILE.gin (try: grpolab ablate -c ablate_dapo)")
    study = _read_study(options)
    if study.ablation is None:
        raise GrpoLabError(
            "ablate needs axes: bind ablate.axes = {'dapo.eps_high': [0.28, 0.2]} (arms written down one by one are "
            "for grpolab compare)"
        )
    return _compare(study, options)


def _read_study(options: argparse.Namespace) -> Study:
    """The study that the command line declares."""
    seeds = parse_seeds(options.seeds) if options.seeds else None
    race = ["compare.race = True"] if options.race else []
    return prepare_study([find_config(file) for file in options.config], [*options.bind, *race], seeds)


def _compare(study: Study, options: argparse.Namespace) -> int:
    """Run a study of several arms and judge it."""
    if len(study.recipes) == 1:
        raise GrpoLabError(
            f"compare has one arm, '{study.settings.baseline}', and nothing to compare it with: add another to "
            "compare.variants or compare.arms, or train it alone with grpolab train"
        )
    console = Console(stderr=options.json)
    run_options = read_run_options(options, grow=options.grow)
    return run_study(
        study,
        run_options,
        console,
        lambda folder: conclude(folder, console, as_json=options.json, verbose=options.verbose),
    )
