"""TRL's GRPO trainer with a variant's maths: TRL generates, scores, shards and steps."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from transformers import TrainerCallback

from core.errors import GrpoLabError
from core.loop.correct import correct
from core.loop.loss import needs_old_logps, prepare, token_loss
from core.loop.rewards import shape_rewards
from core.loop.rows import RowTensors
from core.parts.batch import Batch
from core.parts.options import ObjectiveOptions
from core.parts.variant import Variant
from core.randomness import stream, torch_generator
from experiments.bridges.running import TRAINED, RunningVariant
from experiments.bridges.support import support
from experiments.bridges.trl.generating import GeneratingTrainer
from experiments.bridges.trl.record import RECORD, read_state, write_record, write_state
from experiments.bridges.trl.refusals import names_of, refuse
from experiments.bridges.trl.surface import LOGPS, check_surface, image_fields

try:
    import trl
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head
except ModuleNotFoundError as error:
    raise GrpoLabError("variants inside TRL need it: pip install 'grpo-lab[trl]'") from error

OURS: Final = "grpolab/"
"""Before the names of what the bridge adds to TRL's chunks of rows."""
OBJECTIVE: Final = stream("trl_objective")
LOGGED: Final = {"old_logps": "old_per_token_logps", "ref_logps": "ref_per_token_logps"}
"""Log-probabilities that TRL has computed, by our names."""


