"""Preference pairs: two responses to each prompt, of which one was preferred.

A file of pairs has a row with `prompt`, `chosen` and `rejected`, as text or chat messages, and may have an `answer` and
a `margin`. Where both responses are whole conversations, the prompt is what comes before their last message, after
those messages of `prompt` that they do not repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.environments.datasets.stored import Stored, StoredFile, answer_of, content_of, field_of, prompt_of
from core.environments.tasks.rows import Row, are_messages, is_number, messages_of, read_rows
from core.errors import GrpoLabError
from core.loop.source import Source
from core.parts.contracts import source
from core.parts.problems import Messages, Problem
from core.parts.registry import REQUIRED


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, of which an annotator prefers the first."""

    prompt: str | Messages
    chosen: str
    rejected: str
    margin: float | None = None
    """By how much, where the annotator gave a number."""
    gold: tuple[float, float] | None = None
    """What a reward that is never wrong gives the two, where it is known."""
    answer: str | None = None
    """The right answer, where it is known."""
    place: str = field(default="", repr=False, compare=False)
    """File and line, for messages."""

    @property
    def responses(self) -> tuple[str, str]:
        """The preferred one first."""
        return self.chosen, self.rejected


def read_pairs(path: str) -> list[Pair]:
    """Pairs from a .jsonl or .parquet file or `datasets:ID[,CONFIG][:SPLIT]`.

    Raises `GrpoLabError` on the first row that is not a pair, saying where.
    """
    pairs = [_pair(place, row) for place, row in read_rows(path)]
    if not pairs:
        raise GrpoLabError(f"{path} has no rows")
    for name in ("margin", "answer"):
        places = {getattr(pair, name) is not None: pair.place for pair in reversed(pairs)}
        if len(places) > 1:
            raise GrpoLabError(f"{places[False]}: no field '{name}', but {places[True]} has one: give all or none")
    return pairs


def _pair(place: str, row: Row) -> Pair:
    chosen, rejected = (field_of(row, name, place) for name in ("chosen", "rejected"))
    if are_messages(chosen) and are_messages(rejected) and len(chosen) > 1:
        common, other, chosen, rejected = chosen[:-1], rejected[:-1], chosen[-1:], rejected[-1:]
        if common != other:
            raise GrpoLabError(
                f"{place}: the conversations 'chosen' and 'rejected' differ before their last message: both responses "
                "must be to the same prompt"
            )
        prompt = _continued(row.get("prompt"), common)
    else:
        prompt = field_of(row, "prompt", place)
    numbers: list[Any] = [row.get(name) for name in ("margin", "gold_chosen", "gold_rejected")]
    if not all(value is None or is_number(value) for value in numbers):
        raise GrpoLabError(
            f"{place}: 'margin', 'gold_chosen' and 'gold_rejected' must be finite numbers, not {numbers}"
        )
    margin, *gold = numbers
    return Pair(
        prompt_of(row, prompt, place),
        content_of(chosen, "chosen", place),
        content_of(rejected, "rejected", place),
        margin,
        None if None in gold else (float(gold[0]), float(gold[1])),
        answer_of(row, place),
        place,
    )


def _continued(prompt: object, begun: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What both conversations begin with, after those messages of the prompt that they do not repeat."""
    if not are_messages(prompt):
        return list(begun)
    before, after = messages_of(prompt), messages_of(begun)
    repeated = next(n for n in range(min(len(before), len(after)), -1, -1) if before[len(before) - n :] == after[:n])
    return [*before, *after[repeated:]]


@source
def preference_pairs(*, path: str = REQUIRED) -> Source:
    """Pairs of a preferred and a rejected response, rewards 1 and 0, from a file.

    `path`: .jsonl, .parquet or `datasets:ID[,CONFIG][:SPLIT]` with the fields `prompt`, `chosen` and `rejected` (text
    or chat messages) and perhaps `answer`, by which the task's verifier then judges; that is logged and does not train.
    Prompts are taken as they are. Every row is met once, in an order keyed by the run's seed, then all in another
    order. The end-of-sequence token is added where there is none.
    """
    pairs = read_pairs(path)
    rows = [
        # the number of the row, so that a prompt is the same one in every pass
        Stored(Problem(pair.prompt, pair.answer or "", index, place=pair.place), pair.responses, pair.place)
        for index, pair in enumerate(pairs)
    ]
    for pair in pairs:
        if pair.chosen == pair.rejected:
            raise GrpoLabError(f"{pair.place}: chosen and rejected are the same: remove the pair")
    return StoredFile(path, rows, (1.0, 0.0), is_verifiable=pairs[0].answer is not None)
