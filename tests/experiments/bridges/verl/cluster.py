"""A step of verl's trainer through Ray's processes and TransferQueue themselves, beside ours: run in a user's folder.

    python cluster.py FILE

All of verl's step but the sampler, in whose place recorded responses come from the agent loop: requests with seeds,
replay buffer, made-up rows, balancing, old log-probabilities, advantages, update. Writes FILE: loss and norm of the
gradient as verl logs them, and ours; the seeds; and where workers found our packages.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE))

import program  # type: ignore[import-not-found]  # noqa: E402, I001 - a platform before anything of verl's
import cpu_worker  # type: ignore[import-not-found]  # noqa: E402
import numpy as np  # noqa: E402
import ray  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
import transformers  # noqa: E402
from verl.single_controller.ray.base import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup  # noqa: E402
from verl.utils import tensordict_utils  # noqa: E402
from verl.utils.torch_dtypes import PrecisionType  # noqa: E402

from experiments.bridges.running import RunningVariant  # noqa: E402
from experiments.bridges.verl.paths import use_in_workers  # noqa: E402
from experiments.bridges.verl.seeds import KeyedAgentLoopManager, request_seed  # noqa: E402
from experiments.bridges.verl.settings import Settings  # noqa: E402
from experiments.bridges.verl.trainer import BridgedTrainer  # noqa: E402

SIZE, SEED = 2, 3
P, G = program.P, program.G
CASE = program.Case("dapo", ("dapo.filter_rounds = 1",), on_policy=True)
RECORDED = Path("recorded.pt").absolute()
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "cpu_platform",
    "PYTHONPATH": str(HERE),
    "RECORDED": str(RECORDED),
    "TRANSFER_QUEUE_ENABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@ray.remote  # type: ignore[untyped-decorator]
def places() -> list[str]:
    """Where a worker finds our packages."""
    import core
    import experiments

    return [str(core.__file__), str(experiments.__file__)]


def record(rollout: Any) -> None:
    """What the agent loop is to give, by prompt and sample."""
    batch, rows = rollout.batch, {}
    for row, response in enumerate(rollout.responses):
        p, g = divmod(row, G)
        rows[p, g] = {
            "prompt_ids": rollout.prompts[p].tolist(),
            "response_ids": response.tolist(),
            "response_mask": batch.mask[p, g, : len(response)].long().tolist(),
            "response_logprobs": batch.behaviour_logps[p, g, : len(response)].tolist(),
            "reward_score": float(batch.rewards[p, g]),
            "acc": float(batch.correct[p, g]),
        }
    torch.save(rows, RECORDED)


def asked(p: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {p}"}]


def make_trainer(config: Any) -> BridgedTrainer:
    """The bridge's trainer with what a step needs; verl's own start would load a sampler."""
    trainer: Any = object.__new__(BridgedTrainer)
    trainer.config, trainer.global_steps, trainer.stops, trainer.trainer_mode = config, 1, {program.EOS}, "sync"
    trainer.settings = Settings.of(config.actor_rollout_ref.grpolab)
    trainer.running = RunningVariant(trainer.settings.make())
    trainer.tokenizer = SimpleNamespace(eos_token_id=program.EOS)
    trainer.use_critic = trainer.use_reference_policy = trainer.curr_step_profile = False
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    trainer.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
    trainer.replay_buffer = trainer._build_replay_buffer()
    pool = RayResourcePool([SIZE], use_gpu=False, max_colocate_count=1)
    worker = RayClassWithInitArgs(ray.remote(cpu_worker.CpuWorker), config=config.actor_rollout_ref, role="actor")
    trainer.actor_rollout_wg = RayWorkerGroup(pool, worker, device_name="cpu")
    trainer.actor_rollout_wg.init_model()
    trainer.agent_loop_manager = KeyedAgentLoopManager.create(config=config, llm_client=None)
    made: BridgedTrainer = trainer
    return made


def make_config() -> Any:
    loops = Path("loops.yaml").absolute()
    loops.write_text("- name: recorded\n  _target_: cpu_worker.Recorded\n")
    agent = "actor_rollout_ref.rollout.agent"
    others = {f"{agent}.agent_loop_config_path": str(loops), f"{agent}.num_workers": 1, "data.seed": SEED}
    config = program.make_config(CASE, SIZE, **others, **{"actor_rollout_ref.grpolab.keyed_noise": True})
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 1
    config.actor_rollout_ref.grpolab.folder = str(HERE)
    return config


def main(file: Path) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1"}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        program.MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    rollout = program.make_rollout(CASE, model)
    record(rollout)
    use_in_workers()
    # a cluster of its own, whatever else runs on this machine
    ray.init("local", num_cpus=32, include_dashboard=False, runtime_env={"env_vars": ENVIRONMENT})
    found = ray.get(places.remote())
    config = make_config()
    tq.init(config.transfer_queue)
    trainer = make_trainer(config)
    prompts = np.empty(P, dtype=object)
    prompts[:] = [asked(p) for p in range(P)]
    names = {"uid": np.array(list("cab"), dtype=object), "index": np.arange(P), "raw_prompt": prompts}
    names["agent_name"] = np.array(["recorded"] * P, dtype=object)
    batch = tensordict_utils.get_tensordict(names)
    tensordict_utils.assign_non_tensor_data(batch, "global_steps", 1)
    trainer._submit_batch_to_rollout(batch)
    metrics: dict[str, float] = {}
    taken = trainer._step_once(metrics, {}, P)
    extra = tq.kv_batch_get(keys=taken.keys, partition_id="train", select_fields=["extra_fields"])["extra_fields"]
    seeds = {key: getattr(x, "data", x)["seed"] for key, x in zip(taken.keys, list(extra), strict=True)}
    expected = {
        f"{'cab'[p]}_{g}_0": request_seed(
            SEED, {"step": 1, "validate": False}, {"raw_prompt": asked(p), "index": p, "session_id": g}
        )
        for p in range(P)
        for g in range(G)
    }
    loss, gradients = program.ours(CASE, rollout, range(P * G), model)
    norm = float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())
    theirs = [float(metrics["actor/pg_loss"]), float(metrics["actor/grad_norm"])]
    seen = {"theirs": theirs, "ours": [loss, norm], "places": found, "made_up": len(taken.keys) - P * G}
    torch.save({**seen, "seeds": {key: seeds[key] for key in expected}, "expected": expected}, file)
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    PrecisionType.to_dtype = staticmethod(lambda _: torch.float32)
    main(Path(sys.argv[1]))
