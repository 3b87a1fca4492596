"""A judge that runs here: the probability of its first token after the question."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from core.errors import GrpoLabError
from core.model.loading import read_tokenizer
from core.model.packing import Packed
from core.model.policy import PolicySettings, load_policy
from core.model.prompts import chat_tokens, text_tokens

SETTING: Final = "judge.model"
MAX_TOKENS: Final = 16_384
"""In one forward pass."""


class LocalJudge:
    """A causal language model that reads a question; the probabilities of its next token are its answer."""

    def __init__(self, model: str, dtype: str) -> None:
        self._policy = load_policy(PolicySettings(model, dtype, attention="padded"), PartialState().device, SETTING)
        self._model = model

    @torch.no_grad()
    def prefer(self, questions: Sequence[str], words: Sequence[str]) -> list[float]:
        """P(first) / (P(first) + P(second)) for the two `words` as the next token; NaN beyond the model's context.

        The tokens that all questions of a pass begin with, the principles, are computed once.
        """
        spellings = verdict_tokens(self._policy.tokenizer, words, self._model)
        rows = [self._tokens(question) for question in questions]
        preferences = [math.nan] * len(rows)
        for places in _passes([len(row) for row in rows], self._policy.context):
            logits = self._next_logits([rows[i] for i in places], [*spellings[0], *spellings[1]])
            first, second = (logits[:, : len(spellings[0])], logits[:, len(spellings[0]) :])
            for i, value in zip(
                places, torch.sigmoid(first.logsumexp(-1) - second.logsumexp(-1)).tolist(), strict=True
            ):
                preferences[i] = value
        return preferences

    def _tokens(self, question: str) -> list[int]:
        tokenizer = self._policy.tokenizer
        if not tokenizer.chat_template:
            return text_tokens(tokenizer, f"{question}\nVerdict:")
        return chat_tokens(tokenizer, [{"role": "user", "content": question}], whose="the judge")

    def _next_logits(self, rows: Sequence[list[int]], tokens: Sequence[int]) -> Tensor:
        """Logits [R, k] of k tokens after each row, float32: verdicts may be closer together than bfloat16 resolves."""
        device = self._policy.device
        # at least one token of each row is left, whose hidden state predicts the verdict
        shared = sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))
        shared = min(shared, min(map(len, rows)) - 1)
        if shared:
            rests = [torch.tensor(row[shared:], device=device) for row in rows]
            packed = Packed([torch.tensor(rows[0][:shared], device=device)], rests, [0] * len(rests))
            ends = packed.response_start + torch.tensor([len(rest) for rest in rests], device=device) - 1
        else:
            packed = Packed([torch.tensor(row, device=device) for row in rows])
            ends = packed.prompt_end
        hidden = self._policy.hidden(packed.input_ids, packed.positions, packed)[ends].float()
        head: nn.Linear = self._policy.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        bias = None if getattr(head, "bias", None) is None else head.bias[tokens].float()
        return nn.functional.linear(hidden, head.weight[tokens].float(), bias)


@functools.lru_cache(maxsize=1)
def local_judge(model: str, dtype: str) -> LocalJudge:
    """The judge, read once for a process."""
    return LocalJudge(model, dtype)


@functools.lru_cache(maxsize=8)
def check_local(model: str, words: tuple[str, ...]) -> None:
    """Raise `GrpoLabError` where a model's tokenizer is missing or cannot spell the verdicts; no weights are read."""
    verdict_tokens(read_tokenizer(model, SETTING), words, model)


def verdict_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], model: str) -> list[list[int]]:
    """For each word, every token that spells it: with or without a blank before it, and in lower case if not a letter.

    Raises `GrpoLabError` where a word has none: the first token alone would not tell the verdicts apart.
    """
    spellings: list[list[int]] = []
    for word in words:
        forms = {word, f" {word}"} | ({word.lower(), f" {word.lower()}"} if len(word) > 1 else set())
        ids = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in sorted(forms)]
        # some tokenizers put one token, or even that of another character, for what they do not know
        single = {i[0] for i in ids if len(i) == 1 and str(tokenizer.decode(i)).strip().lower() == word.lower()}
        spellings.append(sorted(single))
        if not single:
            raise GrpoLabError(
                f"judge.model = {model!r}: its tokenizer has no single token for the verdict {word!r}; bind "
                "judge.verdicts = two words that are tokens of its own, or another model"
            )
    if set(spellings[0]) & set(spellings[1]):
        raise GrpoLabError(f"judge.verdicts = {tuple(words)!r}: the tokenizer of {model!r} cannot tell them apart")
    return spellings


def _passes(lengths: Sequence[int], context: int) -> Iterator[list[int]]:
    """Places of the rows of each forward pass, in order; rows that do not fit into the context are left out."""
    places: list[int] = []
    tokens = 0
    for i, length in enumerate(lengths):
        if not 0 < length <= context:
            continue
        if places and tokens + length > MAX_TOKENS:
            yield places
            places, tokens = [], 0
        places.append(i)
        tokens += length
    if places:
        yield places
