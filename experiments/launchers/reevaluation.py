"""Further questions to the models of finished runs: `compare.reevaluate`.

They are put to the final model, or to those of the last evaluations (`compare.reevaluate_models`), when all runs have
ended, on this machine. Their answers are added to the run's folder, whose other files stay as they are; a command that
was stopped goes on with the next model.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress as Bar
from safetensors.torch import load_file

from core.distributed import init
from core.errors import GrpoLabError
from core.loop.evaluation import further_problems, reevaluate, reevaluated
from core.loop.recipe import Recipe
from core.loop.resume import SMALL_MODEL
from core.loop.run_state import RunState
from core.model.loading import DTYPES, read_config
from core.model.policy import Policy, PolicySettings, load_policy, tokenizer_of
from core.model.prompts import prompt_tokens
from core.model.soundness import context_of
from core.parts.registry import config
from core.store.files import read_json
from core.store.integrity import (
    CHECKPOINT,
    KEPT_MODELS,
    evaluation_file,
    refuse_damaged_model,
)
from experiments.launchers.job import Job
from experiments.memory.architecture import meta_model, read_architecture
from experiments.memory.forecast import count_parameters
from experiments.results import stored_run
from experiments.study.configs import build
from experiments.study.study import Study
from experiments.terminal import Console

MODELS = ("config.json", "adapter_config.json")
"""Every final model's folder holds one of them."""


def refuse_impossible(study: Study, jobs: Sequence[Job]) -> None:
    """Raise `GrpoLabError` for a further question that does not fit, and for a finished run whose model is gone.

    Called before the study is declared: a declaration cannot be taken back.
    """
    further = study.settings.reevaluate
    if further is None:
        return
    suite, checked = study.settings.metric.split("/")[0], set()
    for label, recipe in study.recipes.items():
        prompts = [problem.prompt for problem in further_problems(recipe, suite, range(further))]
        check_key = (recipe.policy, recipe.max_tokens, repr(prompts))
        if check_key not in checked:
            _refuse_unfit(label, recipe, prompts)
            checked.add(check_key)
    for job in jobs:
        folder = Path(job.folder) / CHECKPOINT
        most = max(_answered(study, Path(job.folder), *job.key).values(), default=0)
        if most > further:
            raise GrpoLabError(
                f"compare.reevaluate = {further}: the model in {job.folder} has answered {most} further questions: "
                "declare as many"
            )
        left = _left(study, Path(job.folder), *job.key)
        _refuse_missing_models(study, job, left)
        if left and job.store.is_finished and not any((folder / name).is_file() for name in MODELS):
            raise GrpoLabError(
                f"compare.reevaluate: {job.arm.label} seed {job.seed} has finished, but its model is not in {folder}. "
                "Bring it back (from the machine that trained it, where results were copied without it), or remove "
                f"{job.folder}: the same command trains this run again"
            )


def _refuse_missing_models(study: Study, job: Job, left: int) -> None:
    """Raise where a model of an earlier evaluation that is to be asked is not there, or will not be."""
    recipe, number = study.recipes[job.arm.label], study.settings.reevaluate_models
    missing = [step for step in _kept_to_ask(recipe, number) if not model_file(Path(job.folder), step).is_file()]
    if left and job.store.is_finished and missing:
        raise GrpoLabError(
            f"compare.reevaluate_models = {number}: {job.arm.label} seed {job.seed} has finished, but its model of "
            f"step {missing[0]} is not in {model_file(Path(job.folder), missing[0]).parent}: it was not kept "
            f"(evaluation.keep_models). {_without_kept(recipe)}"
        )
    if _kept_to_ask(recipe, number) and not job.store.is_finished and not _keeps_models(recipe):
        raise GrpoLabError(
            f"compare.reevaluate_models = {number}: the model of arm '{job.arm.label}' is large, and those of "
            f"evaluations are not kept: bind evaluation.keep_models = True. {_without_kept(recipe)}"
        )


def _keeps_models(recipe: Recipe) -> bool:
    """Whether runs of a recipe will keep the models of their last evaluations."""
    if recipe.evaluation.keep_models is not None:
        return recipe.evaluation.keep_models
    try:
        architecture = read_architecture(meta_model(recipe.policy))
    except GrpoLabError:  # a kind of model whose size is not known beforehand
        return False
    width = DTYPES[recipe.policy.dtype].itemsize if recipe.policy.lora is None else torch.float32.itemsize
    return count_parameters(architecture, recipe.policy.lora).trainable * width <= SMALL_MODEL


def _kept_to_ask(recipe: Recipe, models: int) -> tuple[int, ...]:
    """The steps whose kept models are asked, where so many of a run's are; the final model is apart unless averaged."""
    return earlier_steps(recipe, models) + ((recipe.steps,) if recipe.evaluation.ema_lag is not None else ())


def _without_kept(recipe: Recipe) -> str:
    """What to do where kept models are not to be had."""
    if recipe.evaluation.ema_lag is not None:
        return "What evaluation.ema_lag averages is nowhere else: leave compare.reevaluate out"
    return "Or bind compare.reevaluate_models = 1, to ask the final models alone"


def earlier_steps(recipe: Recipe, models: int) -> tuple[int, ...]:
    """The steps, before the last, whose models are asked where so many of a run's are."""
    return recipe.earlier_kept_steps[-(models - 1) :] if models > 1 else ()


