"""One tiny real step of every arm before a study begins, to find broken arms before anything is written or queued.

    few prompts, few tokens: sample -> score -> shape -> filter -> log-probs -> advantages -> update, at a rate of 0
    -> one test question

It changes nothing that follows: no folder, random state, number of threads, or weight.
"""

import gc
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import psutil
import torch

from core.device import keeping_random_state, takes_cpu
from core.distributed import init
from core.errors import GrpoLabError, MachineError, TrainingError, brief, cause_of, describe_error
from core.generation.base import Generation, Generator, Request
from core.generation.native import native
from core.loop.clock import Clock
from core.loop.evaluation import evaluate, suites_at
from core.loop.learn import learn
from core.loop.recipe import Recipe
from core.loop.rewards import filter_groups, shape
from core.loop.rollout import (
    fits,
    grade,
    make_batch,
    sample_step,
    unfit,
)
from core.loop.run_state import RunState, make_providers
from core.loop.scoring import Scores
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.options import AdvantageOptions
from core.parts.problems import Problem
from core.randomness import key
from experiments.memory.forecast import forecast

TOKENS: Final = 8
"""Of a response."""
PROMPTS: Final = 2
EPOCHS: Final = 2
"""At most: enough that the policy differs from the sampler's."""
SEED: Final = 0


class BrokenRecipeError(GrpoLabError):
    """An arm cannot take the step."""

    def __init__(self, label: str, message: str) -> None:
        super().__init__(label, message)
        self.label, self.message = label, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Rehearsed:
    """The number of arms rehearsed, and by label the reason why others could not be."""

    taken: int
    left_out: Mapping[str, str]
    seconds: float

    def __str__(self) -> str:
        arms = "the arm" if self.taken == 1 else f"each of {self.taken} arms"
        parts = [f"one tiny step of {arms} works ({self.seconds:.1f} s)"] if self.taken else []
        for reason in dict.fromkeys(self.left_out.values()):
            labels = ", ".join(label for label, why in self.left_out.items() if why == reason)
            parts.append(f"no tiny step of {labels} here, {reason}: what is broken shows in their runs")
        return "; ".join(parts)


def rehearse(recipes: Mapping[str, Recipe], *, on_accelerators: bool = False) -> Rehearsed:
    """Take the step in every arm; raises `BrokenRecipeError` with arm, phase and place where one is broken.

    Arms with the same model share it. Left out are arms that this machine is too small for and, with
    `on_accelerators`, all arms where it has no accelerator.
    """
    started = time.perf_counter()
    left_out = {
        label: reason for label, recipe in recipes.items() if (reason := _reason_to_skip(recipe, on_accelerators))
    }
    here = {label: recipe for label, recipe in recipes.items() if label not in left_out}
    try:
        with _preserve_random_state():
            for settings in dict.fromkeys(recipe.policy for recipe in here.values()):
                sharing = {label: recipe for label, recipe in here.items() if recipe.policy == settings}
                left_out |= _rehearse_with_one_model(settings, sharing)
    finally:
        if not takes_cpu():  # the runs need it
            gc.collect()
            torch.accelerator.empty_cache()
    return Rehearsed(len(recipes) - len(left_out), left_out, time.perf_counter() - started)


