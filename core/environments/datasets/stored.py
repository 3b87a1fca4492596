"""What data sets have in common: rows of a file, their order in training, and their responses as tokens."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from core.environments.tasks.rows import Row, are_messages, is_number, messages_fault, messages_of, tools_fault
from core.errors import GrpoLabError, near
from core.generation.base import Generation
from core.loop.recipe import Recipe
from core.loop.scoring import score
from core.loop.source import RolloutContext, Sampled
from core.model.policy import Policy
from core.parts.options import RewardOptions
from core.parts.problems import Problem
from core.randomness import key, stream

ORDER: Final = stream("stored")
"""Of rows."""


@dataclass(frozen=True)
class Stored:
    """A problem with the responses to it that are on record."""

    problem: Problem
    responses: tuple[str, ...]
    place: str
    """Where they stand, for messages."""


class StoredFile:
    """The source that a file is: every row once, in an order keyed by the run's seed, then all in another order.

    `labels` are the rewards of a row's responses, the same for every row.
    """

    def __init__(self, path: str, rows: Sequence[Stored], labels: tuple[float, ...], *, is_verifiable: bool) -> None:
        self.path, self.rows, self.labels, self.is_verifiable = path, rows, labels, is_verifiable
        self.group_size = len(labels)
        self._fits: Policy | None = None

    @property
    def problems(self) -> list[Problem]:
        """The problem of every row, in the file's order."""
        return [row.problem for row in self.rows]

    def start(self, recipe: Recipe) -> str:
        """Its size in prompts and passes; raises `GrpoLabError` where the recipe needs what the file lacks."""
        refuse_behaviour_logps(recipe)
        if "greedy_rewards" in recipe.variant.needs and not self.is_verifiable:
            raise GrpoLabError(
                f"variant '{recipe.variant.name}' needs the rewards of greedy responses, but {self.path} gives no "
                "answers to judge them by: add a field 'answer' or choose another variant"
            )
        verifier = recipe.rewards[0]
        if self.is_verifiable and not RewardOptions.of(verifier).together:
            first = self.rows[0]
            if failure := score([verifier], [first.problem], [first.responses]).failure:
                raise GrpoLabError(
                    f"{first.place}: the reward '{verifier.name}' cannot judge by the field 'answer' alone "
                    f"({failure.splitlines()[-1]}): bind another to train.rewards, or remove the field, and nothing is "
                    "judged"
                )
        passes = recipe.steps * recipe.prompts / len(self.rows)
        return f"{self.path}: {len(self.rows)} prompts, {passes:.3g} passes in {recipe.steps} steps ({self.digest})"

    @cached_property
    def digest(self) -> str:
        """Of all prompts, answers and responses in their order."""
        content = repr([(row.problem.prompt, row.problem.answer, row.responses) for row in self.rows])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    def sample(self, context: RolloutContext) -> Sampled:
        """The rows of a round; all of the file is checked before the first."""
        if self._fits is not context.policy:
            as_tokens(context, self.rows)
            self._fits = context.policy
        rows = [self.rows[place] for place in row_indices(context, len(self.rows))]
        return as_sampled(context, rows, self.labels, is_verifiable=self.is_verifiable)


def refuse_behaviour_logps(recipe: Recipe) -> None:
    """Raise `GrpoLabError` where a part needs the sampling probabilities of responses."""
    if "behaviour_logps" in recipe.variant.needs:
        raise GrpoLabError(
            f"variant '{recipe.variant.name}' needs behaviour_logps, but with train.source the sampling probabilities "
            "of the responses are unknown: leave the correction out, or choose another objective"
        )


def row_indices(context: RolloutContext, count: int) -> list[int]:
    """Which of `count` rows fill the slots of a round: a function of the run's seed, the step and the round alone."""
    P, step, round = context.prompts, context.step, context.round
    path, first = ((0,), (step - 1) * P) if round == 0 else ((1, step, round), 0)
    chosen = []
    for position in range(first, first + P):
        epoch, place = divmod(position, count)
        chosen.append(_order(key(context.seed, ORDER, *path, epoch), count)[place])
    return chosen


@lru_cache(maxsize=4)
def _order(draw: int, count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(draw)).tolist()
    return order


def as_sampled(
    context: RolloutContext, rows: Sequence[Stored], labels: Sequence[float], *, is_verifiable: bool = True
) -> Sampled:
    """Rows as if they had been sampled, but for the probability of their tokens, which is not known: NaN."""
    shape = (len(rows), len(labels))
    prompts, responses = as_tokens(context, rows)
    flat = [response for row in responses for response in row]
    tokens = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
    lengths = torch.tensor([len(response) for response in flat])
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    unknown = torch.full((*shape, tokens.shape[1]), math.nan)
    generation = Generation(
        tokens=tokens.view(*shape, -1),
        mask=mask.view(*shape, -1),
        logps=unknown,
        entropy=unknown,
        truncated=torch.zeros(shape, dtype=torch.bool),
    )
    return Sampled(
        problems=tuple(row.problem for row in rows),
        prompts=tuple(prompts),
        generation=generation,
        texts=tuple(tuple(context.policy.texts(row)) for row in responses),
        labels=torch.tensor([list(labels)] * len(rows)),
        is_verifiable=is_verifiable,
    )