class BridgedGRPOTrainer(GeneratingTrainer):
    """`GRPOTrainer` whose advantages, token losses and weights are a variant's.

    The weights are those of the aggregator over all rows of an optimizer step, on all ranks, whatever
    `gradient_accumulation_steps` and `steps_per_generation` are. `correct` names the reward function whose value, from
    1 up, is the verifier's verdict, for filters that read it; with one reward function it is that one. A reference
    model is loaded where the variant asks for one. Groups that a filter drops, and those of which a response got no
    reward from any function, are left out of a step and not sampled again. Raises `GrpoLabError` for what cannot hold
    in TRL, before the model is loaded.
    """

    _buffered_inputs: list[dict[str, Any]] | None

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: GRPOConfig,
        *,
        variant: Variant,
        correct: str | None = None,
        **named: Any,
    ) -> None:
        check_surface(GRPOTrainer, trl.__version__)
        refuse(
            variant,
            args,
            correct=correct,
            rewards=names_of(reward_funcs),
            rollout_func=named.get("rollout_func"),
            tools=bool(named.get("tools") or named.get("environment_factory")),
        )
        if "ref_logps" in variant.needs:
            args.beta = variant.kl_coef or 1.0  # TRL loads a reference where this is not 0
        self._running = RunningVariant(variant)
        super().__init__(model, reward_funcs, args, **named)
        if self.aux_loss_enabled:
            raise GrpoLabError(
                f"variant '{variant.name}' in TRL: the model's router_aux_loss_coef = {self.router_aux_loss_coef:g} "
                "adds a loss of TRL's own: set router_aux_loss_coef=0"
            )
        parallel = getattr(self.accelerator, "parallelism_config", None)
        if parallel is not None and (parallel.tp_enabled or parallel.cp_enabled or parallel.sp_enabled):
            raise GrpoLabError(
                f"variant '{variant.name}' in TRL: tensor, context and sequence parallelism were not tried; spread the "
                "rows over processes instead (DDP, FSDP, DeepSpeed)"
            )
        names = self.reward_func_names
        self._correct = names.index(correct) if correct else 0 if len(names) == 1 else None
        self._image_fields = image_fields(GRPOTrainer)
        self._parts = torch.empty(0)
        self._batch: Batch | None = None
        self._idle = False
        if "sum_squared_probs" in variant.needs:
            self._add_squared_head()
        self.add_callback(_Bridge(self))

    @property
    def variant(self) -> Variant:
        """The variant, with its present KL coefficient."""
        return self._running.variant

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        self._parts = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._parts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        prompts = torch.tensor([_number(row.get("prompt")) for row in inputs], device=self.accelerator.device)
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return out
        batch = self._batch_of(out, prompts)
        graded = ~self._parts.isnan().all(1).view(batch.groups, -1).any(1)
        if "greedy_rewards" in self.variant.needs:
            batch = self._with_greedy(batch, inputs)
            graded &= ~batch.require("greedy_rewards").isnan()
        self._batch = batch
        rows = self._running.learn_from(batch, graded)
        width = out["completion_ids"].shape[1]
        own = {name: self._own(x) for name, x in rows.items()}
        own["row"] = torch.arange(len(inputs), device=self.accelerator.device)
        out |= {OURS + name: x[:, :width] if x.ndim == 2 else x for name, x in own.items()}
        out["advantages"] = _row_means(own["advantages"], own["mask"])
        self._logs["advantages"].clear()
        self._logs["advantages"].extend(_row_means(rows["advantages"], rows["mask"]).tolist())
        return out

    def _batch_of(self, out: Mapping[str, Any], prompts: Tensor) -> Batch:
        """The rollout of all ranks, in groups [P, G, T]."""
        ids, response = out["completion_ids"], out["completion_mask"].bool()
        last = ids.gather(1, (response.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
        ends = torch.tensor([*self.eos_token_ids, self._tokenizer.pad_token_id], device=ids.device)
        own = {
            "response_mask": response,
            "mask": response & out["tool_mask"].bool() if "tool_mask" in out else response,
            "response_tokens": ids,
            "truncated": ~torch.isin(last, ends),
            "prompt_ids": prompts,
            **{ours: out[theirs] for ours, theirs in LOGGED.items() if theirs in out},
        }
        if out.get("sampling_per_token_logps") is not None:
            own["behaviour_logps"] = out["sampling_per_token_logps"]
        if "old_logps" not in own and needs_old_logps(self.variant, self._updates):
            own["old_logps"] = self._logps(self.model, out)
        if "sum_squared_probs" in self.variant.needs:
            own["sum_squared_probs"] = self._sum_squared_probs(out)
        rows = {name: self._everyones(x) for name, x in own.items()}
        grouped: dict[str, Any] = {n: x.view(-1, self.num_generations, *x.shape[1:]) for n, x in rows.items()}
        prompt_ids = grouped.pop("prompt_ids")
        if (prompt_ids != prompt_ids[:, :1]).any():
            raise GrpoLabError(
                "rows that follow each other, num_generations at a time over all ranks, do not share their prompt: "
                "groups cannot be told; leave the sampler and the data loader as TRL makes them"
            )
        parts = self._parts.view(len(prompt_ids), self.num_generations, -1)
        if "reward_parts" in self.variant.needs and (parts.isnan().any(-1) & ~parts.isnan().all(-1)).any():
            raise GrpoLabError(
                f"variant '{self.variant.name}' reads every reward function's value, and one returned None for a "
                "response that another graded: return a number"
            )
        return Batch(
            rewards=(parts * self.reward_weights.to(parts)).nansum(-1),
            reward_parts=parts,
            reward_names=tuple(self.reward_func_names),
            reward_weights=tuple(self.reward_weights.tolist()),
            correct=None if self._correct is None else parts[..., self._correct] >= 1,
            prompt_ids=prompt_ids[:, 0],
            max_tokens=self.max_completion_length,
            step=self.rollout_number,
            **grouped,
        )

    def _with_greedy(self, batch: Batch, inputs: list[dict[str, Any]]) -> Batch:
        """Shaped rewards of the greedy responses [P]; NaN where no function gave one."""
        parts, lengths, truncated = self.greedy(inputs)
        rewards = (parts * self.reward_weights.to(parts)).nansum(-1)
        shaped = shape_rewards(self.variant, rewards, lengths, truncated, batch.max_tokens)
        return batch.having(greedy_rewards=shaped.masked_fill(parts.isnan().all(-1), torch.nan))

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training:
            steps = self.args.gradient_accumulation_steps
            chunks = self._buffered_inputs or []
            if chunks is not before:
                if ObjectiveOptions.of(self.variant.objective).level == "group":
                    chunks[:] = [_in_order(chunk) for chunk in chunks]
                for start in range(0, len(chunks), steps):
                    self._weigh(chunks[start : start + steps])
            if self._step % steps == 0 and ObjectiveOptions.of(self.variant.objective).prepare:
                start = self._step % self.args.steps_per_generation
                self._prepare_step(chunks[start : start + steps])
            inputs = chunks[self._step % self.args.steps_per_generation]
        return inputs

    def _weigh(self, chunks: list[dict[str, Any]]) -> None:
        """Give the chunks of one optimizer step the weights that its rows have among those of all ranks."""
        assert self._batch is not None
        ranks = self.accelerator.num_processes  # whose gradients are averaged
        mask, trained = (self._everyones(_joined(chunks, name)) for name in ("mask", TRAINED))
        for chunk in chunks:
            chunk[OURS + "idle"] = ~mask.any()
        weights = self._running.weights(self._batch, mask, trained) * ranks
        self._give(chunks, "weights", self._own(weights))

    @torch.no_grad()
    def _prepare_step(self, chunks: list[dict[str, Any]]) -> None:
        """Give the chunks of one optimizer step what the objective computes on all its rows, before it begins."""
        logps = self._everyones(torch.cat([self._logps(self.model, chunk) for chunk in chunks]))
        names = [name.removeprefix(OURS) for name, x in chunks[0].items() if name.startswith(OURS) and x.ndim]
        rows = {name: self._everyones(_joined(chunks, name)) for name in names}
        trained = rows[TRAINED]
        draw = torch_generator(self.args.seed, OBJECTIVE, self.state.global_step)
        of_trained = RowTensors(rows).at(trained)
        values = prepare(self.variant, of_trained, logps[trained], draw)
        prepared = values.new_zeros(logps.shape)
        prepared[trained] = values
        self._give(chunks, "prepared", self._own(prepared))

    def _give(self, chunks: list[dict[str, Any]], name: str, values: Tensor) -> None:
        """Add own rows of `values` to each chunk."""
        width = chunks[0]["completion_ids"].shape[1]
        for chunk, part in zip(chunks, values[:, :width].chunk(len(chunks)), strict=True):
            chunk[OURS + name] = part

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self.model.training:
            of_evaluation: Tensor = super()._compute_loss(model, inputs)  # TRL's own: nothing learns from it
            return of_evaluation
        logps, entropy = self._logps_and_entropy(model, inputs)
        rows = {name.removeprefix(OURS): x for name, x in inputs.items() if name.startswith(OURS)}
        weights = rows.pop("weights").to(logps.dtype)
        self._idle = bool(rows.pop("idle"))
        rows = correct(self.variant, RowTensors({**rows, "entropy": entropy}), logps.detach())
        losses, info = token_loss(self.variant, rows, logps, self.num_generations)
        self._log({"entropy": entropy, **{f"grpolab/{name}": x for name, x in info.items()}}, rows["mask"])
        loss: Tensor = (weights * losses).sum()
        return loss

    def _log(self, values: Mapping[str, Tensor], mask: Tensor) -> None:
        """Note means over the tokens of all ranks."""
        sums = torch.stack([*(x.detach()[mask].float().sum() for x in values.values()), mask.sum().float()])
        *totals, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        for name, total in zip(values, totals, strict=True):
            self._metrics["train"][name].append(total / max(count, 1.0))

    def _logps_and_entropy(self, model: Any, chunk: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [b, T] of a chunk's responses."""
        logps, entropy, _ = getattr(self, LOGPS)(
            model,
            torch.cat([chunk["prompt_ids"], chunk["completion_ids"]], 1),
            torch.cat([chunk["prompt_mask"], chunk["completion_mask"]], 1),
            chunk["completion_ids"].shape[1],
            batch_size=self.args.per_device_train_batch_size,
            compute_entropy=True,
            **{name: chunk[name] for name in self._image_fields if name in chunk},
        )
        return logps, entropy

    @torch.no_grad()
    def _logps(self, model: Any, chunk: Mapping[str, Any]) -> Tensor:
        logps: Tensor = self._logps_and_entropy(model, chunk)[0]
        return logps

    def _add_squared_head(self) -> None:
        """Let the head that TRL puts on the model also give the sum of squared probabilities."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        add_fused_lm_head(
            model,
            temperature=self.temperature,
            cast_lm_head_to_fp32=self.args.cast_lm_head_to_fp32,
            outputs=("log_probs", "entropy", "log_sum_sq_probs"),
        )

    @torch.no_grad()
    def _sum_squared_probs(self, out: Mapping[str, Any]) -> Tensor:
        """[b, T], 0 outside the responses."""
        if any(name in out for name in self._image_fields):
            raise GrpoLabError("the sum of squared probabilities was not tried with images in TRL")
        width = out["completion_ids"].shape[1]
        ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
        attended = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
        labels = ids.masked_fill(attended == 0, -100)
        labels[:, :-width] = -100
        size = self.args.per_device_train_batch_size
        made = []
        with self.accelerator.autocast():
            for start in range(0, len(ids), size):
                some = slice(start, start + size)
                given = {"input_ids": ids[some], "attention_mask": attended[some], "labels": labels[some]}
                made.append(self.model(**given, fused_lm_head=True).log_sum_sq_probs[:, -width:].exp())
        sums: Tensor = torch.cat(made) * out["completion_mask"]
        return sums

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # before TRL's own: a checkpoint that is complete has it
        folder = f"{self._get_output_dir(trial=trial)}/checkpoint-{self.state.global_step}"
        if self.args.should_save:
            write_state(folder, {"variant": self.variant.name, **self._running.state_dict()})
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._running.load_state_dict(read_state(checkpoint, self.variant.name))

    def _everyones(self, own: Tensor) -> Tensor:
        """Rows of all ranks, the lower first, as wide as the widest."""
        if self.accelerator.num_processes == 1:
            return own
        is_bool = own.dtype == torch.bool
        wide = self.accelerator.pad_across_processes(own.to(torch.uint8) if is_bool else own.contiguous(), dim=1)
        every: Tensor = self.accelerator.gather(wide)
        return every.bool() if is_bool else every

    def _own(self, every: Tensor) -> Tensor:
        """This rank's rows."""
        own: Tensor = every.chunk(self.accelerator.num_processes)[self.accelerator.process_index]
        return own


class _Bridge(TrainerCallback):
    """Writes what the run is when it begins, and keeps idle steps from moving the weights."""

    def __init__(self, trainer: BridgedGRPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Write `grpolab.json`, and say what is not exact."""
        trainer = self._trainer
        if not trainer.is_world_process_zero():
            return
        write_record(trainer.args.output_dir, trainer.variant, trainer.args.seed, trainer.keyed_noise)
        for line in support("trl", trainer.variant):
            if line.degree == "approximate":
                print(f"grpolab: {line.subject}: {line.why}")
        noise = "keyed by the seed" if trainer.keyed_noise else "TRL's own: runs of one seed do not share it"
        print(f"grpolab: {trainer.variant.name}, noise {noise}; {trainer.args.output_dir}/{RECORD} says so")

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
        """Take the gradients away where no token of any rank counts: momentum would move the weights."""
        if self._trainer._idle:
            for parameter in given["model"].parameters():
                parameter.grad = None


def _in_order(chunk: dict[str, Any]) -> dict[str, Any]:
    """The same rows as they were sampled, group by group."""
    order = chunk[OURS + "row"].argsort()
    if lists := [name for name, x in chunk.items() if not isinstance(x, Tensor)]:
        raise GrpoLabError(f"an objective that reads whole groups was not tried with images in TRL: {lists[0]}")
    return {name: x[order] if x.ndim else x for name, x in chunk.items()}


def _joined(chunks: list[dict[str, Any]], name: str) -> Tensor:
    return torch.cat([chunk[OURS + name] for chunk in chunks])


def _row_means(values: Tensor, mask: Tensor) -> Tensor:
    """[B]: the mean over the tokens that count."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def _number(prompt: object) -> int:
    """The same for the same prompt, whenever it comes."""
    return int.from_bytes(hashlib.blake2b(repr(prompt).encode(), digest_size=8).digest(), "little") >> 1
