"""A moving average of the trained weights, which evaluations ask in place of the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from core.errors import GrpoLabError
from core.model.trainable import TrainedModel


class WeightAverage:
    """A moving average (EMA) of a model's trained weights over the steps t = 1, 2, ... of a run, in float32.

        average <- (1 - 1 / t)^(1 / lag - 1) average + (1 - (1 - 1 / t)^(1 / lag - 1)) weights

    so that the weights of step s count about as s^(1 / lag - 2), and the average lags lag * t steps behind: few where
    there have been few, which a constant decay would not. `lag` is above 0 and below 1/2. What is sampled and trained
    does not depend on it. Source: Karras et al. 2024 (arXiv:2312.02696, section 3.1, power function averages); averages
    of iterates are Polyak and Juditsky's (1992).
    """

    def __init__(self, model: TrainedModel, lag: float) -> None:
        if model.sharding:
            raise GrpoLabError(
                f"evaluation.ema_lag = {lag}: weights that are spread over processes are not averaged: leave it out, "
                "or run with --accelerate ddp"
            )
        self._model, self._power = model, 1 / lag - 1
        self._average = {name: weight.float().clone() for name, weight in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after this step."""
        decay = (1 - 1 / step) ** self._power
        for name, weight in self._model.state_dict().items():
            self._average[name].lerp_(weight.float(), 1 - decay)

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
