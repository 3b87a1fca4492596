"""Sampling noise with keys: every request to verl's sampler has a seed of its own, so that arms can be paired.

Without, verl gives all requests of a replica one seed or none: which response gets which noise then depends on the
order in which requests arrive.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import ray
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ

from core.randomness import key, stream
from experiments.bridges.verl.settings import Settings

REQUESTS = stream("verl_requests")


def request_seed(seed: int, trajectory: Mapping[str, Any], asked: Mapping[str, Any]) -> int:
    """The seed of one request, 63 bits: by run seed, step, prompt, sample, and whether it is for validation.

    A prompt is known by its text and its `index` in the data: the same in every arm and on every machine.
    """
    index: Any = asked.get("index")
    index = index.item() if hasattr(index, "item") else index  # of numpy, or a tensor
    prompt = json.dumps([asked.get("raw_prompt"), index], sort_keys=True, default=str)
    number = int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest(), "little") >> 1
    return key(
        seed, REQUESTS, int(trajectory["validate"]), int(trajectory["step"]), number, int(asked.get("session_id", 0))
    )


class KeyedAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's worker of agent loops; any loop's requests carry the seed of their response."""

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **asked: Any) -> Any:
        seed = request_seed(Settings.of(self.config.actor_rollout_ref.grpolab).seed, trajectory, asked)
        return await super()._run_agent_loop({**sampling_params, "seed": seed}, trajectory, **asked)


class KeyedAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager of agent loops, with these workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(KeyedAgentLoopWorker)
