"""A moving average of the trained weights, which evaluations ask in place of the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.model.trainable import TrainedModel


class WeightAverage:
    """The exponential moving average (EMA) of a model's trained weights over the steps of a run, in float32.

        average <- decay * average + (1 - decay) * weights

    after every step; it begins as the weights before training, and lags decay / (1 - decay) steps behind. What is
    sampled and trained does not depend on it. Source: Polyak and Juditsky 1992 (averaging of iterates);
    Morales-Brotons et al. 2024 (arXiv:2411.18704, EMA in deep learning).
    """

    def __init__(self, model: TrainedModel, decay: float) -> None:
        if model.sharding:
            raise GrpoLabError(
                f"evaluation.ema = {decay}: weights that are spread over processes are not averaged: leave it out, or "
                "run with --accelerate ddp"
            )
        self._model, self._decay = model, decay
        self._average = {name: weight.float().clone() for name, weight in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        for name, weight in self._model.state_dict().items():
            self._average[name].lerp_(weight.float(), 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average for its weights meanwhile, rounded to their precision; then its own again."""
        own = {name: weight.clone() for name, weight in self._model.state_dict().items()}
        self._model.load_state_dict(self._average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, for a checkpoint."""
        return self._average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        for name, average in self._average.items():
            average.copy_(state[name])
