"""Weights, gradients and optimizer state spread over the ranks by DeepSpeed (ZeRO-3)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import DeepSpeedPlugin
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.distributed import ranks
from core.errors import GrpoLabError, MachineError
from core.model.optimizer import OptimizerSettings

Result = TypeVar("Result")


def zero_settings() -> dict[str, Any]:
    """The ZeRO settings of accelerate's configuration; raises `GrpoLabError` where that is not supported."""
    plugin = DeepSpeedPlugin()
    settings: dict[str, Any] = plugin.deepspeed_config["zero_optimization"]
    if settings["stage"] != 3:
        raise GrpoLabError(
            f"zero_stage = {settings['stage']} in accelerate's configuration: must be 3; ddp shards nothing"
        )
    for place in ("offload_optimizer", "offload_param"):
        if settings.get(place, {}).get("device", "none") != "none":
            raise GrpoLabError(f"{place}_device in accelerate's configuration is not supported: must be 'none'")
    if plugin.zero3_init_flag:
        # a model is compared with itself before it is spread, which needs it whole
        raise GrpoLabError("zero3_init_flag in accelerate's configuration is not supported: must be false")
    # what is left to a trainer to fill in, DeepSpeed's defaults do
    return {name: value for name, value in settings.items() if value != "auto"}


class Zero3:
    """A model spread over the ranks, and the optimizer of what is trained in it."""

    def __init__(self, settings: Mapping[str, Any], model: PreTrainedModel, dtype: torch.dtype) -> None:
        if dtype == torch.float16:
            raise GrpoLabError("policy.dtype = 'float16' does not work with DeepSpeed here: use 'bfloat16'")
        self._pass = _Pass(model)
        self._head: nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._config = {
            "zero_optimization": dict(settings),
            "bf16": {"enabled": dtype == torch.bfloat16},
            # gradients are added up in float32, over micro-batches and over ranks
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            # of no meaning here, but asked for
            "train_micro_batch_size_per_gpu": 1,
        }
        if not self._trained:
            self._start(None)

    def _start(self, adam: torch.optim.Optimizer | None) -> None:
        import deepspeed

        self._engine, *_ = deepspeed.initialize(model=self._pass, optimizer=adam, config=self._config)
        # read in passes without a call of the layer
        for weight in self._head.parameters():
            deepspeed.zero.register_external_parameter(self._pass, weight)

    def optimizer(self, settings: OptimizerSettings) -> "Zero3":
        """Itself: DeepSpeed's engine does all in one."""
        self._config["gradient_clipping"] = settings.max_grad_norm
        self._start(settings.adam(self._trained))
        return self

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of a pass, in which each layer's weights are gathered when they are needed."""
        self._pass.call = call
        try:
            result: Result = self._engine()
        finally:
            del self._pass.call  # it holds the batch
        return result

    def gathered(self) -> AbstractContextManager[Any]:
        """Keep the whole weights on this rank meanwhile; ranks may then go their own ways."""
        from deepspeed.runtime.zero.stage3 import unwrap_model_for_generation

        gathered: AbstractContextManager[Any] = unwrap_model_for_generation(self._engine)
        return gathered

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch to those gathered."""
        # DeepSpeed averages over the ranks, and expects a loss where the weights are
        self._engine.backward((loss * ranks()).to(self._engine.device))

    def step(self, rate: float) -> float:
        """Clip, step, clear; returns the gradient norm before clipping, infinite for any that is not finite."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def clear(self) -> None:
        """Nothing to do: gradients are gathered only before a step, as a critic is refused with DeepSpeed."""

    def save(self, folder: Path) -> None:
        """Write every rank's part of trained weights and optimizer state; all ranks together."""
        self._engine.save_checkpoint(str(folder), "zero", save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Read them back; all ranks together."""
        path, _ = self._engine.load_checkpoint(str(folder), "zero", load_module_strict=False)
        if path is None:
            raise MachineError(f"{folder} holds no checkpoint of DeepSpeed: remove the run's folder to start it again")


class _Pass(nn.Module):
    """The root that DeepSpeed wants to see called: a pass through the model is more than its own call."""

    call: Callable[[], Any]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Any:
        return self.call()


def full_partition(weight: Any) -> Tensor:
    """A weight that DeepSpeed has spread, as one tensor; itself where it is gathered already, as inside of a pass."""
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    if weight.ds_status == ZeroParamStatus.AVAILABLE:
        gathered_weight: Tensor = weight
        return gathered_weight
    with deepspeed.zero.GatheredParameters([weight]):
        return weight.detach().clone()  # type: ignore[no-any-return]