def as_tokens(context: RolloutContext, rows: Sequence[Stored]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Prompts, and the responses to each, which end with the end-of-sequence token.

    Raises `GrpoLabError` where a response could not have been sampled: longer than `train.max_tokens`, or with an end
    in the middle.
    """
    policy, limit = context.policy, context.max_tokens
    prompts = [policy.tokens(row.problem) for row in rows]
    responses = [[_tokens(policy, text, row.place) for text in row.responses] for row in rows]
    longest = [(max(map(len, group)), row.place) for group, row in zip(responses, rows, strict=True)]
    over = [(length, place) for length, place in longest if length > limit]
    if over:
        most, where = max(over)
        raise GrpoLabError(
            f"{where} has a response of {most} tokens, its end included, more than train.max_tokens = {limit}; so have "
            f"{len(over)} of {len(rows)} (this is the longest). A response that is cut teaches to stop early: "
            "raise train.max_tokens or remove them"
        )
    for prompt, (length, place) in zip(prompts, longest, strict=True):
        if not 1 <= len(prompt) <= policy.context - length:
            raise GrpoLabError(
                f"{place} has a prompt of {len(prompt)} tokens, which with its response of {length} does not fit the "
                f"model's context of {policy.context}: remove or shorten it"
            )
    return prompts, responses


def _tokens(policy: Policy, text: str, place: str) -> Tensor:
    ids: list[int] = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids or ids[-1] not in policy.end_tokens:
        eos = policy.tokenizer.eos_token_id
        ids = [*ids, eos if isinstance(eos, int) else policy.end_tokens[0]]
    if any(token in policy.end_tokens for token in ids[:-1]):
        raise GrpoLabError(
            f"{place} has a response with the end-of-sequence token in the middle, {text!r:.80}: remove it; a "
            "character that the model's tokenizer does not know may become that token, too"
        )
    return torch.tensor(ids, dtype=torch.long)


# --- rows of a file --------------------------------------------------------------------------------------------------


def field_of(row: Row, name: str, place: str) -> Any:
    """A field that must be there."""
    if name not in row:
        raise GrpoLabError(f"{place}: no field '{name}': {near(name, row)}")
    return row[name]


def prompt_of(row: Row, value: Any, place: str) -> str | list[dict[str, Any]]:
    """A prompt: text as it is, or chat messages."""
    if isinstance(value, str) and value:
        return value
    if fault := messages_fault(value):
        raise GrpoLabError(
            f"{place}: field 'prompt' is {value!r:.60}, neither text nor a list of chat messages: {fault}"
        )
    if fault := tools_fault(row):
        raise GrpoLabError(f"{place}: {fault}")
    return messages_of(value)


UNLEARNT: Final = ("tool_calls", "reasoning_content", "thinking")
"""What a message of the assistant's may have beside its text."""


def content_of(value: Any, name: str, place: str) -> str:
    """A response: text as it is, or that of a single message of the assistant's."""
    if are_messages(value):
        value = _only_message(value, name, place)
    if not isinstance(value, str) or not value.strip():
        raise GrpoLabError(f"{place}: field '{name}' is {value!r:.60}, neither text nor a single chat message")
    return value


def _only_message(messages: Sequence[Mapping[str, Any]], name: str, place: str) -> str:
    if len(messages) > 1:
        raise GrpoLabError(
            f"{place}: field '{name}' has {len(messages)} messages, of which one alone can be the response: put those "
            "before it into 'prompt'"
        )
    (message,) = messages
    if message["role"] != "assistant":
        raise GrpoLabError(
            f"{place}: field '{name}' ends with a message of the role {message['role']!r}: the response must be the "
            "assistant's"
        )
    if unlearnt := [beside for beside in UNLEARNT if message.get(beside)]:
        raise GrpoLabError(
            f"{place}: the response in column '{name}' has {' and '.join(unlearnt)} beside its content, which would "
            "not be learnt: write them into the content, as the model would, or leave the row out"
        )
    return str(message.get("content") or "")


def answer_of(row: Row, place: str) -> str | None:
    """The right answer, if the row has one."""
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str) and not is_number(answer):
        raise GrpoLabError(f"{place}: field 'answer' is {answer!r:.60}, neither text nor a finite number")
    return None if answer is None else str(answer).strip()
