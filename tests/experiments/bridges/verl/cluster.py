"""One update through Ray's processes and TransferQueue themselves, beside ours: run in a user's folder.

    python cluster.py FILE

Writes FILE: loss and norm of the gradient as verl logs them, and ours; and where workers found our packages.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE))

import program  # type: ignore[import-not-found]  # noqa: E402, I001 - a platform before anything of verl's
import cpu_worker  # type: ignore[import-not-found]  # noqa: E402
import ray  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
import transformers  # noqa: E402
from verl.single_controller.ray.base import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup  # noqa: E402
from verl.utils.torch_dtypes import PrecisionType  # noqa: E402

import experiments.bridges.verl.trainer as trainer_module  # noqa: E402
from experiments.bridges.running import RunningVariant  # noqa: E402
from experiments.bridges.verl.paths import use_in_workers  # noqa: E402
from experiments.bridges.verl.settings import Settings  # noqa: E402

SIZE = 2
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "cpu_platform",
    "PYTHONPATH": str(HERE),
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


def main(file: Path) -> None:
    case = program.CASES["an aggregator of one's own"]
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1"}
    use_in_workers()
    ray.init(num_cpus=32, include_dashboard=False, runtime_env={"env_vars": ENVIRONMENT})
    found = ray.get(places.remote())
    config = program.make_config(case, SIZE)
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 1
    config.actor_rollout_ref.grpolab.folder = str(HERE)
    tq.init(config.transfer_queue)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        program.MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    rollout = program.make_rollout(case, model)
    store = program.make_store(rollout, SIZE)
    pool = RayResourcePool([SIZE], use_gpu=False, max_colocate_count=1)
    worker = RayClassWithInitArgs(ray.remote(cpu_worker.CpuWorker), config=config.actor_rollout_ref, role="actor")
    group = RayWorkerGroup(pool, worker, device_name="cpu")
    group.init_model()
    trainer = object.__new__(trainer_module.BridgedTrainer)
    trainer.config, trainer.global_steps, trainer.stops = config, 1, {program.EOS}
    trainer.settings = Settings.of(config.actor_rollout_ref.grpolab)
    trainer.running = RunningVariant(trainer.settings.make())
    trainer.actor_rollout_wg = group
    batch = tq.kv_batch_put(keys=store.meta.keys, partition_id="train", fields=store.table, tags=store.meta.tags)
    metrics: dict[str, float] = {}
    trainer._update_actor(trainer._compute_advantage(batch, metrics), metrics)
    loss, gradients = program.ours(case, rollout, range(program.P * program.G), model)
    norm = float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())
    theirs = [float(metrics["actor/pg_loss"]), float(metrics["actor/grad_norm"])]
    torch.save({"theirs": theirs, "ours": [loss, norm], "places": found}, file)
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    PrecisionType.to_dtype = staticmethod(lambda _: torch.float32)
    main(Path(sys.argv[1]))
