"""One run, without a study: read, checked, run on this machine."""

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
from experiments.planning.plan import identified, rehearse_arms, show_notes
from experiments.results.scored import Scores
from experiments.study.configs import CONFIGS, DECLARING, build, find_config, run_text
from experiments.study.missing import refuse_unreachable
from experiments.study.processes import ONE, Processes
from experiments.study.settings import Arm
from experiments.terminal import Console


def plan_run(
    files: Sequence[str],
    bindings: Sequence[str],
    folder: Path,
    seed: int,
    console: Console,
    *,
    processes: Processes = ONE,
    track: tuple[str, ...] = (),
    supervised: bool = False,
) -> tuple[Job, Recipe]:
    """The run that a config describes, below `folder`, and its recipe.

    `supervised` refuses a config that samples what it trains on. Raises `GrpoLabError` for what cannot work, and where
    the folder has another run.
    """
    recipe, text, notes = _read_run(files, bindings, supervised=supervised)
    show_notes(notes, [recipe], console)
    arm = Arm(recipe.variant.name, ())
    place = folder / arm.label / f"seed={seed}"
    return _checked(Job(arm, seed, text, str(place), processes=processes, track=track), recipe, console), recipe


def run_job(job: Job, recipe: Recipe, console: Console) -> None:
    """Run the job on this machine unless it has finished; GrpoLabError where it fails."""
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


def _read_run(files: Sequence[str], bindings: Sequence[str], *, supervised: bool) -> tuple[Recipe, str, list[str]]:
    """The recipe of a config, its gin text, and what the recipe notes of itself; raises where it cannot work."""
    with registry.config([find_config(file) for file in files], bindings, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
        if supervised and recipe.source is None:
            raise GrpoLabError(
                f"sft trains on given responses, but {', '.join(files)} binds no train.source: begin the file "
                "with include 'sft.gin', or bind train.source = @worked_solutions(), train.variant = @sft() and "
                "train.group_size = 1"
            )
        refuse_unreachable(recipe.policy.model)  # before anything is written
        notes = list(recipe.preflight().values())
        # a study's file may be trained from: what declares the study is not for this command
        keys = [key for key in registry.bindings_in_force() if key[0].removeprefix("settings.") not in DECLARING]
        refuse_unused(keys, bindings_used(), recipe.parts, [recipe.variant.name])
        return recipe, run_text(), notes


def _checked(job: Job, recipe: Recipe, console: Console) -> Job:
    """The job, what there is of it found whole and the same, and a tiny step taken where it has not begun."""
    if os.environ.get("RANK", "0") == "0":  # of a run that accelerate launch has started: the others would wait for it
        quarantine_damaged([job], {job.arm.label: recipe}, console)
    job = identified(job, recipe)
    has_trained = any(Path(job.folder).glob("checkpoint/*"))
    left_out = rehearse_arms({} if has_trained else {job.arm.label: recipe}, console)
    return replace(job, rehearsed=job.arm.label not in left_out)
