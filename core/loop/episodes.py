"""A rollout's episodes: where a recipe has an environment, what it says first, and what it said and rewarded since."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from core.distributed import local_slice
from core.generation.episodes import Budgets, Episodes
from core.generation.steps import Failure, begin
from core.loop.run_state import RunState
from core.parts.environments import Turn
from core.parts.problems import Problem
from core.randomness import key, stream

EPISODES = stream("episodes")
Transcripts: TypeAlias = tuple[tuple[tuple[Turn, ...], ...], ...]
"""[P][G] episodes, turn by turn."""


def episode_seed(seed: int, problem: Problem) -> int:
    """What an environment draws by: alike for all responses to a prompt, in every arm of a seed."""
    return key(seed, EPISODES, problem.index)


def opening(run: RunState, problem: Problem, seed: int) -> str:
    """What the environment says before the policy's first turn; "" where that fails, as its episodes then will."""
    recipe = run.recipe
    if recipe.environment is None:
        return ""
    text, _ = begin(recipe.environment, problem, episode_seed(seed, problem), recipe.step_seconds)
    return "" if isinstance(text, Failure) else text


def prompt_tokens(run: RunState, problem: Problem, seed: int | None = None) -> Tensor:
    """A problem's prompt with what the environment says first, as token ids; `seed`: the run's, unless given."""
    return _opened(run, problem, opening(run, problem, run.seed if seed is None else seed))


def _opened(run: RunState, problem: Problem, said: str) -> Tensor:
    if not said:
        return run.policy.tokens(problem)
    if isinstance(problem.prompt, str):
        tokens = run.policy.tokens(problem)
        return torch.cat([tokens, tokens.new_tensor(run.policy.observation_tokens(said, None))])
    *before, last = problem.prompt
    if last.get("role") != "user":
        return run.policy.tokens(replace(problem, prompt=[*problem.prompt, {"role": "user", "content": said}]))
    return run.policy.tokens(replace(problem, prompt=[*before, {**last, "content": f"{last['content']}{said}"}]))


def opened_prompts(
    run: RunState, problems: Sequence[Problem], seed: int | None = None
) -> tuple[tuple[Tensor, ...], list[str]]:
    """All prompts as token ids, and what the environment says first after each."""
    said = [opening(run, problem, run.seed if seed is None else seed) for problem in problems]
    return tuple(_opened(run, problem, text) for problem, text in zip(problems, said, strict=True)), said


def begin_episodes(
    run: RunState, problems: Sequence[Problem], said: Sequence[str], samples: int, seed: int | None
) -> Episodes | None:
    """New episodes for this rank's part of the problems; None where there is no environment."""
    recipe, mine = run.recipe, local_slice(len(problems))
    if recipe.environment is None:
        return None
    seeds = [episode_seed(run.seed if seed is None else seed, problem) for problem in problems[mine]]
    budgets = Budgets(recipe.max_tokens, recipe.max_turns, recipe.step_seconds)
    return Episodes(run.policy, recipe.environment, problems[mine], seeds, samples, budgets, said[mine])


Told: TypeAlias = tuple[Transcripts, dict[int, Failure]]
"""Transcripts, and by prompt why an episode of it could not go on."""


def told(episodes: Episodes, samples: int) -> Told:
    """What is to be known of episodes beside their tokens."""
    turns = [tuple(row) for row in episodes.transcripts]
    transcripts = tuple(tuple(turns[i : i + samples]) for i in range(0, len(turns), samples))
    failures: dict[int, Failure] = {}
    for row in sorted(episodes.failures):
        failures.setdefault(row // samples, episodes.failures[row])
    return transcripts, failures


def joined(parts: Sequence[Told]) -> Told:
    """Of the prompts of several, in order."""
    failures: dict[int, Failure] = {}
    first = 0
    for transcripts, failed in parts:
        failures |= {first + p: failure for p, failure in failed.items()}
        first += len(transcripts)
    return tuple(group for transcripts, _ in parts for group in transcripts), failures


def stored(transcripts: Transcripts | None, failures: Mapping[int, Failure]) -> dict[str, Any]:
    """As plain data."""
    return {
        "transcripts": transcripts
        and [[[list(vars(turn).values()) for turn in row] for row in g] for g in transcripts],
        "failures": [[p, failure.message, failure.by_machine] for p, failure in failures.items()],
    }


def restored(data: Mapping[str, Any]) -> tuple[Transcripts | None, dict[int, Failure]]:
    """From plain data; checkpoints of before there were episodes have none."""
    held = data.get("transcripts")
    transcripts = held and tuple(tuple(tuple(Turn(*turn) for turn in row) for row in group) for group in held)
    return transcripts, {p: Failure(message, machine) for p, message, machine in data.get("failures", [])}


def turns_of(transcript: Sequence[Turn]) -> list[dict[str, Any]]:
    """An episode as it is stored."""
    return [dict(vars(turn)) for turn in transcript]