def model_file(folder: Path, step: int) -> Path:
    """Where the finished run in `folder` keeps its weights of an earlier step."""
    return folder / CHECKPOINT / KEPT_MODELS / f"step={step:06d}.safetensors"


def _refuse_unfit(label: str, recipe: Recipe, prompts: Sequence[Any]) -> None:
    most = context_of(read_config(recipe.policy.model)) - recipe.max_tokens
    tokenizer = tokenizer_of(recipe.policy)
    for place, prompt in enumerate(prompts):
        if (length := len(prompt_tokens(tokenizer, prompt))) > most:
            raise GrpoLabError(
                f"compare.reevaluate: further question {place} of arm '{label}', {str(prompt)!r:.80}, has {length} "
                f"tokens; with train.max_tokens = {recipe.max_tokens} it may have {most}: ask at most {place} further "
                "questions"
            )


def left_to_answer(study: Study, folder: Path) -> list[int]:
    """How many questions the models of every run, finished or not, have yet to answer."""
    runs = product((arm.label for arm in study.settings.arms), study.seeds)
    return [_left(study, folder / arm / f"seed={seed}", arm, seed) for arm, seed in runs]


def _left(study: Study, folder: Path, arm: str, seed: int) -> int:
    further, answered = study.settings.reevaluate or 0, _answered(study, folder, arm, seed)
    return study.settings.reevaluate_models * further - sum(answered.values())


def _answered(study: Study, folder: Path, arm: str, seed: int) -> dict[int, int]:
    """How many further questions the models of a run have answered, by the step of each."""
    with suppress(GrpoLabError):  # a damaged run will be made again
        run = stored_run.read_run(folder, arm, seed)
        return run.answered_by_step(reevaluated(study.settings.metric.split("/")[0])) if run else {}
    return {}


def reevaluate_models(study: Study, jobs: Sequence[Job], console: Console) -> None:
    """Evaluate the models of every finished run on the declared further questions that they have not answered yet.

    Raises `GrpoLabError` naming the run whose model cannot answer.
    """
    finished = [(job, _left(study, Path(job.folder), *job.key)) for job in jobs if job.store.is_finished]
    left = [(job, number) for job, number in finished if number > 0]
    threads = torch.get_num_threads()
    try:
        with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
            shown = bar.add_task("further questions", total=sum(number for _, number in left))
            for place, (job, _) in enumerate(left, start=1):
                bar.update(shown, description=f"further questions, {job.arm.label} seed {job.seed}")
                try:
                    summaries = _reevaluate(study, job, partial(bar.advance, shown))
                except GrpoLabError as error:
                    raise GrpoLabError(f"{job.arm.label} seed {job.seed}, further questions: {error}") from error
                name = reevaluated(study.settings.metric)
                value = statistics.fmean(summary[name.rpartition("/")[2]] for summary in summaries)
                console.print(
                    f"[{place}/{len(left)}] {job.arm.label} seed {job.seed}: {name} {value:.3f} "
                    f"({study.settings.reevaluate} further questions to its {_which(study)})",
                    highlight=False,
                    markup=False,
                )
    finally:
        torch.set_num_threads(threads)


def _which(study: Study) -> str:
    models = study.settings.reevaluate_models
    return "final model" if models == 1 else f"last {models} evaluations' models"


def load_final(recipe: Recipe, folder: Path, device: torch.device | str = "cpu") -> Policy:
    """The final policy of a run of `recipe`, with its adapters unmerged: merging rounds below float32."""
    if recipe.policy.lora is None:
        settings = PolicySettings(str(folder), recipe.policy.dtype, attention=recipe.policy.attention)
        return load_policy(settings, device)
    refuse_damaged_model(folder, f"policy.model = {str(folder)!r}")
    policy = load_policy(recipe.policy, device)
    saved = load_file(folder / "adapter_model.safetensors")
    policy.load_state_dict(
        {name: saved[f"base_model.model.{name.replace('.default.', '.')}"] for name, _ in policy.trained()}
    )
    return policy


def _reevaluate(study: Study, job: Job, answered: Callable[[int], None]) -> list[Mapping[str, Any]]:
    """Evaluate one run's models; returns the summary of all further answers of each."""
    suite, further = study.settings.metric.split("/")[0], study.settings.reevaluate or 0
    store = job.store
    summaries: list[Mapping[str, Any]] = []
    with store.locked():
        stored = stored_run.read_run(Path(job.folder), *job.key)
        assert stored is not None
        with config(text=job.config, bindings=job.arm.bindings):
            recipe: Recipe = build("train")
        recipe.preflight()
        torch.set_num_threads(recipe.threads)
        earlier = earlier_steps(recipe, study.settings.reevaluate_models)
        policy = load_final(recipe, Path(job.folder) / CHECKPOINT, init().device)
        counts = stored.answered_by_step(reevaluated(suite))
        for step in (stored.steps, *earlier):
            file = store.folder / evaluation_file({"split": reevaluated(suite), "step": step})
            record = read_json(file) if step in counts else None
            if counts.get(step, 0) < further:  # else it was asked before, or by another process meanwhile
                if step in _kept_to_ask(recipe, study.settings.reevaluate_models):
                    policy.load_state_dict(load_file(model_file(Path(job.folder), step)))
                run = RunState(recipe, job.seed, policy, sampled_tokens=stored.sampled_tokens or 0)
                record = reevaluate(run, step, suite, further, record, answered, earlier=step in earlier)
                store.add_reevaluation(record)
            assert record is not None
            summaries.append(dict(record["summary"]))
    return summaries
