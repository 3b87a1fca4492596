"""Commands that run: one run, or arms x seeds of a study, a race or a tuning, and what they end with."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import core.parts.registry as registry
from core.device import device_note
from core.errors import GrpoLabError
from core.loop.evaluation import suites_at
from core.loop.recipe import Recipe
from experiments.cli.launchers import chosen_launcher, needs_of
from experiments.cli.tune import conclude_tuning, declared_rates, tuning_of
from experiments.launchers import local
from experiments.launchers.job import BrokenArmError, Job
from experiments.launchers.progress import Progress
from experiments.launchers.quarantine import quarantine_damaged
from experiments.launchers.reevaluation import reevaluate_models, refuse_impossible
from experiments.launchers.rehearsal import BrokenRecipeError, rehearse
from experiments.launchers.sequential import SequentialSchedule
from experiments.launchers.trackers import check_trackers
from experiments.planning.dry_run import show_plan
from experiments.report import verdict_table, write_figures, write_report, write_tables
from experiments.report.tables import no_verdict
from experiments.results.scored import Scores
from experiments.results.stored_study import load_study
from experiments.study.configs import (
    CONFIGS,
    DECLARING,
    build,
    find_config,
    run_text,
)
from experiments.study.declare import declare, grows_from
from experiments.study.missing import refuse_unreachable
from experiments.study.processes import read_processes
from experiments.study.settings import Arm, check_seeds
from experiments.study.study import (
    Study,
    prepare_study,
)
from experiments.study.tuned import PARAMETER, tuning_seeds
from experiments.terminal import Console

RATE: Final = ("settings.adamw", PARAMETER.split(".")[1])
"""The learning rate among a study's bindings."""


def run_train(options: argparse.Namespace, *, supervised: bool = False) -> int:
    """`grpolab train`; `supervised` refuses a config that samples what it trains on."""
    track, processes = check_trackers(options.track), read_processes(options.processes, options.accelerate)
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe = build("train")
        if supervised and recipe.source is None:
            raise GrpoLabError(
                f"sft trains on given responses, but {', '.join(options.config)} binds no train.source: begin the file "
                "with include 'sft.gin', or bind train.source = @worked_solutions(), train.variant = @sft() and "
                "train.group_size = 1"
            )
        refuse_unreachable(recipe.policy.model)  # before anything is written
        said = recipe.preflight()
        # a study's file may be trained from: what declares the study is not for this command
        keys = [key for key in registry.bindings_in_force() if key[0].removeprefix("settings.") not in DECLARING]
        registry.refuse_unused(keys, registry.bindings_used(), recipe.parts, [recipe.variant.name])
        text = run_text()
    folder = Path(options.out) / options.name / recipe.variant.name / f"seed={options.seed}"
    arm = Arm(recipe.variant.name, ())
    job = Job(arm, options.seed, text, str(folder), processes=processes, track=track)
    console = Console()
    for words in (*said.values(), *filter(None, [device_note()])):
        console.print(words, highlight=False, markup=False)
    if recipe.warning:
        console.print(f"warning: {recipe.warning}", style="yellow", highlight=False, markup=False)
    if os.environ.get("RANK", "0") == "0":  # of a run that accelerate launch has started: the others would wait for it
        quarantine_damaged([job], {job.arm.label: recipe}, console)
    job = replace(job, identity=job.facts(recipe)["identity"])
    job.store.check_identity(job.identity or {})  # a finished one too
    has_trained = any(folder.glob("checkpoint/*"))
    left_out = rehearse_arms({} if has_trained else {arm.label: recipe}, console)
    job = replace(job, rehearsed=arm.label not in left_out)
    scores = Scores(folder.parents[1], f"{suites_at(recipe, 0)[0]}/accuracy")
    if job.store.is_finished:
        console.print(f"{arm.label} seed {options.seed}: {scores.end(*job.key)}", highlight=False, markup=False)
    with Progress(1, int(job.store.is_finished), console, scores) as progress:
        try:
            failures = {} if job.store.is_finished else local.launch([job], 1, progress)
        except BrokenArmError as error:
            raise GrpoLabError(error.message) from error
    for message in failures.values():
        raise GrpoLabError(message)
    console.print(f"{folder}: finished; the trained model is in {folder / 'checkpoint'}", soft_wrap=True)
    return 0


