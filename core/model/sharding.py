"""Weights, gradients and optimizer state spread over the ranks, as accelerate's configuration asks."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial
from transformers import PreTrainedModel

from core.distributed import ranks
from core.errors import GrpoLabError, MachineError
from core.model.deepspeed import Zero3, full_partition, zero_settings
from core.model.optimizer import Optimizer, OptimizerSettings, Stepper
from core.store.integrity import hash_tensors
from core.store.plain import PlainPlanner, PlainReader

Result = TypeVar("Result")


class Sharding(Protocol):
    """A model whose weights are spread over the ranks; all of its methods are collective."""

    def optimizer(self, settings: OptimizerSettings) -> Stepper:
        """The optimizer of the trained weights, made once and before the first pass."""
        ...

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of a pass through the model."""
        ...

    def gathered(self) -> AbstractContextManager[Any]:
        """Keep the whole weights on this rank meanwhile; ranks may then go their own ways."""
        ...

    def save(self, folder: Path) -> None:
        """Write every rank's part of trained weights and optimizer state."""
        ...

    def load(self, folder: Path) -> None:
        """Read them back."""
        ...


MakeSharding: TypeAlias = Callable[[PreTrainedModel, torch.dtype], Sharding]
"""Spreads a model of float32 weights, which then computes in the given precision."""


def configured_sharding() -> MakeSharding | None:
    """How accelerate's configuration asks for weights to be sharded, if it does.

    Read from the environment that the configuration becomes: accelerate itself drops it silently on CPU.
    """
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        return partial(Zero3, zero_settings())
    if not _is_set("ACCELERATE_USE_FSDP"):
        return None
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise GrpoLabError(f"fsdp_version = {plugin.fsdp_version} in accelerate's configuration: must be 2")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise GrpoLabError("fsdp_offload_params in accelerate's configuration is not supported: remove it")
    return FullyShard


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")


def full_tensor(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A weight as one tensor on this rank, in `dtype`; the gradients of all ranks flow back into its shards, summed."""
    if hasattr(weight, "ds_id"):
        return full_partition(weight)
    if not isinstance(weight, DTensor):
        return weight
    spread: Any = weight.to(dtype or weight.dtype)
    gathered_weight: Tensor = spread.full_tensor(grad_placements=[Partial()])
    return gathered_weight


# frozen weights are not saved: a run that goes on reads them from where the first start did
_TRAINED: Final = StateDictOptions(ignore_frozen_params=True, strict=False)


class FullyShard:
    """Sharding by torch's `fully_shard` (FSDP2)."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        self._model = model
        _shard(model, dtype)

    def optimizer(self, settings: OptimizerSettings) -> Optimizer:
        """One over this rank's shards."""
        self._optimizer = Optimizer(self._model.parameters(), settings)
        return self._optimizer

    def run(self, call: Callable[[], Result]) -> Result:
        """A pass as it is: the layers gather their weights themselves."""
        return call()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the whole weights on this rank meanwhile."""
        modules = [module for module in self._model.modules() if isinstance(module, FSDPModule)]
        head, embeddings = _ends(self._model)
        tied = head.weight is embeddings.weight
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        if tied:  # only the embeddings' module has got the whole weight: a tied head would be gathered a second time
            head.weight = embeddings.weight
        try:
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()
            if tied:
                head.weight = embeddings.weight

    def save(self, folder: Path) -> None:
        """Write this rank's shards."""
        weights, state = get_state_dict(self._model, self._optimizer.adam, options=_TRAINED)
        save({"weights": weights, "optimizer": state}, checkpoint_id=folder)

    def load(self, folder: Path) -> None:
        """Read them back."""
        weights, state = get_state_dict(self._model, self._optimizer.adam, options=_TRAINED)
        state_dict: dict[str, Any] = {"weights": weights, "optimizer": state}
        try:
            load(state_dict, storage_reader=PlainReader(folder), planner=PlainPlanner())
        except CheckpointException as error:  # of any rank, and no Exception
            cause = next((failure[0] for failure in error.failures.values()), error)
            raise MachineError(
                f"{folder} cannot be read: {cause}; remove the run's folder to start it again"
            ) from error
        set_state_dict(
            self._model,
            self._optimizer.adam,
            model_state_dict=state_dict["weights"],
            optim_state_dict=state_dict["optimizer"],
            options=_TRAINED,
        )


def _shard(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Spread a model of float32 weights over all ranks, layer by layer; it computes in `dtype`.

    Gradients of the ranks are added up, not averaged: the loss's weights are those of the whole batch.
    """
    base: nn.Module = model.base_model
    head, embeddings = _ends(model)
    tied = head.weight is embeddings.weight
    device = head.weight.device.type
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device, (ranks(),)),
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
    }
    layers = [module for module in base.modules() if type(module).__name__ in (model._no_split_modules or ())]
    for module in [*layers, base, *([] if tied else [head])]:
        sharded = fully_shard(module, **options)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    if tied:
        head.weight = embeddings.weight
    unsharded = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if unsharded:
        raise GrpoLabError(f"{type(model).__name__}: {len(unsharded)} weights were not sharded, {unsharded[0]} first")


def _ends(model: PreTrainedModel) -> tuple[Any, Any]:
    """Output layer and embeddings."""
    return model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[no-untyped-call]


def hash_weights(model: nn.Module) -> str:
    """A short digest of all weights; all ranks together, where weights are spread over them."""
    return hash_tensors(full_tensor(parameter) for _, parameter in sorted(model.named_parameters()))
