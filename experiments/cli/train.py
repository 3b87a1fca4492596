"""`grpolab train` and `grpolab sft`: one run."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import core.parts.registry as registry
from core.errors import GrpoLabError
from core.loop.evaluation import suites_at
from core.loop.recipe import Recipe
from core.parts.bindings import bindings_used, refuse_unused
from experiments.launchers import local
from experiments.launchers.job import BrokenArmError, Job
from experiments.launchers.progress import Progress
from experiments.launchers.quarantine import quarantine_damaged
from experiments.launchers.trackers import check_trackers
from experiments.planning.plan import identified, rehearse_arms, show_notes
from experiments.results.scored import Scores
from experiments.study.configs import CONFIGS, DECLARING, build, find_config, run_text
from experiments.study.missing import refuse_unreachable
from experiments.study.processes import read_processes
from experiments.study.settings import Arm
from experiments.terminal import Console


def run_train(options: argparse.Namespace) -> int:
    """`grpolab train`."""
    return _train(options, options.config or ["embedded"])


def run_sft(options: argparse.Namespace) -> int:
    """`grpolab sft`: a config without a source of responses is refused."""
    return _train(options, options.config or ["sft"], supervised=True)


def _train(options: argparse.Namespace, files: Sequence[str], *, supervised: bool = False) -> int:
    """Train one run, in a worker of this machine."""
    track, processes = check_trackers(options.track), read_processes(options.processes, options.accelerate)
    recipe, text, preflight = _read_run(files, options.bind, supervised=supervised)
    folder = Path(options.out) / options.name / recipe.variant.name / f"seed={options.seed}"
    console = Console()
    show_notes(preflight, [recipe], console)
    arm = Arm(recipe.variant.name, ())
    job = _checked(Job(arm, options.seed, text, str(folder), processes=processes, track=track), recipe, console)
    _run(job, recipe, console)
    console.print(f"{folder}: finished; the trained model is in {folder / 'checkpoint'}", soft_wrap=True)
    return 0


def _read_run(files: Sequence[str], bindings: Sequence[str], *, supervised: bool) -> tuple[Recipe, str, list[str]]:
    """The recipe of a config, its gin text and its preflight notes; raises where it cannot work."""
    with registry.config([find_config(file) for file in files], bindings, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
        if supervised and recipe.source is None:
            raise GrpoLabError(
                f"sft trains on given responses, but {', '.join(files)} binds no train.source: begin the file "
                "with include 'sft.gin', or bind train.source = @worked_solutions(), train.variant = @sft() and "
                "train.group_size = 1"
            )
        refuse_unreachable(recipe.policy.model)  # before anything is written
        preflight = list(recipe.preflight().values())
        # the file may be a study's: the bindings that declare the study are not for this command
        keys = [key for key in registry.bindings_in_force() if key[0].removeprefix("settings.") not in DECLARING]
        refuse_unused(keys, bindings_used(), recipe.parts, [recipe.variant.name])
        return recipe, run_text(), preflight


def _checked(job: Job, recipe: Recipe, console: Console) -> Job:
    """The job after its checks: stored files intact, same identity, and one tiny step where it has not begun."""
    if os.environ.get("RANK", "0") == "0":  # under accelerate launch the other ranks would wait for it
        quarantine_damaged([job], {job.arm.label: recipe}, console)
    job = identified(job, recipe)
    has_trained = any(Path(job.folder).glob("checkpoint/*"))
    left_out = rehearse_arms({} if has_trained else {job.arm.label: recipe}, console)
    return replace(job, rehearsed=job.arm.label not in left_out)


def _run(job: Job, recipe: Recipe, console: Console) -> None:
    """Run the job unless it has finished; GrpoLabError where it fails."""
    scores = Scores(Path(job.folder).parents[1], f"{suites_at(recipe, 0)[0]}/accuracy")
    if job.store.is_finished:
        console.print(f"{job.arm.label} seed {job.seed}: {scores.end(*job.key)}", highlight=False, markup=False)
        return
    with Progress(1, 0, console, scores) as progress:
        try:
            failures = local.launch([job], 1, progress)
        except BrokenArmError as error:
            raise GrpoLabError(error.message) from error
    for message in failures.values():
        raise GrpoLabError(message)
