"""Plans the runs of a study: prints what they will be, tries a step of each arm, declares the study, makes the jobs."""

import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from core.device import device_note, precision_note, takes_cpu
from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from experiments.launchers.job import Job
from experiments.launchers.launcher import Where
from experiments.launchers.quarantine import quarantine_damaged
from experiments.launchers.reevaluation import refuse_impossible
from experiments.launchers.rehearsal import BrokenRecipeError, rehearse
from experiments.launchers.run import Plan
from experiments.planning.dry_run import show_plan
from experiments.planning.needs import needs_of
from experiments.study.declare import declare, grows_from
from experiments.study.missing import refuse_unreachable
from experiments.study.processes import Processes
from experiments.study.study import Study
from experiments.study.tuned import PARAMETER
from experiments.terminal import Console

RATE: Final = ("settings.adamw", PARAMETER.split(".")[1])
"""The learning rate among a study's bindings."""


@dataclass(frozen=True)
class RunOptions:
    """How the runs of a study are carried out, which is no part of their identity."""

    out: Path
    where: Where
    workers: int | None
    """At a time; None leaves it to the launcher."""
    processes: Processes
    """Of every run."""
    track: tuple[str, ...]
    """Trackers beside metrics.jsonl."""
    dry_run: bool = False
    probe: bool = True
    """Whether a dry run measures two steps of the baseline."""
    grow: bool = False
    """Whether a study that is declared in its folder may be declared anew."""


def plan_jobs(study: Study, options: RunOptions, console: Console, *, judged: bool = True) -> Plan | None:
    """What is to be run, declared and checked; None for a dry run, which prints it.

    Without `judged` no verdicts will follow, and nothing on them is printed. Raises `GrpoLabError` for an arm that
    cannot take a step, and for a folder in which something else was declared or run.
    """
    folder = options.out / study.settings.name
    workers = options.workers or options.where.launcher.workers(len(study.recipes) * len(study.seeds))
    _announce(study, folder, console, judged=judged)
    to_try = {
        label: recipe
        for label, recipe in _distinct_recipes(study).items()
        if options.dry_run or not any((folder / label).glob("seed=*/checkpoint/*"))
    }
    if hides_gpus(options.where):
        show_warning(
            f"runs compute on CPUs: this machine has a GPU, but with --launcher {options.where.launcher.name} a run "
            "sees those alone that it declares: give --gpus 1",
            console,
        )
    untried = rehearse_arms(to_try, console, on_accelerators=bool(options.where.gpus))
    grows = options.grow and grows_from(study, folder, grow=True) is not None
    if options.dry_run:
        show_plan(study, options.out, workers, console, measure=options.probe, judged=judged)
        return None
    jobs = _declared(study, folder, _jobs(study, folder, options, untried), console, grows=grows)
    return Plan(study, folder, jobs, options.where.launch, workers)


def _announce(study: Study, folder: Path, console: Console, *, judged: bool) -> None:
    """Print what is to be run, the notes of the recipes, and warnings."""
    steps = next(iter(study.recipes.values())).steps
    most = "at most " if study.settings.may_end_early else ""
    console.print(
        f"{folder}: {most}{len(study.settings.arms)} arms x {len(study.seeds)} seeds x {steps} steps",
        highlight=False,
    )
    for model in sorted({recipe.policy.model for recipe in study.recipes.values()}):
        refuse_unreachable(model)
    notes = sorted({note for recipe in study.recipes.values() for note in recipe.preflight().values()})
    show_notes(notes, study.recipes.values(), console)
    for warning in study.confounded() if judged else ():
        show_warning(warning, console)


def hides_gpus(where: Where) -> bool:
    """Whether runs see no GPU for want of a declaration, where this machine has one."""
    launcher = where.launcher
    return not where.gpus and "gpus" in launcher.takes and not launcher.shares_gpus and not takes_cpu()


def show_notes(notes: Iterable[str], recipes: Iterable[Recipe], console: Console) -> None:
    """Print notes on the recipes, a note on this machine, and the warnings of the recipes."""
    for note in (*notes, *filter(None, [device_note()])):
        console.print(note, highlight=False, markup=False)
    every = [each for recipe in recipes for each in (recipe.warning, precision_note(recipe.policy.dtype))]
    for warning in dict.fromkeys(every):
        if warning:
            show_warning(warning, console)


def show_warning(warning: str, console: Console) -> None:
    """A line in yellow."""
    console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def rehearse_arms(recipes: Mapping[str, Recipe], console: Console, *, on_accelerators: bool = False) -> Collection[str]:
    """Take one tiny step of every arm; raises where one fails. Returns the arms whose step this machine cannot take."""
    if not recipes:
        return ()
    try:
        rehearsed = rehearse(recipes, on_accelerators=on_accelerators)
    except BrokenRecipeError as error:
        raise GrpoLabError(
            f"arm '{error.label}' is broken: {error}\nNothing was run. Mend it and give the same command again"
        ) from error
    console.print(str(rehearsed), highlight=False, markup=False)
    return rehearsed.left_out.keys()


def _distinct_recipes(study: Study) -> dict[str, Recipe]:
    """The arms of a study, without those that differ from an earlier one in the learning rate alone."""
    kinds: dict[frozenset[tuple[tuple[str, str], str]], str] = {}
    for label, bound in study.bound.items():
        kinds.setdefault(frozenset(each for each in bound.items() if each[0] != RATE), label)
    return {label: study.recipes[label] for label in kinds.values()}


def _jobs(study: Study, folder: Path, options: RunOptions, untried: Collection[str]) -> list[Job]:
    """Seed after seed, a run of every arm."""
    needs = {label: needs_of(recipe, options.processes, options.where) for label, recipe in study.recipes.items()}
    return [
        Job(
            arm,
            seed,
            study.config,
            str(folder / arm.label / f"seed={seed}"),
            needs[arm.label],
            options.processes,
            options.track,
            rehearsed=arm.label not in untried,
        )
        for seed in study.seeds
        for arm in study.settings.arms
    ]


def _declared(study: Study, folder: Path, jobs: Sequence[Job], console: Console, *, grows: bool) -> list[Job]:
    """The jobs, once the study is declared in its folder and earlier runs there are found whole and the same."""
    command = "grpolab " + shlex.join(sys.argv[1:])
    if not grows:
        declare(study, folder, command)
    quarantine_damaged(jobs, study.recipes, console)
    identified_jobs = [identified(job, study.recipes[job.arm.label]) for job in jobs]
    refuse_impossible(study, identified_jobs)
    if grows:  # the earlier runs are whole, and the same as they would be now
        declare(study, folder, command, grow=True)
    return identified_jobs


def identified(job: Job, recipe: Recipe) -> Job:
    """The job with its identity; GrpoLabError where its folder has a run of another identity, finished or not.

    An edit in the middle would mix two estimators in one verdict.
    """
    job_with_identity = replace(job, identity=job.facts(recipe)["identity"])
    job_with_identity.store.check_identity(job_with_identity.identity or {})
    return job_with_identity
