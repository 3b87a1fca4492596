"""Real steps of verl's real FSDP worker on CPU, beside ours on the same rollout: in one process, and in two.

    python program.py FOLDER

Writes FOLDER/SIZE/RANK.pt: by case how far verl's loss and gradients were from ours at each optimizer step, and where
there are several processes, by mutation of the bridge as well. All are forks of this one: verl's imports take longer
than a case.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[4]
sys.path.append(str(Path(__file__).parent))  # where the user's parts are
sys.modules["tests"] = ModuleType("tests")
sys.modules["tests"].__path__ = [str(ROOT / "tests")]  # verl's wheel has a package of this name too

import tests.experiments.bridges.verl.cpu_platform  # noqa: F401, E402, I001 - before anything of verl's
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import transformers  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from tensordict import NonTensorData, NonTensorStack, TensorDict  # noqa: E402
from torch import Tensor  # noqa: E402
from verl.models.transformers import monkey_patch  # noqa: E402
from verl.utils import tensordict_utils  # noqa: E402
from verl.utils.torch_dtypes import PrecisionType  # noqa: E402
from verl.workers.engine.base import EngineRegistry  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402

import experiments.bridges.verl.trainer as trainer_module  # noqa: E402
from core.loop.loss import compute_advantages, kl_in_reward, step_loss  # noqa: E402
from core.loop.rewards import shape  # noqa: E402
from core.parts.batch import Batch  # noqa: E402
from core.randomness import torch_generator  # noqa: E402
from experiments.bridges.running import RunningVariant  # noqa: E402
from experiments.bridges.verl.command import prepare  # noqa: E402
from experiments.bridges.verl.maths import StepMaths  # noqa: E402
from experiments.bridges.verl.rollout import LOGPS  # noqa: E402
from experiments.bridges.verl.settings import Settings  # noqa: E402
from experiments.bridges.verl.trainer import BridgedTrainer  # noqa: E402
from experiments.bridges.verl.worker import BridgedWorker  # noqa: E402
from tests.experiments.bridges.verl.cases import CASES, Case  # noqa: E402
from tests.experiments.bridges.verl.mutations import MUTATIONS, Mutation  # noqa: E402

MODEL = ROOT / "core" / "assets" / "embedded"
P, G, LIMIT, PADS = 3, 4, 9, 4
EOS, VOCABULARY = 2, 15

# the newest TRL lacks what this version of verl imports of it where it is installed
monkey_patch.is_trl_available = lambda: False
# in float64 what is left of a difference is no rounding; verl's own settings have no word for it
PrecisionType.to_dtype = staticmethod(lambda _: torch.float64)


class RecordingEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP engine, which notes the gradients before each step."""

    def optimizer_step(self) -> Any:
        gradients = {name: whole(p.grad) for name, p in self.module.named_parameters() if p.grad is not None}
        NOTES[-1]["gradients"] = gradients
        return super().optimizer_step()


EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(RecordingEngine)
NOTES: list[dict[str, Any]] = []


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


@dataclass
class Rollout:
    """What both sides are given."""

    batch: Batch
    prompts: list[Tensor]
    responses: list[Tensor]
    """One for each row."""


