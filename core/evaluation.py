"""Evaluation on the study's fixed questions: greedily once, sampled K times, stored per question."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from core.errors import GrpoLabError, MachineError
from core.problems import Problem
from core.randomness import key
from core.recipe import Recipe
from core.rollout import Draw, Run, Sampled, grade, sample_all
from core.scoring import MOST_FAILED, Scores


def suites_at(recipe: Recipe, step: int, *, last: bool = False) -> tuple[str, ...]:
    """The test suites due at a step: the primary one regularly, the others at the first and last step only."""
    suites = recipe.task.suites if recipe.evaluation.split is None else (recipe.evaluation.split,)
    if last or step in (0, recipe.steps):
        return suites
    return suites[:1] if step % recipe.evaluation.every == 0 else ()


def evaluate(run: Run, step: int, *, last: bool = False) -> list[dict[str, Any]]:
    """One record per test suite that is due: a summary, and every question with its responses.

    Questions are those of the evaluation's own seed, the same for all seeds and arms; sampling noise is keyed by the
    run's seed, the step and the question. Tokens sampled here are not counted as training tokens.
    """
    settings, task = run.recipe.evaluation, run.recipe.task
    counted = run.sampled_tokens
    records = []
    for place, split in enumerate(suites_at(run.recipe, step, last=last)):
        problems = [task.problem(split, settings.seed, i) for i in range(settings.questions)]
        noise_key = key(run.seed, "eval", step, place)
        draws = [Draw(settings.samples, noise_key, settings.temperature), Draw()]
        drawn, greedy = sample_all(run, problems, draws)
        records.append(
            {"step": step, "split": split, "total_sampled_tokens": counted} | _record(run, problems, drawn, greedy)
        )
    run.sampled_tokens = counted
    return records


def _record(run: Run, problems: Sequence[Problem], drawn: Sampled, greedy: Sampled) -> dict[str, Any]:
    scores, greedy_scores = (_score(run, sampled) for sampled in (drawn, greedy))
    questions = []
    for p, problem in enumerate(problems):
        questions.append({
            "index": problem.index,
            "prompt": problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"],
            "answer": problem.answer,
            **({"family": problem.family} if problem.family else {}),
            "greedy": _response(greedy, greedy_scores, p, 0),
            "samples": [_response(drawn, scores, p, k) for k in range(scores.correct.shape[1])],
        })  # fmt: skip
    lengths = drawn.generation.mask.sum(-1).float().cpu()
    correct = scores.correct
    summary = {
        "accuracy": mean(correct.float()),
        "lenient_accuracy": mean(scores.lenient.float()),
        "greedy_accuracy": mean(greedy_scores.correct.float()),
        "pass_at_k": mean(correct.any(1).float()),
        "length": mean(lengths),
        "length_correct": mean(lengths[correct]),
        "length_incorrect": mean(lengths[~correct]),
        "truncated": mean(drawn.generation.truncated.float()),
        "entropy": mean(drawn.generation.entropy[drawn.generation.mask]),
        "shows": {name: _share(pattern, drawn.texts) for name, pattern in run.recipe.task.patterns.items()},
        "samples": correct.shape[1],
        "ungraded": len({*scores.failed, *greedy_scores.failed}),
    }
    return {"summary": summary, "questions": questions}


def _score(run: Run, sampled: Sampled) -> Scores:
    """The verifier's verdicts. A question that it fails on twice stays in the test, as wrong, and is counted.

    Dropping it would make the test another one for this run alone. Raises `GrpoLabError` beyond 5 % of the questions.
    """
    scores = grade(run.recipe.rewards[:1], sampled)
    if len(scores.failed) > MOST_FAILED * len(sampled.problems):
        raise (MachineError if scores.by_machine else GrpoLabError)(
            f"{len(scores.failed)} of {len(sampled.problems)} test questions cannot be graded. "
            f"The first failure:\n{scores.failure}"
        )
    return scores


def _response(sampled: Sampled, scores: Scores, p: int, k: int) -> dict[str, Any]:
    return {
        "text": sampled.texts[p][k],
        "correct": bool(scores.correct[p, k]),
        "length": int(sampled.generation.mask[p, k].sum()),
    }


def _share(pattern: str, texts: Sequence[Sequence[str]]) -> float:
    """The share of responses in which a pattern is found."""
    found = [re.search(pattern, text) is not None for row in texts for text in row]
    return sum(found) / len(found)


def mean(values: torch.Tensor) -> float | None:
    """The mean, or None of nothing and of what is not known (NaN)."""
    average = float(values.mean()) if values.numel() else math.nan
    return None if math.isnan(average) else average
