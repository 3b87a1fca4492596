"""The losses of the references in the forms that rows of the table call."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from core import Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import best_and_worst


def trl_loss(loss_type: str = "dapo", **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of TRL's GRPO trainer."""

    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = trl.grpo(batch, loss_type=loss_type, **settings)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages}, logps)

    return call


def by_response(make: Callable[[Batch], Any]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of a trainer that takes one advantage a response."""

    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = make(batch)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages[:, 0]}, logps)

    return call


def verl_loss(mode: str, aggregation: str = "token-mean", **config: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """A loss of verl, by its name in verl's registry."""

    return lambda batch, logps, advantages: verl.loss(mode, batch, logps, advantages, aggregation=aggregation, **config)


def openrlhf_loss(**of_loss: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of OpenRLHF's actor."""

    return lambda batch, logps, advantages: openrlhf.loss(batch, logps, advantages, **of_loss)


def by_side(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """A loss that takes the sign of each response's advantage."""
    return lambda batch, logps, advantages: call(batch, logps, advantages[:, 0].sign(), *args, **settings)


def imitates(call: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """Whatever the advantages."""
    return lambda batch, logps, _: call(batch, logps)


def preferring(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor], Tensor]:
    """A loss on given preferences, here of the best of each group over the worst."""
    return lambda batch, logps: call(batch, logps, best_and_worst(batch), *args, **settings)
