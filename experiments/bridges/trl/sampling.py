"""Responses by keyed noise: a token depends on run seed, rollout, prompt, sample and position, and on the policy."""

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.generation.noise import Noise, make_noise
from core.randomness import key, row_keys, stream

TRAINING: Final = stream("trl_sampling")
EVALUATION: Final = stream("trl_evaluation")


class KeyedDraw(LogitsProcessor):
    """Scores plus Gumbel noise, whose argmax is a draw from their softmax; `keys` [B], one for each row."""

    def __init__(self, keys: Tensor, seed: int) -> None:
        self._keys, self._seed = keys, seed
        self._noise: Noise | None = None
        self._prompt = 0

    @property
    def has_drawn(self) -> bool:
        """Whether anything was drawn by it."""
        return self._noise is not None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] at the next position."""
        if self._noise is None:
            self._noise, self._prompt = make_noise(self._keys, scores.shape[-1], self._seed), input_ids.shape[1]
        return scores.float() + self._noise.at(input_ids.shape[1] - self._prompt)


def keyed_draws(config: GenerationConfig, base: int, first: int, rows: int, samples: int, device: Any) -> list[Any]:
    """What makes greedy decoding sample as this configuration says, by the noise of `base`.

    For `rows` rows from row `first` of all ranks on, of which every `samples` answer one prompt.
    """
    row = torch.arange(first, first + rows, device=device)
    warpers: list[Any] = []
    if config.temperature != 1:
        warpers.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p is not None and config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    if config.min_p is not None:
        warpers.append(MinPLogitsWarper(config.min_p))
    return [*warpers, KeyedDraw(row_keys(base, row // samples, row % samples), base)]


def noise_key(seed: int, number: int, is_training: bool) -> int:
    """Of a rollout, or of a batch of an evaluation, whose noise is the same every time."""
    return key(seed, TRAINING if is_training else EVALUATION, number)


def without_sampling(config: GenerationConfig) -> GenerationConfig:
    """The same, but greedy."""
    greedy = copy.deepcopy(config)
    greedy.do_sample, greedy.temperature, greedy.top_p, greedy.top_k, greedy.min_p = False, 1.0, 1.0, 50, None
    return greedy


@contextmanager
def handing(model: Any, processors: Sequence[Any]) -> Iterator[None]:
    """Let `model.generate` apply these to the scores, after its own."""
    model.generate = functools.partial(model.generate, logits_processor=LogitsProcessorList(processors))
    try:
        yield
    finally:
        del model.generate
