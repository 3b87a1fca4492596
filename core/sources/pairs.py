"""Preference pairs: two responses to each prompt, of which one was preferred."""

from collections.abc import Sequence

from core.contracts import source
from core.registry import REQUIRED
from core.rollout import Source
from core.sources.stored import read_file


def _are_equal(responses: Sequence[str]) -> str | None:
    chosen, rejected = responses
    return "chosen and rejected are the same" if chosen == rejected else None


@source
def preference_pairs(*, path: str = REQUIRED) -> Source:
    """Pairs of a preferred and a rejected response, rewards 1 and 0, from a file.

    `path`: .jsonl, .parquet or `datasets:ID[,CONFIG][:SPLIT]` with the fields `prompt`, `chosen` and `rejected` (text
    or chat messages) and perhaps `answer`, by which the task's verifier then judges; that is logged and does not train.
    Prompts are taken as they are. Every row is met once, in an order keyed by the run's seed, then all in another
    order. The end-of-sequence token is added where there is none.
    """
    return read_file(path, ("chosen", "rejected"), (1.0, 0.0), _are_equal)
