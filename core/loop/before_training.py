"""The evaluation before training, which runs of a seed that differ in training alone have in common."""

from collections.abc import MutableMapping
from typing import Any, TypeAlias

from core.loop.episodes import prompt_tokens
from core.loop.evaluation import evaluate, suites_at
from core.loop.recipe import Recipe
from core.loop.run_state import RunState
from core.parts.options import RewardOptions
from core.store.integrity import hash_tensors

Known: TypeAlias = MutableMapping[str, list[dict[str, Any]]]
"""Records of evaluations before training by `digest_of`; of runs that share all else that answers depend on."""


def evaluate_untrained(run: RunState, known: Known | None = None) -> list[dict[str, Any]]:
    """The records of `evaluate` at step 0, from `known` if they are there, and else left there.

    `known` belongs to runs with the same seed, settings of task, rewards, model, sampler and evaluation, code,
    libraries and machine: such runs give the same answers. It is not used where a second evaluation may come out
    otherwise (a sampler with noise of its own, a model as judge), and what could not be graded is not left in it.
    """
    if known is None or not _is_repeatable(run.recipe):
        return evaluate(run, 0)
    digest = digest_of(run)
    if digest in known:
        return known[digest]
    records = evaluate(run, 0)
    if not any(record["summary"]["ungraded"] for record in records):
        known[digest] = records
    return records


def digest_of(run: RunState) -> str:
    """Of the weights before training, and of the questions as the model reads them."""
    settings, task = run.recipe.evaluation, run.recipe.task
    questions = [
        prompt_tokens(run, task.problem(split, settings.seed, i), settings.seed)
        for split in suites_at(run.recipe, 0)
        for i in range(settings.questions)
    ]
    return f"{run.hashes['initial_weights']}-{hash_tensors(questions)}"


def _is_repeatable(recipe: Recipe) -> bool:
    """Whether the same weights give the same answers, and these the same grades, a second time."""
    return getattr(recipe.generator, "exact", False) and not RewardOptions.of(recipe.rewards[0]).together