def make_rollout(case: Case, model: torch.nn.Module) -> Rollout:
    draw = torch.Generator().manual_seed(7)
    lengths = torch.randint(1, LIMIT + 1, (P, G), generator=draw)
    lengths[0] = torch.tensor([LIMIT, 1, 5, LIMIT])
    prompts = [
        torch.randint(3, VOCABULARY, (int(n),), generator=draw) for n in torch.randint(2, 6, (P,), generator=draw)
    ]
    responses = [torch.randint(3, VOCABULARY, (int(n),), generator=draw) for n in lengths.flatten()]
    for row, response in enumerate(responses):
        if row not in (0,):
            response[-1] = EOS  # the first one was cut at the limit
    valid = torch.arange(LIMIT) < lengths[..., None]
    mask = valid.clone()
    mask[1, 2, 0] = False  # a hole, as the answer of a tool leaves
    verdicts = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()  # the last group without spread
    rewards = verdicts.float() * 0.8 + torch.tensor([[0.3, 0.1, 0, 0], [0.2, 0, 0.1, 0], [0, 0, 0, 0]])
    if case.rewards == "equal":
        rewards, verdicts = torch.ones(P, G), torch.ones(P, G).bool()
    truncated = torch.zeros(P, G, dtype=torch.bool)
    truncated[0, 0] = True
    with torch.no_grad():
        logps, _, sums = forward(model, [prompts[i // G] for i in range(P * G)], responses)
    logps, sums = logps.float(), sums.float()  # what verl's store holds
    logps, sums = logps.view(P, G, LIMIT), sums.view(P, G, LIMIT)

    def noisy(scale: float) -> Tensor:
        return torch.where(valid, logps + scale * torch.randn(logps.shape, generator=draw), 0.0)

    batch = Batch(
        rewards=rewards,
        response_mask=valid,
        mask=mask,
        prompt_ids=torch.arange(P),
        max_tokens=LIMIT,
        step=1,
        truncated=truncated,
        correct=verdicts,
        old_logps=torch.where(valid, logps, 0.0) if case.on_policy else noisy(0.3),
        ref_logps=noisy(0.5),
        behaviour_logps=noisy(0.2),
        sum_squared_probs=torch.where(valid, sums, 0.0),
    )
    return Rollout(batch, prompts, responses)


def forward(
    model: torch.nn.Module, prompts: Sequence[Tensor], responses: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and sums of squared probabilities [B, LIMIT], row by row, without padding."""
    out = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.cat([prompt, response])[None]
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        every = torch.log_softmax(logits, -1)
        mine = every.gather(1, response[:, None])[:, 0]
        three = torch.stack([mine, -(every.exp() * every).sum(-1), every.exp().square().sum(-1)])
        out.append(torch.nn.functional.pad(three, (0, LIMIT - len(response))))
    return torch.stack(out, dim=1).unbind()  # type: ignore[return-value]


# --- verl's side: what its store has, and its trainer and worker ------------------------------------------------------


class Meta:
    """In place of the store's key-value metadata."""

    def __init__(self, keys: list[str], tags: list[dict[str, Any]]) -> None:
        self.keys, self.tags, self.partition_id = keys, tags, "train"
        self.extra_info: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.keys)


class Store:
    """In place of TransferQueue: one table in memory."""

    def __init__(self, table: TensorDict, meta: Meta) -> None:
        self.table, self.meta = table, meta

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        assert keys == self.meta.keys
        return self.table.select(*[name for name in select_fields if name in self.table])

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: TensorDict) -> Meta:
        assert keys == self.meta.keys
        self.table.update(fields)
        return self.meta


def nested(rows: Sequence[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor([row.clone() for row in rows], layout=torch.jagged)


def make_store(rollout: Rollout, size: int) -> Store:
    """The rows in another order, made-up ones among them, as verl's balancing leaves them."""
    order = torch.randperm(P * G + PADS, generator=torch.Generator().manual_seed(3)).tolist()
    batch, tables, keys, tags = rollout.batch, [], [], []
    for row in order:
        pad = row >= P * G
        source = 0 if pad else row
        n = 1 if pad else int(batch.lengths.flatten()[row])
        prompt = torch.full((7,), EOS) if pad else rollout.prompts[row // G]
        response = torch.full((1,), EOS) if pad else rollout.responses[row]
        mask = torch.zeros(1).long() if pad else batch.rows("mask")[row, :n].long()
        score = torch.zeros(n)
        score[-1] = 0.0 if pad else batch.rewards.flatten()[row]
        known = {verls: (torch.full((n,), -1.0) if pad else batch.rows(ours)[row, :n]) for verls, ours in LOGPS.items()}
        sums = torch.cat([torch.zeros(len(prompt) - 1), batch.rows("sum_squared_probs")[source, :n], torch.zeros(1)])
        ids = torch.cat([prompt, response])
        tables.append(
            {"prompts": prompt, "responses": response, "input_ids": ids, "position_ids": torch.arange(len(ids))}
            | {"response_mask": mask, "loss_mask": mask, "rm_scores": score, "sum_pi_squared": sums, **known}
        )
        keys.append(f"pad_{row}_0" if pad else f"{'cab'[row // G]}_{row % G}_0")
        tags.append({"is_padding": pad})
    table = TensorDict({name: nested([t[name] for t in tables]) for name in tables[0]}, batch_size=len(order))
    verdicts = [bool(batch.rows("correct")[row if row < P * G else 0]) for row in order]
    extra = [{"reward_extra_info": {"acc": float(verdict)}} for verdict in verdicts]
    table["extra_fields"] = NonTensorStack(*[NonTensorData(each) for each in extra])
    table["row_number"] = torch.tensor([row if row < P * G else -1 for row in order])
    return Store(table, Meta(keys, tags))


class Group:
    """In place of verl's worker group: hands this process its share of the rows."""

    def __init__(self, worker: BridgedWorker, store: Store, rank: int, size: int) -> None:
        self.worker, self.store, self.rank, self.size = worker, store, rank, size

    def update_actor(self, meta: Meta) -> TensorDict:
        share = len(meta) // self.size
        own = torch.arange(self.rank * share, (self.rank + 1) * share)
        data = tensordict_utils.index_select_tensor_dict(self.store.table, own)
        tensordict_utils.assign_non_tensor(data, **meta.extra_info)
        return self.worker.update_actor(data)


@cache
def composed() -> Any:
    """verl's configuration as it comes: Hydra reads thirty files for it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


def make_config(case: Case, size: int, **others: object) -> Any:
    rows = P * G + PADS
    settings: dict[str, object] = {
        "actor_rollout_ref.grpolab.variant": case.variant,
        "actor_rollout_ref.grpolab.import": ["users_parts"],
        "actor_rollout_ref.grpolab.bind": list(case.bindings),
        "actor_rollout_ref.model.path": str(MODEL),
        "actor_rollout_ref.model.use_remove_padding": False,
        "actor_rollout_ref.model.override_config.attn_implementation": "eager",
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype": "fp32",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.actor.use_torch_compile": False,
        "actor_rollout_ref.actor.ppo_mini_batch_size": rows // case.steps // G,
        "actor_rollout_ref.actor.ppo_epochs": case.epochs,
        "actor_rollout_ref.actor.shuffle": case.shuffle,
        "actor_rollout_ref.actor.grad_clip": 1e9,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.actor.use_kl_loss": "kl_coef" in " ".join(case.bindings),
        "actor_rollout_ref.rollout.n": G,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.response_length": LIMIT,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 2,
        "data.max_response_length": LIMIT,
        "data.train_batch_size": P,
        "trainer.n_gpus_per_node": size,
        "trainer.device": "cpu",
    }
    if case.tokens is None:
        settings["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] = 2
    else:
        settings["actor_rollout_ref.actor.use_dynamic_bsz"] = True
        settings["actor_rollout_ref.rollout.log_prob_use_dynamic_bsz"] = True
        settings["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] = case.tokens
    config = deepcopy(composed())
    for name, value in {**settings, **others}.items():
        OmegaConf.update(config, name, value, force_add=True)
    prepare(config)
    return config


class Steps:
    """The real worker of one process, its model as it was before each case."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        config = make_config(Case("grpo"), size)
        self.worker = BridgedWorker(config.actor_rollout_ref, role="actor")
        self.worker.init_model()
        self.worker.actor.engine._autocast_dtype = torch.float32  # no autocast
        actor = self.worker.actor
        take = type(actor).train_batch

        def noting(data: TensorDict) -> TensorDict:
            NOTES.append({"weights": self.weights(), "rows": everyones(data["row_number"].tolist(), self.size)})
            output = take(actor, data)
            NOTES[-1]["loss"] = tensordict_utils.get(output, "metrics")["loss"]
            NOTES[-1]["after"] = self.weights()
            return output

        actor.train_batch = noting
        self.start = self.weights()

    def weights(self) -> dict[str, Tensor]:
        return {name: whole(p) for name, p in self.worker.actor.engine.module.named_parameters()}

    def reset(self, config: Any) -> None:
        """The model as it was, and what another start would set: the engine's sizes and the loss."""
        from torch.distributed.tensor import distribute_tensor

        actor, settings = self.worker.actor, config.actor_rollout_ref.actor
        for name, p in actor.engine.module.named_parameters():
            new = self.start[name]
            p.data.copy_(distribute_tensor(new, p.device_mesh, p.placements) if hasattr(p, "device_mesh") else new)
        actor.engine_config.use_dynamic_bsz = settings.use_dynamic_bsz
        actor.engine_config.max_token_len_per_gpu = settings.ppo_max_token_len_per_gpu
        actor.engine_config.micro_batch_size_per_gpu = settings.ppo_micro_batch_size_per_gpu
        variant = Settings.of(config.actor_rollout_ref.grpolab).make()
        actor.maths = StepMaths(variant, LIMIT, G)
        actor.set_loss_fn(actor.maths.loss)
        actor.taken = (0, 0)
        NOTES.clear()

    def take(self, case: Case, rollout: Rollout) -> list[dict[str, Any]]:
        """The case's optimizer steps, by verl's trainer and worker."""
        config = make_config(case, self.size)
        self.reset(config)
        store = make_store(rollout, self.size)
        vars(trainer_module)["tq"] = store
        trainer = object.__new__(BridgedTrainer)
        trainer.config, trainer.global_steps, trainer.stops = config, 1, {EOS}
        trainer.settings = Settings.of(config.actor_rollout_ref.grpolab)
        trainer.running = RunningVariant(trainer.settings.make())
        trainer.actor_rollout_wg = Group(self.worker, store, self.rank, self.size)
        metrics: dict[str, Any] = {}
        meta = trainer._compute_advantage(store.meta, metrics)
        trainer._update_actor(meta, metrics)
        return [{**note, "metrics": metrics} for note in NOTES]


def everyones(own: Any, size: int) -> list[Any]:
    found: list[Any] = [None] * size
    dist.all_gather_object(found, own)
    return [each for share in found for each in share]


# --- ours: the same maths on the whole batch, row by row, with no engine ----------------------------------------------


def ours(case: Case, rollout: Rollout, rows: Sequence[int], model: torch.nn.Module) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one optimizer step on these rows, by `step_loss`."""
    variant = Settings(case.variant, ("users_parts",), case.bindings).make()
    batch = shape(variant, rollout.batch)
    keep = torch.ones(P).bool() if variant.filter is None else variant.filter(batch).bool()
    kept = keep.nonzero()[:, 0]
    chosen = kl_in_reward(variant, batch.select(kept))
    model.zero_grad()
    if not len(kept):
        return 0.0, {}
    advantages, _ = compute_advantages(variant, chosen, None)
    place = {int(p): i for i, p in enumerate(kept)}
    mine = [row for row in rows if row >= 0 and row // G in place]
    if not mine:
        return 0.0, {}
    index = torch.tensor([place[row // G] * G + row % G for row in mine])
    names = ("rewards", "response_mask", "mask", "truncated", "correct", "old_logps", "ref_logps", "behaviour_logps")
    own: dict[str, Any] = {name: chosen.rows(name)[index][:, None] for name in (*names, "sum_squared_probs")}
    of_step = Batch(
        **own,
        prompt_ids=torch.arange(len(mine)),
        max_tokens=LIMIT,
        step=1,
    )
    logps, entropy, _ = forward(model, [rollout.prompts[r // G] for r in mine], [rollout.responses[r] for r in mine])
    of_rows, draw = advantages.flatten(0, 1)[index][:, None], torch_generator(0, "objective", 1, 0)
    loss = step_loss(replace(variant, entropy_coef=0.0), of_step, logps[:, None], of_rows, draw)
    if variant.entropy_coef:
        weights = variant.aggregator(of_step.rows("mask"))
        loss = loss - variant.entropy_coef * (weights * torch.where(of_step.rows("mask"), entropy, 0.0)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compared(case: Case, steps: Steps, model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    load(model, steps.start)
    rollout = make_rollout(case, model)
    for note in steps.take(case, rollout):
        load(model, note["weights"])
        loss, gradients = ours(case, rollout, note["rows"], model)
        largest = max((float(g.abs().max()) for g in gradients.values()), default=0.0)
        theirs = note.get("gradients", {})
        apart = [float((g - gradients.get(name, torch.zeros_like(g))).abs().max()) for name, g in theirs.items()]
        moved = max(float((note["after"][name] - w).abs().max()) for name, w in note["weights"].items())
        yield {
            "rows": note["rows"],
            "loss": (float(note["loss"]), loss),
            "largest": largest,
            "apart": max(apart, default=0.0),
            "moved": moved,
            "metrics": {k: float(v) for k, v in note["metrics"].items() if "grpolab" in k or "pg_loss" in k},
        }


def load(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights[name])


def under(mutation: Mutation, steps: Steps, model: torch.nn.Module) -> list[dict[str, Any]]:
    """A case with the bridge broken; an error is noticed too."""
    with mutation.applied():
        try:
            return list(compared(CASES[mutation.case], steps, model))
        except RuntimeError as error:
            return [{"error": str(error)}]


def main(folder: Path, rank: int, size: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    steps = Steps(rank, size)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64, attn_implementation="eager")
    found = {"cases": {name: list(compared(case, steps, model)) for name, case in CASES.items()}}
    if size > 1:
        found["mutations"] = {name: under(mutation, steps, model) for name, mutation in MUTATIONS.items()}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def in_a_fork(folder: Path, rank: int, size: int) -> int:
    """Start one of the processes."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            main(folder, rank, size)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


if __name__ == "__main__":
    children = []
    for size in (1, 2):
        folder = Path(sys.argv[1], str(size))
        folder.mkdir()
        children += [in_a_fork(folder, rank, size) for rank in range(size)]
    sys.exit(max(os.waitpid(child, 0)[1] for child in children) > 0)
