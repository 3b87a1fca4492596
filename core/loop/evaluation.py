"""Evaluation on the study's fixed questions: greedily once, sampled K times, stored per question."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from core.errors import GrpoLabError, MachineError
from core.generation.base import Generation
from core.loop.episodes import turns_of
from core.loop.recipe import Recipe
from core.loop.rollout import (
    Draw,
    grade,
    sample_all,
)
from core.loop.run_state import RunState
from core.loop.scoring import MAX_FAILED, Scores
from core.loop.source import Sampled
from core.parts.problems import Problem
from core.randomness import key, stream
from core.store.integrity import REEVALUATED

REEVALUATION: Final = stream("reevaluation")
"""Noise of answers to questions that no evaluation asked."""
FINAL_SAMPLES: Final = stream("final_samples")
"""Noise of the samples that evaluations of the final score have beyond those of all evaluations."""
_MEAN_OVER: Final = {
    "greedy_accuracy": "questions",
    "pass_at_k": "questions",
    "length_correct": "right",
    "length_incorrect": "wrong",
    "entropy": "tokens",
}
"""What a number of a summary is a mean over, where it is not over all sampled answers."""


def suites_at(recipe: Recipe, step: int, *, last: bool = False) -> tuple[str, ...]:
    """The test suites due at a step: the primary one regularly, the others at the first and last step only."""
    suites = recipe.task.suites if recipe.evaluation.split is None else (recipe.evaluation.split,)
    if last or step in (0, recipe.steps):
        return suites
    return suites[:1] if step % recipe.evaluation.every == 0 else ()


def responses_at(recipe: Recipe, step: int, *, last: bool = False) -> int:
    """How many responses the evaluations at a step take, greedy ones included."""
    settings, suites = recipe.evaluation, suites_at(recipe, step, last=last)
    samples = [settings.samples if place else settings.samples_at(step, recipe.steps) for place in range(len(suites))]
    return settings.questions * sum(1 + each for each in samples)


def evaluate(run: RunState, step: int, *, last: bool = False) -> list[dict[str, Any]]:
    """One record per test suite that is due: a summary, and every question with its responses.

    Questions are those of the evaluation's own seed, the same for all seeds and arms; sampling noise is keyed by the
    run's seed, the step and the question. Tokens sampled here are not counted as training tokens. Further samples of an
    evaluation that the final score rests on come after the others, with noise of their own. It is the moving average of
    the weights that answers, where the recipe has one.
    """
    settings, task = run.recipe.evaluation, run.recipe.task
    counted = run.sampled_tokens
    records = []
    suites = suites_at(run.recipe, step, last=last)
    if not suites:
        return []
    with run.averaged():
        for place, split in enumerate(suites):
            problems = [task.problem(split, settings.seed, i) for i in range(settings.questions)]
            drawn, greedy = _answers(run, problems, key(run.seed, "eval", step, place))
            if place == 0:
                drawn = _with_samples(run, drawn, step, settings.samples_at(step, run.recipe.steps))
            records.append(
                {"step": step, "split": split, "total_sampled_tokens": counted} | _record(run, problems, drawn, greedy)
            )
    run.sampled_tokens = counted
    return records


def reevaluated(split: str) -> str:
    """The suite of the further questions of `split`; of a metric `split/name`, the metric there."""
    suite, slash, name = split.partition("/")
    return f"{suite}{REEVALUATED}{slash}{name}"


def further_problems(recipe: Recipe, split: str, questions: range) -> list[Problem]:
    """Questions of `split` by their number, from 0 on, after those that evaluations ask."""
    settings = recipe.evaluation
    return [recipe.task.problem(split, settings.seed, settings.questions + i) for i in questions]


def reevaluate(
    run: RunState,
    step: int,
    split: str,
    questions: int,
    before: Mapping[str, Any] | None = None,
    answered: Callable[[int], None] | None = None,
    *,
    earlier: bool = False,
) -> dict[str, Any]:
    """The record of `questions` further questions of `split`, which no evaluation of the run has asked.

    They follow those of the evaluations in the same stream; sampling noise is keyed by the run's seed and the question,
    and by the step of a model that is not the run's last.
    `before` is the record of fewer of them, whose answers stay as they are. `answered` gets every block, as large
    as an evaluation, which is known to fit. Tokens sampled here are not counted as training tokens.
    """
    settings, counted = run.recipe.evaluation, run.sampled_tokens
    begun = len(before["questions"]) if before is not None else 0
    parts: list[tuple[Sampled, Sampled]] = []
    for first in range(begun, questions, settings.questions):
        block = range(first, min(first + settings.questions, questions))
        problems = further_problems(run.recipe, split, block)
        path = (step,) if earlier else ()
        parts.append(_answers(run, problems, key(run.seed, REEVALUATION, *path), block))
        if answered:
            answered(len(block))
    run.sampled_tokens = counted
    drawn, greedy = (Sampled.concat(each) for each in zip(*parts, strict=True))
    record = _record(run, drawn.problems, drawn, greedy)
    return {"step": step, "split": reevaluated(split), "total_sampled_tokens": counted} | (
        _joined(before, record) if before is not None else record
    )


def _answers(
    run: RunState, problems: Sequence[Problem], noise_key: int, slots: Sequence[int] | None = None
) -> tuple[Sampled, Sampled]:
    """Every question sampled as often as the evaluation states, and once greedily."""
    settings = run.recipe.evaluation
    drawn, greedy = sample_all(
        run,
        problems,
        [
            Draw(
                settings.samples,
                noise_key,
                settings.temperature,
                settings.truncation,
                environment_seed=settings.seed,
            ),
            Draw(environment_seed=settings.seed),
        ],
        slots,
    )
    return drawn, greedy


def _with_samples(run: RunState, drawn: Sampled, step: int, samples: int) -> Sampled:
    """The answers to an evaluation's questions with further ones, up to so many a question.

    They are drawn in blocks as large as the evaluation, which is known to fit.
    """
    settings = run.recipe.evaluation
    draws = [
        Draw(
            min(settings.samples, samples - first),
            key(run.seed, FINAL_SAMPLES, step, block),
            settings.temperature,
            settings.truncation,
            environment_seed=settings.seed,
        )
        for block, first in enumerate(range(settings.samples, samples, settings.samples))
    ]
    if not draws:
        return drawn
    parts = [drawn, *sample_all(run, drawn.problems, draws)]
    texts = tuple(sum(rows, ()) for rows in zip(*(part.texts for part in parts), strict=True))
    generation = Generation.concat([part.generation for part in parts], dim=1)
    said = [part.transcripts for part in parts if part.transcripts is not None]
    return Sampled(
        drawn.problems,
        drawn.prompts,
        generation,
        texts,
        transcripts=tuple(sum(rows, ()) for rows in zip(*said, strict=True)) if said else None,
        failures={p: failure for part in reversed(parts) for p, failure in part.failures.items()},
    )


def _joined(first: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Two records of different questions as the one of both together."""
    questions, both = [*first["questions"], *further["questions"]], (first["summary"], further["summary"])
    counts = [_counts(record["questions"]) for record in (first, further)]

    def total(name: str, values: Sequence[float | None]) -> tuple[float, int]:
        """Sum over both, and of how many."""
        numbers = [count[_MEAN_OVER.get(name, "answers")] for count in counts]
        defined = [(value * n, n) for value, n in zip(values, numbers, strict=True) if value is not None]
        return sum(value for value, _ in defined), sum(n for _, n in defined)

    summary: dict[str, Any] = {}
    for name in both[1].keys() - {"shows", "samples", "ungraded"}:
        value, n = total(name, [each[name] for each in both])
        # answers and tokens are counted in whole numbers: so divided as `mean` does, equal scores stay equal
        value = value if name in ("entropy", "turn_rewards") else round(value)
        summary[name] = float(torch.tensor(value, dtype=torch.float32) / n) if n else None
    return {
        "summary": {name: summary.get(name) for name in both[1]}
        | {
            "shows": {
                name: round(value) / n
                for name in both[1]["shows"]
                for value, n in [total(name, [each["shows"][name] for each in both])]
            },
            "samples": both[1]["samples"],
            "ungraded": sum(each["ungraded"] for each in both),
        },
        "questions": questions,
    }


