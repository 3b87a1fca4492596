"""What holds weights in a training: policy, critic, reference, reward model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.model.sharding import MakeSharding, Sharding


@runtime_checkable
class Stateful(Protocol):
    """What a run that goes on must know of the one before."""

    def state_dict(self) -> dict[str, Any]:
        """That, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        ...


@runtime_checkable
class Trainable(Stateful, Protocol):
    """A model of a run, whose weights may be spread over the ranks."""

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are trained, by name; none of a frozen one."""
        ...

    def shard(self, sharding: MakeSharding, dtype: torch.dtype, /) -> None:
        """Spread the float32 weights over the ranks, to compute in `dtype`; raises `GrpoLabError` where that fails."""
        ...


def weights_of(trained: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    """The weights as a checkpoint keeps them."""
    return {name: parameter.detach() for name, parameter in trained}


def restore(trained: Iterable[tuple[str, nn.Parameter]], weights: Mapping[str, Tensor]) -> None:
    """Set the weights to those that a checkpoint kept."""
    with torch.no_grad():
        for name, parameter in trained:
            parameter.copy_(weights[name])


class TrainedModel:
    """A transformers model that is trained, whole or by its adapters: what a policy and a reward model share."""

    model: PreTrainedModel
    sharding: Sharding | None = None
    """How its weights are spread over the ranks, if they are."""

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are trained, by name."""
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def shard(self, sharding: MakeSharding, dtype: torch.dtype) -> None:
        """Spread the float32 weights over the ranks; passes compute in `dtype`."""
        self.sharding = sharding(self.model, dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights, where they are whole; those that are spread `sharding` saves."""
        return weights_of(self.trained())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the trained weights that a checkpoint kept."""
        restore(self.trained(), state)
