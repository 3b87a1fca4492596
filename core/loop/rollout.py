"""The phases that fill a batch, each findable by its name: sample, score, make_batch; then shape and filter."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from core.distributed import gather, local_slice, ranks
from core.errors import GrpoLabError, TrainingError
from core.generation.base import Generation, Request
from core.generation.rounds import play
from core.loop.episodes import Told, begin_episodes, joined, opened_prompts, prompt_tokens, told
from core.loop.rewards import filter_groups, shape
from core.loop.run_state import RunState
from core.loop.scoring import Scores, score
from core.loop.source import RolloutContext, Sampled
from core.loop.support import check_vocabulary, on_one_support, with_logmass
from core.model.truncation import Truncation
from core.parts.batch import Batch
from core.parts.problems import Problem
from core.parts.registry import Part
from core.randomness import key

MAX_SKIPPED: Final = 100
"""Problems in a row that do not fit the model's context before a run stops."""
MAX_EMPTY: Final = 10
"""Steps from the first on in which a filter passes no group before a run stops."""


def draw_problems(run: RunState, step: int, round: int, slots: Sequence[int] | None = None) -> tuple[Problem, ...]:
    """A round's problems, or those of some `slots`: alike for every arm of a seed, however many rounds any of them
    takes.

    One that does not fit the context is passed over, for the first of a stream of its slot's own that does: alike in
    all arms with the same model and limit.
    """
    P, task = run.recipe.prompts, run.recipe.task
    if round == 0:
        stream, first = key(run.seed, "prompts"), (step - 1) * P
    else:
        stream, first = key(run.seed, "extra_prompts", step, round), 0
    problems = []
    for slot in range(P) if slots is None else slots:
        problem, others = task.problem("train", stream, first + slot), 0
        while not fits(run, problem):
            if others == MAX_SKIPPED:
                raise GrpoLabError(
                    f"{MAX_SKIPPED} training problems in a row do not fit the context. {unfit(run, problem)}"
                )
            problem = task.problem("train", key(run.seed, "extra_prompts", step, round, slot), others)
            run.skipped_prompts += 1
            others += 1
        problems.append(problem)
    return tuple(problems)


def fits(run: RunState, problem: Problem) -> bool:
    """Whether the context has room for the prompt and the longest response to it."""
    return 1 <= len(prompt_tokens(run, problem)) <= run.policy.context - run.recipe.max_tokens


def unfit(run: RunState, problem: Problem) -> str:
    """The error text for a problem that does not fit."""
    length, most = len(prompt_tokens(run, problem)), run.policy.context - run.recipe.max_tokens
    return (
        f"The prompt {problem.prompt!r:.80} has {length} tokens; with train.max_tokens = {run.recipe.max_tokens} it "
        f"must have between 1 and {most} to fit the model's context of {run.policy.context}. Shorten the prompts or "
        "lower train.max_tokens"
    )


@dataclass(frozen=True)
class Draw:
    """How often a problem is to be answered, greedily without a noise key.

    By default at the training temperature, and cut down as training is.
    """

    samples: int = 1
    noise_key: int | None = None
    temperature: float | None = None
    truncation: Truncation | None = None
    for_training: bool = False
    environment_seed: int | None = None
    """What environments draw by; None: the run's seed."""


def sample(run: RunState, problems: Sequence[Problem], draw: Draw, slots: Sequence[int] | None = None) -> Sampled:
    """Responses of the present policy; greedy ones when there is no noise. For `slots` see `sample_all`."""
    return sample_all(run, problems, [draw], slots)[0]


def sample_all(
    run: RunState, problems: Sequence[Problem], draws: Sequence[Draw], slots: Sequence[int] | None = None
) -> list[Sampled]:
    """Several draws from the same problems, which the generator may answer together.

    `slots`: where others under the same noise key are answered by other calls, which of all these are.
    """
    recipe, policy = run.recipe, run.policy
    prompts, said = opened_prompts(run, problems, draws[0].environment_seed)
    mine = local_slice(len(prompts))
    slots = range(len(prompts)) if slots is None else slots
    requests = [
        Request(
            prompts[mine],
            draw.samples,
            recipe.max_tokens,
            recipe.temperature if draw.temperature is None else draw.temperature,
            draw.noise_key,
            slots[mine],
            recipe.truncation if draw.truncation is None else draw.truncation,
            draw.for_training,
            draw.for_training and recipe.cuts_trainer,
            episodes=begin_episodes(run, problems, said, draw.samples, draw.environment_seed),
        )
        for draw in draws
    ]
    # what samples from a copy of its own gathers weights to bring that up to date, and not for as long as it samples
    with nullcontext() if getattr(recipe.generator, "holds_weights", False) else policy.unsharded():
        # all that follows but the passes through models is on the CPU, whatever these compute on
        generations = [generation.to("cpu") for generation in play(recipe.generator, policy, requests)]
    said_since = [told(each.episodes, each.samples) if each.episodes else None for each in requests]
    if ranks() > 1:
        generations = [Generation.concat(parts) for parts in zip(*gather([generations]), strict=True)]
        said_since = [joined(parts) if parts[0] else None for parts in zip(*gather([said_since]), strict=True)]
    run.sampled_tokens += sum(int(generation.written.sum()) for generation in generations)
    return [
        as_sampled(run, problems, prompts, generation, generation.mask * policy.version, since)
        for generation, since in zip(generations, said_since, strict=True)
    ]