def _counts(questions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    samples = [sample for question in questions for sample in question["samples"]]
    right = sum(sample["correct"] for sample in samples)
    return {
        "questions": len(questions),
        "answers": len(samples),
        "right": right,
        "wrong": len(samples) - right,
        "tokens": sum(sample["length"] for sample in samples),
    }


def _record(run: RunState, problems: Sequence[Problem], drawn: Sampled, greedy: Sampled) -> dict[str, Any]:
    scores, greedy_scores = (_score(run, sampled) for sampled in (drawn, greedy))
    settings, surprise = run.recipe.evaluation, _surprise(drawn.generation)
    questions = []
    for p, problem in enumerate(problems):
        questions.append(
            {
                "index": problem.index,
                "prompt": problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"],
                "answer": problem.answer,
                **({"family": problem.family} if problem.family else {}),
                "greedy": _response(greedy, greedy_scores, p, 0),
                "samples": [
                    _response(drawn, scores, p, k) | ({"surprise": float(surprise[p, k])} if settings.surprise else {})
                    for k in range(scores.correct.shape[1])
                ],
            }
        )
    lengths = drawn.generation.written.sum(-1).float()
    correct = scores.correct
    summary = {
        "accuracy": mean(correct.float()),
        "lenient_accuracy": mean(scores.lenient.float()),
        "greedy_accuracy": mean(greedy_scores.correct.float()),
        "pass_at_k": mean(_pass_at(settings.samples, correct)),
        "length": mean(lengths),
        "length_correct": mean(lengths[correct]),
        "length_incorrect": mean(lengths[~correct]),
        "truncated": mean(drawn.generation.truncated.float()),
        "entropy": mean(drawn.generation.entropy[drawn.generation.written]),
        **_episode_summary(drawn.generation),
        "shows": {name: _share(pattern, drawn.texts) for name, pattern in run.recipe.task.patterns.items()},
        "samples": correct.shape[1],
        "ungraded": len({*scores.failed, *greedy_scores.failed}),
    }
    return {"summary": summary, "questions": questions}


def _surprise(generation: Generation) -> torch.Tensor:
    """Σ_t (log p_t + H_t) of every answer [P, S], in nats: its expectation is exactly 0, whatever the policy.

    Given the tokens before, the expected log-probability of the next is minus the entropy H_t of what it is drawn from.
    """
    return ((generation.logps + generation.entropy).double() * generation.mask).sum(-1)


def _pass_at(k: int, correct: torch.Tensor) -> torch.Tensor:
    """pass@k of each question [P] from its K >= k answers [P, K], right or wrong: 1 - C(K - c, k) / C(K, k).

    Unbiased; with K = k it is whether any is right. Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    i, wrong = torch.arange(k), (~correct).sum(1, keepdim=True)
    return 1 - ((wrong - i).clamp(min=0) / (correct.shape[1] - i)).prod(1)


def _score(run: RunState, sampled: Sampled) -> Scores:
    """The verifier's verdicts. A question that it fails on twice stays in the test, as wrong, and is counted.

    Dropping it would make the test another one for this run alone. Raises `GrpoLabError` beyond 5 % of the questions.
    """
    scores = grade(run.recipe.rewards[:1], sampled)
    if len(scores.failed) > MAX_FAILED * len(sampled.problems):
        raise (MachineError if scores.by_machine else GrpoLabError)(
            f"{len(scores.failed)} of {len(sampled.problems)} test questions cannot be graded. "
            f"The first failure:\n{scores.failure}"
        )
    return scores


def _response(sampled: Sampled, scores: Scores, p: int, k: int) -> dict[str, Any]:
    return {
        "text": sampled.texts[p][k],
        "correct": bool(scores.correct[p, k]),
        "length": int(sampled.generation.written[p, k].sum()),
        **({"turns": turns_of(sampled.transcripts[p][k])} if sampled.transcripts is not None else {}),
    }


def _episode_summary(generation: Generation) -> dict[str, float | None]:
    """Of episodes, by answer: how many turns, calls of tools that worked and that failed, and the reward of turns."""
    if generation.turns is None or generation.turn_rewards is None or generation.tool_calls is None:
        return {}
    return {
        "turns": mean(generation.turns.amax(-1).float()),
        "tool_calls": mean((generation.tool_calls == 1).sum(-1).float()),
        "tool_failures": mean((generation.tool_calls == -1).sum(-1).float()),
        "turn_rewards": mean(generation.turn_rewards.sum(-1)),
    }


def _share(pattern: str, texts: Sequence[Sequence[str]]) -> float:
    """The share of responses in which a pattern is found."""
    matches = [re.search(pattern, text) is not None for row in texts for text in row]
    return sum(matches) / len(matches)


def mean(values: torch.Tensor) -> float | None:
    """The mean, or None of nothing and of what is not known (NaN)."""
    average = float(values.mean()) if values.numel() else math.nan
    return None if math.isnan(average) else average
