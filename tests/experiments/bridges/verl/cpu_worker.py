"""The bridge's worker with verl's FSDP engine on CPU, for processes of Ray: found by its plain name on their path."""

import os
from typing import Any

import cpu_platform  # type: ignore[import-not-found]  # noqa: F401 - before anything of verl's
import torch
import torch.distributed as dist
from verl.experimental.agent_loop import AgentLoopOutput
from verl.models.transformers import monkey_patch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from experiments.bridges.verl.worker import BridgedWorker

monkey_patch.is_trl_available = lambda: False
if "cpu" not in EngineRegistry._engines["language_model"]["fsdp2"]:
    EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(FSDPEngineWithLMHead)


class Recorded:
    """An agent loop that gives what was recorded, in place of a sampler, and notes the seed that it was given."""

    def __init__(self, **_: Any) -> None:
        self.rows = torch.load(os.environ["RECORDED"])

    async def run(self, sampling_params: dict[str, Any], **asked: Any) -> AgentLoopOutput:
        row = self.rows[int(asked["index"]), int(asked["session_id"])]
        steps = {"min_global_steps": 1, "max_global_steps": 1}
        extra = {"reward_extra_info": {"acc": row.pop("acc")}, "seed": sampling_params["seed"], **steps}
        return AgentLoopOutput(**row, num_turns=2, metrics={}, extra_fields=extra)


class CpuWorker(BridgedWorker):
    """As it is; verl itself would name two backends for the one device."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        dist.init_process_group("gloo")
        super().__init__(*args, **kwargs)