def run_sft(options: argparse.Namespace) -> int:
    """`grpolab sft`."""
    options.config = options.config or ["sft"]
    return run_train(options, supervised=True)


def run_compare(options: argparse.Namespace) -> int:
    """`grpolab compare`."""
    if not options.config and not options.bind:
        raise GrpoLabError("compare needs a study: -c FILE.gin (try: grpolab compare -c demo)")
    return run_study(options)


def run_ablate(options: argparse.Namespace) -> int:
    """`grpolab ablate`."""
    if not options.config and not options.bind:
        raise GrpoLabError("ablate needs axes: -c FILE.gin (try: grpolab ablate -c ablate_dapo)")
    return run_study(options, ablating=True)


def run_study(options: argparse.Namespace, *, ablating: bool = False) -> int:
    """Run the study of a config and judge it."""
    seeds = parse_seeds(options.seeds) if options.seeds else None
    race = ["compare.race = True"] if options.race else []
    study = prepare_study([find_config(file) for file in options.config], [*options.bind, *race], seeds)
    if ablating and study.ablation is None:
        raise GrpoLabError(
            "ablate needs axes: bind ablate.axes = {'dapo.eps_high': [0.28, 0.2]} (arms written down one by one are "
            "for grpolab compare)"
        )
    if len(study.recipes) == 1:
        raise GrpoLabError(
            f"compare has one arm, '{study.settings.baseline}', and nothing to compare it with: add another to "
            "compare.variants or compare.arms, or train it alone with grpolab train"
        )
    console = Console(stderr=options.json)
    return run_arms(study, options, console, lambda folder: conclude(folder, console, as_json=options.json))


def run_tune(options: argparse.Namespace) -> int:
    """`grpolab tune`."""
    if not options.config and not options.bind:
        raise GrpoLabError("tune needs a study: -c FILE.gin --rates 1e-4,3e-4,1e-3 (try: grpolab tune -c demo ...)")
    files = [find_config(file) for file in options.config]
    given = [] if options.rates is None else [f"tune.rates = [{options.rates}]"]
    # what is being made cannot be read yet, and every rate takes all its seeds
    without = ["compare.tuned = None", "compare.race = False", "compare.looks = ()", "compare.reevaluate = None"]
    bindings = [*options.bind, *given, *without]
    rates = declared_rates(files, bindings)
    study = prepare_study(files, bindings, [0])
    tuning = tuning_of(study, rates, tuning_seeds(parse_seeds(options.seeds), options.seeds))
    console = Console()
    return run_arms(
        tuning, options, console, lambda folder: conclude_tuning(study, tuning, rates, folder, console), judged=False
    )