def as_sampled(
    run: RunState,
    problems: Sequence[Problem],
    prompts: Sequence[Tensor],
    generation: Generation,
    token_version: Tensor,
    since: Told | None = None,
) -> Sampled:
    """What the policy generated, with its texts; of episodes with what was said and failed since they began."""
    if since is not None:
        transcripts, failures = since
        last = tuple(tuple(turns[-1].action if turns else "" for turns in group) for group in transcripts)
        return Sampled(
            tuple(problems),
            tuple(prompts),
            generation,
            last,
            token_version,
            transcripts=transcripts,
            failures=failures,
        )
    rows, lengths = generation.tokens.flatten(0, 1), generation.mask.sum(-1).flatten()
    flat = run.policy.texts([row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)])
    samples = generation.mask.shape[1]
    texts = tuple(tuple(flat[p * samples : (p + 1) * samples]) for p in range(len(problems)))
    return Sampled(tuple(problems), tuple(prompts), generation, texts, token_version)


def grade(rewards: Sequence[Part], sampled: Sampled) -> Scores:
    """Scores of all responses, each rank grading its part."""
    if not sampled.is_verifiable and sampled.labels is not None:
        return Scores.of_labels(sampled.labels, len(rewards))
    mine = local_slice(len(sampled.problems))
    transcripts = None if sampled.transcripts is None else sampled.transcripts[mine]
    scores = score(rewards, sampled.problems[mine], sampled.texts[mine], transcripts)
    return Scores.concat(gather([scores])).without(sampled.failures)


def make_batch(run: RunState, sampled: Sampled, scores: Scores, step: int) -> Batch:
    """The batch of a round: reward parts weighted and added up; groups whose grader failed are dropped whole."""
    generation = sampled.generation
    weights = torch.tensor(run.recipe.reward_weights)
    rewards = scores.parts @ weights if sampled.labels is None else sampled.labels
    if generation.turn_rewards is not None:
        rewards = rewards + generation.turn_rewards.sum(-1)
    batch = Batch(
        rewards=rewards,
        response_mask=generation.mask,
        mask=generation.written,
        prompt_ids=torch.tensor([problem.index for problem in sampled.problems]),
        max_tokens=run.recipe.max_tokens,
        step=step,
        reward_parts=scores.parts,
        reward_names=tuple(part.name for part in run.recipe.rewards),
        reward_weights=run.recipe.reward_weights,
        correct=scores.correct,
        truncated=generation.truncated,
        behaviour_logps=generation.logps,
        behaviour_entropy=generation.entropy,
        token_version=sampled.token_version,
        support_logmass=generation.support_logmass,
        support=generation.support,
        problems=sampled.problems,
        prompt_tokens=sampled.prompts,
        response_tokens=generation.tokens,
        sampled_mask=generation.sampled_mask,
        turns=generation.turns,
        turn_rewards=generation.turn_rewards,
        anchors=generation.anchors,
        tool_calls=generation.tool_calls,
        transcripts=sampled.transcripts or (),
    )
    intact = torch.tensor([p for p in range(batch.groups) if p not in scores.failed], dtype=torch.long)
    return on_one_support(run.recipe, batch.select(intact))


@dataclass(frozen=True, eq=False)
class Rollout:
    """A step's batch, and the first round before filtering, which every arm of a seed can be compared on."""

    batch: Batch | None
    """The groups to train on; None when none are left."""
    first_round: Batch
    lenient: Tensor
    """[P, G], bool, of the first round."""
    sampled: Sampled
    """The first round's problems and texts."""
    rounds: int
    dropped_groups: int
    discarded_tokens: int
    causes: Counter[str]


def rollout_context(run: RunState, step: int, round: int) -> RolloutContext:
    """What the source of a run's responses needs of a round."""
    recipe, draw = run.recipe, partial(draw_problems, run, step, round)
    return RolloutContext(run.policy, run.seed, recipe.task, recipe.prompts, recipe.max_tokens, step, round, draw)


