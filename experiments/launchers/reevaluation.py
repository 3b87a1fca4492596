"""Further questions to the final models of finished runs: `compare.reevaluate`.

Models are evaluated when all runs have ended, on this machine. Their answers are added to the run's folder, whose other
files stay as they are; a command that was stopped goes on with the next model.
"""

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
from core.loop.run_state import RunState
from core.model.loading import read_config
from core.model.policy import Policy, PolicySettings, load_policy, tokenizer_of
from core.model.prompts import prompt_tokens
from core.model.soundness import context_of
from core.parts.registry import config
from core.store.integrity import (
    CHECKPOINT,
    REEVALUATED,
    refuse_damaged_model,
)
from experiments.launchers.job import Job
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
        left, folder = _left(study, Path(job.folder), *job.key), Path(job.folder) / CHECKPOINT
        if left < 0:
            raise GrpoLabError(
                f"compare.reevaluate = {further}: the model in {job.folder} has answered {further - left} further "
                "questions: declare as many"
            )
        if left and job.store.is_finished and not any((folder / name).is_file() for name in MODELS):
            raise GrpoLabError(
                f"compare.reevaluate: {job.arm.label} seed {job.seed} has finished, but its model is not in {folder}. "
                "Bring it back (from the machine that trained it, where results were copied without it), or remove "
                f"{job.folder}: the same command trains this run again"
            )


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
    """How many questions the final model of every run, finished or not, has yet to answer."""
    runs = product((arm.label for arm in study.settings.arms), study.seeds)
    return [_left(study, folder / arm / f"seed={seed}", arm, seed) for arm, seed in runs]


def _left(study: Study, folder: Path, arm: str, seed: int) -> int:
    suite, further = study.settings.metric.split("/")[0], study.settings.reevaluate or 0
    with suppress(GrpoLabError):  # a damaged run will be made again
        run = stored_run.read_run(folder, arm, seed)
        return further - (run.answered_questions(reevaluated(suite)) if run else 0)
    return further


def reevaluate_models(study: Study, jobs: Sequence[Job], console: Console) -> None:
    """Evaluate the model of every finished run on the declared further questions that it has not answered yet.

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
                    summary = _reevaluate(study, job, partial(bar.advance, shown))
                except GrpoLabError as error:
                    raise GrpoLabError(f"{job.arm.label} seed {job.seed}, further questions: {error}") from error
                name = reevaluated(study.settings.metric)
                value = summary[name.rpartition("/")[2]]
                console.print(
                    f"[{place}/{len(left)}] {job.arm.label} seed {job.seed}: {name} {value:.3f} "
                    f"({study.settings.reevaluate} further questions to its final model)",
                    highlight=False,
                    markup=False,
                )
    finally:
        torch.set_num_threads(threads)


def load_final(recipe: Recipe, folder: Path, device: torch.device | str = "cpu") -> Policy:
    """The final policy of a run of `recipe`, with its adapters unmerged: merging rounds below float32."""
    if recipe.policy.lora is None:
        return load_policy(PolicySettings(str(folder), recipe.policy.dtype), device)
    refuse_damaged_model(folder, f"policy.model = {str(folder)!r}")
    policy = load_policy(recipe.policy, device)
    saved = load_file(folder / "adapter_model.safetensors")
    policy.load_state_dict(
        {name: saved[f"base_model.model.{name.replace('.default.', '.')}"] for name, _ in policy.trained()}
    )
    return policy


def _reevaluate(study: Study, job: Job, answered: Callable[[int], None]) -> Mapping[str, Any]:
    """Evaluate one run's model; returns the summary of all its further answers."""
    suite, further = study.settings.metric.split("/")[0], study.settings.reevaluate or 0
    store = job.store
    with store.locked():
        stored = stored_run.read_run(Path(job.folder), *job.key)
        assert stored is not None
        before = next((row for row in stored.evals if row["split"] == suite + REEVALUATED), None)
        if before is not None and len(before["questions"]) >= further:  # by another process meanwhile
            return dict(before["summary"])
        with config(text=job.config, bindings=job.arm.bindings):
            recipe: Recipe = build("train")
        recipe.preflight()
        torch.set_num_threads(recipe.threads)
        policy = load_final(recipe, Path(job.folder) / CHECKPOINT, init().device)
        run = RunState(recipe, job.seed, policy, sampled_tokens=stored.sampled_tokens or 0)
        record = reevaluate(run, stored.steps, suite, further, before, answered)
        store.add_reevaluation(record)
        return dict(record["summary"])