def run_arms(
    study: Study,
    options: argparse.Namespace,
    console: Console,
    conclude: Callable[[Path], int],
    *,
    judged: bool = True,
) -> int:
    """Run arms x seeds and `conclude` on the study's folder, or show what that would be.

    Without `judged` no verdicts will follow, so nothing is said that concerns them.
    """
    launch = chosen_launcher(options)
    track, processes = check_trackers(options.track), read_processes(options.processes, options.accelerate)
    folder = Path(options.out) / study.settings.name
    steps = next(iter(study.recipes.values())).steps
    # a cluster has its own limits
    most_workers = (os.cpu_count() or 1) if options.launcher == "local" else len(study.recipes) * len(study.seeds)
    workers = options.workers or most_workers
    most = "at most " if study.settings.may_end_early else ""
    console.print(
        f"{folder}: {most}{len(study.settings.arms)} arms x {len(study.seeds)} seeds x {steps} steps",
        highlight=False,
    )
    for model in sorted({recipe.policy.model for recipe in study.recipes.values()}):
        refuse_unreachable(model)
    for said in sorted({said for recipe in study.recipes.values() for said in recipe.preflight().values()}):
        console.print(said, highlight=False, markup=False)
    if note := device_note():
        console.print(note, highlight=False, markup=False)
    warnings = [recipe.warning for recipe in study.recipes.values() if recipe.warning]
    for warning in [*warnings, *(study.confounded() if judged else ())]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    untried = rehearse_arms(
        {
            label: recipe
            for label, recipe in _unlike(study).items()
            if options.dry_run or not any((folder / label).glob("seed=*/checkpoint/*"))
        },
        console,
        on_accelerators=bool(options.gpus),
    )
    grow = getattr(options, "grow", False) and grows_from(study, folder, grow=True) is not None
    if options.dry_run:
        show_plan(study, Path(options.out), workers, console, measure=not options.no_probe, judged=judged)
        return 0
    needs = {label: needs_of(recipe, processes, options) for label, recipe in study.recipes.items()}
    jobs = [
        Job(
            arm,
            seed,
            study.config,
            str(folder / arm.label / f"seed={seed}"),
            needs[arm.label],
            processes,
            track,
            rehearsed=arm.label not in untried,
        )
        for seed in study.seeds
        for arm in study.settings.arms
    ]
    command = "grpolab " + shlex.join(sys.argv[1:])
    if not grow:
        declare(study, folder, command)
    quarantine_damaged(jobs, study.recipes, console)
    jobs = [replace(job, identity=job.facts(study.recipes[job.arm.label])["identity"]) for job in jobs]
    for job in jobs:  # finished ones too: an edit in the middle would mix two estimators in one verdict
        job.store.check_identity(job.identity or {})
    refuse_impossible(study, jobs)
    if grow:  # what was there is whole, and the same as it would be now
        declare(study, folder, command, grow=True)
    left = [job for job in jobs if not job.store.is_finished]
    rows = SequentialSchedule(folder, jobs) if study.settings.may_end_early else None
    declared = study.declaration
    scores = Scores(folder, declared["metric"], declared["scalar"], declared["axis"], declared["budget"])
    with Progress(len(jobs), len(jobs) - len(left), console, scores) as progress:
        if rows:
            failures = launch(rows(), workers, progress, more=rows)
        else:
            failures = launch(left, workers, progress) if left else {}
    for (arm, seed), message in failures.items():
        console.print(f"\n{arm} seed {seed} failed: {message}", style="red", highlight=False, markup=False)
    if study.settings.reevaluate:
        reevaluate_models(study, jobs, console)
    code = conclude(folder)
    return 1 if failures else code


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


def _unlike(study: Study) -> dict[str, Recipe]:
    """The arms of a study but for those that differ from an earlier one in the learning rate alone."""
    kinds: dict[frozenset[tuple[tuple[str, str], str]], str] = {}
    for label, bound in study.bound.items():
        kinds.setdefault(frozenset(each for each in bound.items() if each[0] != RATE), label)
    return {label: study.recipes[label] for label in kinds.values()}


def conclude(folder: Path, console: Console, *, as_json: bool = False) -> int:
    """Verdict table, report and where it is."""
    study = load_study(folder)
    judgement = study.judge()
    if as_json:
        print(
            json.dumps(judgement.to_json() if judgement else {"broken": study.broken} if study.broken else {}, indent=1)
        )
    if judgement is None:
        console.print(no_verdict(study), highlight=False, markup=False)
    elif not as_json:
        analysis = judgement.analysis
        console.print(verdict_table(judgement, study))
        for warning in judgement.warnings:
            console.print(warning, style="bold yellow", highlight=False, markup=False)
        for comparison in analysis.comparisons:
            console.print(comparison.sentence, highlight=False, markup=False)
        for assessment in judgement.claim.assessments if judgement.claim else ():
            console.print(f"predicted: {assessment.sentence}", highlight=False, markup=False)
        for note in analysis.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
        if not judgement.plan.sequential and any(c.verdict == "inconclusive" for c in analysis.comparisons):
            console.print(
                "more seeds, or further questions to the final models (compare.reevaluate): the same command with them "
                "and --grow uses all finished runs",
                highlight=False,
            )
    write_tables(study, judgement, folder / "tables")
    path = write_report(study, judgement, folder / "report.html")
    write_figures(study, path.read_text("utf-8"), folder / "figures")
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return 1 if study.broken else 0


def parse_seeds(text: str) -> tuple[int, ...]:
    """`8` means seeds 0 to 7; `0,1,5` means these."""
    try:
        given = [int(part) for part in text.split(",")] if "," in text else int(text)
    except ValueError:
        raise GrpoLabError(f"--seeds {text}: give a number of seeds (8) or a list (0,1,2)") from None
    return check_seeds("--seeds", given)