def sample_step(run: RunState, step: int, round: int, slots: Sequence[int] | None = None) -> Sampled:
    """A round's responses, or those of some `slots`: the source's, or what the policy responds to the problems."""
    if run.recipe.source:
        return run.recipe.source.sample(rollout_context(run, step, round))
    if run.recipe.cuts_trainer:
        check_vocabulary(run)
    draw = Draw(run.recipe.group_size, key(run.seed, "sampling", step, round), for_training=True)
    return with_logmass(run, sample(run, draw_problems(run, step, round, slots), draw, slots))


class Rounds:
    """A step's rollout in the making: rounds until the batch is full or the variant's cap is reached."""

    def __init__(self, run: RunState, step: int) -> None:
        self._run, self._step = run, step
        self.graded: list[tuple[Sampled, Scores]] = []
        """Every round so far."""
        self._first: Batch | None = None
        self._accepted: list[Batch] = []

    @property
    def missing(self) -> int:
        """Groups that the batch lacks; 0 once it is full or the cap is reached."""
        variant = self._run.recipe.variant
        if len(self.graded) == (variant.filter_rounds if variant.filter else 1):
            return 0
        return self._run.recipe.prompts - sum(batch.groups for batch in self._accepted)

    def add(self, sampled: Sampled, scores: Scores | None = None) -> None:
        """Take a round: grade it, unless that has been done, shape and filter it."""
        run, variant = self._run, self._run.recipe.variant
        scores = grade(run.recipe.rewards, sampled) if scores is None else scores
        raw = make_batch(run, sampled, scores, self._step)
        usable = filter_groups(variant, shape(variant, raw))
        # surplus groups are discarded: kept for later, they would be off-policy and shift later steps' prompts
        selected = usable.select(torch.arange(min(self.missing, usable.groups)))
        if selected.groups:
            self._accepted.append(selected)
        self._first = raw if self._first is None else self._first
        self.graded.append((sampled, scores))

    def complete(self) -> None:
        """Sample the rounds that are missing, from the present policy."""
        while self.missing:
            self.add(sample_step(self._run, self._step, len(self.graded)))

    def rollout(self) -> Rollout:
        """What came of it all, once it is complete; failures of graders count from here on."""
        run, all_scores = self._run, [scores for _, scores in self.graded]
        for scores in all_scores:
            run.grader_log.note(scores)
        dropped = sum(len(scores.failed) for scores in all_scores)
        run.grader_log.add(dropped, len(all_scores) * run.recipe.prompts)
        batch = Batch.concat(self._accepted) if self._accepted else None
        sampled, scores = self.graded[0]
        intact = torch.tensor([p not in scores.failed for p in range(len(sampled.problems))])
        assert self._first is not None
        _count_empty(run, self._step, batch, self._first)
        generated = sum(int(sampled.generation.written.sum()) for sampled, _ in self.graded)
        trained = sum(int(accepted.written.sum()) for accepted in self._accepted)
        return Rollout(
            batch,
            self._first,
            scores.lenient[intact],
            sampled,
            rounds=len(self.graded),
            dropped_groups=dropped,
            discarded_tokens=generated - trained,
            causes=sum((scores.causes for scores in all_scores), Counter()),
        )


def roll_out(run: RunState, step: int) -> Rollout:
    """Sample, score, batch, shape and filter, all by the present policy."""
    rounds = Rounds(run, step)
    rounds.complete()
    return rounds.rollout()


def _count_empty(run: RunState, step: int, batch: Batch | None, first_round: Batch) -> None:
    """Raise when a filter has passed no group in the first steps, so that nothing has been trained on.

    Where rewards differ within groups, the filter and the rewards do not go together, and where all is right already
    there is nothing to study: no method's doing, `GrpoLabError`. Else the method did not get off the ground:
    `TrainingError`.
    """
    variant, rewards = run.recipe.variant, first_round.rewards
    run.has_learned |= batch is not None
    if run.has_learned or variant.filter is None or not first_round.groups:
        return
    run.best_reward = max(run.best_reward, float(rewards.max()))
    run.had_spread |= not bool(first_round.no_spread.all())
    run.all_right &= bool(first_round.require("correct").all())
    if step < min(MAX_EMPTY, run.recipe.steps):
        return
    summary = (
        f"filter '{variant.filter.name}' has passed no group in the first {step} steps, so nothing was trained on; the "
        f"highest reward was {run.best_reward:g}"
    )
    if run.had_spread:
        raise GrpoLabError(
            f"{summary}, and rewards differ within groups. A filter for groups with right and wrong responses reads "
            "Score.correct, and a reward that is a number counts as correct from 1 up: scale the reward, return a "
            "Score, or leave the filter out"
        )
    if run.all_right:
        raise GrpoLabError(f"{summary}, and every response was right: the model has nothing left to learn of this task")
    raise TrainingError(f"{summary}, and all responses to a question are rewarded alike")