def _rehearse_with_one_model(settings: PolicySettings, recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """Rehearse arms that share a model; returns the labels of those that the machine could not run, with the reason."""
    policy: Policy | None = None
    checked: set[Any] = set()
    left_out: dict[str, str] = {}
    for label, recipe in recipes.items():
        stages = _PhaseClock()
        try:
            torch.set_num_threads(recipe.threads)
            with stages("loading the model"):
                policy = policy or load_policy(settings, init().device)
            _step(recipe, policy, stages, checked)
        except TrainingError:
            pass  # a method may fail: that is for the study to show
        except Exception as error:
            if cause_of(error) == "code":
                raise BrokenRecipeError(
                    label, f"one tiny step fails in {stages.at}: {describe_error(error)}"
                ) from error
            left_out[label] = f"where {stages.at} fails for want of the machine ({brief(error)})"
        if policy is not None and not all(bool(p.isfinite().all()) for p in policy.model.parameters()):
            policy = None  # the next arm must not be blamed for it
    return left_out


def _reason_to_skip(recipe: Recipe, on_accelerators: bool) -> str:
    """Why this machine cannot rehearse a recipe; empty if it can."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "in one process of several"
    if on_accelerators and takes_cpu():
        return "for want of the GPU that runs ask for"
    try:
        required = forecast(replace(recipe, prompts=_prompts(recipe), max_tokens=TOKENS, generator=native())).peak
    except GrpoLabError:  # the step itself reports it better
        return ""
    available = psutil.virtual_memory().available if takes_cpu() else torch.accelerator.get_memory_info()[0]
    if required > available:
        return f"which takes {required / 2**30:.1f} GiB where {available / 2**30:.1f} are free"
    return ""


def _prompts(recipe: Recipe) -> int:
    return max(PROMPTS, recipe.minibatches)


def _tiny(recipe: Recipe) -> Recipe:
    """The recipe with as few prompts and tokens as its parts can do with, at a rate of 0; groups keep their size."""
    sampler = native() if getattr(recipe.generator, "is_costly", False) else recipe.generator
    return replace(
        recipe,
        prompts=_prompts(recipe),
        epochs=min(EPOCHS, recipe.epochs),
        generator=_Truncated(sampler),
        optimizer=replace(recipe.optimizer, learning_rate=0.0),
        evaluation=replace(recipe.evaluation, questions=1),
    )


@dataclass(frozen=True)
class _Truncated:
    """Cuts every response of another generator after a few tokens, as if it had ended there."""

    generator: Generator

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `core.generation.Generator`."""
        short = [replace(request, max_tokens=min(TOKENS, request.max_tokens)) for request in requests]
        generations = self.generator.generate(policy, short)
        return [
            replace(generation, truncated=generation.truncated & (request.max_tokens <= TOKENS))
            for generation, request in zip(generations, requests, strict=True)
        ]


class _PhaseClock(Clock):
    """A clock that knows the present phase."""

    at = ""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time `phase`, and remember it for error messages."""
        self.at = {"fill": "filling in what the parts need"}.get(phase, phase)
        with super().__call__(phase):
            yield
        if phase == "fill":
            self.at = "advantages"


def _step(recipe: Recipe, policy: Policy, stages: _PhaseClock, checked: set[Any]) -> None:
    """The step itself; `checked` holds the data already known to fit the model."""
    run = RunState(_tiny(recipe), SEED, policy)
    variant = run.recipe.variant
    with stages("data"):
        _refuse_unfit(RunState(recipe, SEED, policy), checked)
    with stages("setting up the providers"):
        run.providers = make_providers(run)
    run.optimizer = policy.optimizer(run.recipe.optimizer)
    run.advantage_state = AdvantageOptions.of(variant.advantage).first_state()
    with stages("sampling"):
        sampled = sample_step(run, 1, 0)
    with stages("grading"):
        scores = grade(run.recipe.rewards, sampled)
        run.grader_log.note(scores)
        run.grader_log.add(0, run.recipe.prompts)
        if len(scores.failed) == run.recipe.prompts:
            raise (MachineError if scores.by_machine else GrpoLabError)(scores.failure)
        if sampled.labels is None:
            scores = _with_spread(scores)
        raw = make_batch(run, sampled, scores, 1)
    with stages("shaping"):
        shaped = shape(variant, raw)
    with stages("filtering"):
        filtered = filter_groups(variant, shaped)
    learn(run, filtered if filtered.groups else shaped, stages)
    with stages("evaluation"):
        evaluate(run, 0)


def _with_spread(scores: Scores) -> Scores:
    """Mark every other response right where all groups have equal rewards, so that filter and update have a signal."""
    correct = scores.correct
    if correct.shape[1] == 1 or bool((correct.any(1) & ~correct.all(1)).any()):
        return scores
    right = (torch.arange(correct.shape[1]) % 2 == 1).expand(correct.shape)
    parts = torch.where(scores.parts.isnan(), scores.parts, right[..., None].to(scores.parts))
    return replace(scores, parts=parts, correct=right, lenient=right)


def _refuse_unfit(run: RunState, checked: set[Any]) -> None:
    """Raise for a test question, or one of a finite training set, that context or chat template does not take."""
    recipe, task = run.recipe, run.recipe.task
    settings = recipe.evaluation
    check_key = (id(task), recipe.max_tokens, settings)
    if check_key in checked:
        return
    for suite in suites_at(recipe, 0):
        problems = [task.problem(suite, settings.seed, i) for i in range(settings.questions)]
        _refuse_first(run, f"test questions of '{suite}'", problems)
    size = task.size("train") if hasattr(task, "size") else 0
    if recipe.source is None:
        _refuse_first(run, "training questions", [task.problem("train", key(SEED, "prompts"), i) for i in range(size)])
    checked.add(check_key)


def _refuse_first(run: RunState, which: str, problems: list[Problem]) -> None:
    by_roles = {() if isinstance(p.prompt, str) else tuple(m["role"] for m in p.prompt): p for p in problems}
    for problem in by_roles.values():
        run.policy.tokens(problem)  # whatever their words, the template takes them or not
    template_bound = len(run.policy.tokens(problems[0])) if problems else 0  # the template's tokens are among these
    most = run.policy.context - run.recipe.max_tokens
    # a tokenizer makes at most one token of a byte
    too_long = [p for p in problems if template_bound + len(str(p.prompt).encode()) > most and not fits(run, p)]
    if too_long:
        raise GrpoLabError(f"{len(too_long)} of {len(problems)} {which} do not fit. {unfit(run, too_long[0])}")


@contextmanager
def _preserve_random_state() -> Iterator[None]:
    """Restore random state and number of threads afterwards, whatever the user's parts draw or set."""
    threads, drawn, of_numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    try:
        with keeping_random_state():
            torch.manual_seed(key(SEED, "init"))
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(drawn)
        np.random.set_state(of_numpy)
