"""The maths of an optimizer step on the rows that verl gives a process: the step's weights, micro-batches' losses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from verl.utils import tensordict_utils
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from core.loop.correct import correct
from core.loop.loss import counted_rows, prepare, step_weights, token_loss
from core.loop.rows import RowTensors
from core.parts.batch import Batch
from core.parts.options import ObjectiveOptions
from core.parts.variant import Variant

MASK, TRAINED, WEIGHTS, PREPARED = "grpolab_mask", "grpolab_trained", "grpolab_weights", "grpolab_prepared"
"""Fields of ours beside verl's: which tokens count; which rows are of the step at all; what each token weighs."""
TOKENS, STEP = "grpolab_tokens", "grpolab_step"
"""How many tokens count in an optimizer step; the number of the rollout."""
FIELDS: Final[Mapping[str, str]] = {
    "old_log_probs": "old_logps",
    "ref_log_prob": "ref_logps",
    "rollout_log_probs": "behaviour_logps",
    "advantages": "advantages",
    MASK: "mask",
    WEIGHTS: WEIGHTS,
    PREPARED: "prepared",
    "grpolab_rewards": "rewards",
    "grpolab_truncated": "truncated",
    "grpolab_sum_squared_probs": "sum_squared_probs",
}
"""verl's fields and ours, by what an objective asks for."""


@dataclass(frozen=True)
class Gathered:
    """What all processes know of an optimizer step."""

    rows: dict[str, list[Tensor]]
    """One tensor for each row of the step, in the order of the ranks."""
    first: int
    """The number of this rank's first row among them."""
    is_counted: bool
    """Whether any row can have a gradient."""


@dataclass(frozen=True)
class StepMaths:
    """A variant's loss for verl: the weights of a step from its rows on all ranks, then each micro-batch's share."""

    variant: Variant
    max_tokens: int
    group_size: int

    def rows_of(self, data: TensorDict, width: int | None = None) -> RowTensors:
        """What verl and the bridge know of these rows, padded to [b, T]."""
        lengths = data["response_mask"].offsets().diff()
        wide = int(lengths.max()) if width is None else width
        rows = {ours: _padded(data[theirs], wide) for theirs, ours in FIELDS.items() if theirs in data}
        rows["mask"] = rows["mask"].bool()
        return RowTensors(rows, lengths=lengths)

    def weigh(self, data: TensorDict, group: Any, rank: int, size: int, draw: torch.Generator) -> bool:
        """Add to a step's rows of this rank what each of their tokens weighs in the step of all ranks.

        `draw` is what an objective's preparation draws from, the same on every rank. False where no row can have a
        gradient: then no step is to be taken. Rows that verl made up to fill a batch, and those of groups that the
        filter dropped, are in no denominator and weigh nothing.
        """
        rows, trained = self.rows_of(data), data[TRAINED].bool()
        lengths = rows["lengths"].tolist()
        gathered = self._gather(rows, trained, group, rank, size)
        mask = _wide(gathered.rows["mask"])
        weights = step_weights(self.variant, self._batch(mask), mask) if len(mask) else mask.double()
        own = slice(gathered.first, gathered.first + int(trained.sum()))
        data[WEIGHTS] = _nested(weights[own], trained, lengths)
        if ObjectiveOptions.of(self.variant.objective).prepare and len(mask):
            data[PREPARED] = _nested(self._prepared(gathered, mask, draw)[own], trained, lengths)
        tensordict_utils.assign_non_tensor(data, **{TOKENS: int(mask.sum())})
        return gathered.is_counted

    def _gather(self, rows: RowTensors, trained: Tensor, group: Any, rank: int, size: int) -> Gathered:
        names = ["mask", *self._prepare_takes(rows)]
        lengths = rows["lengths"].tolist()
        of_step = trained.nonzero()[:, 0].tolist()
        own = {name: [_cut(rows[name][i], lengths[i]).detach().cpu() for i in of_step] for name in names}
        batch = self._batch(rows["mask"][trained].cpu())
        counted = counted_rows(self.variant, batch, RowTensors({k: x[trained].cpu() for k, x in rows.items()}))
        everyone = gather_objects((own, bool(counted.any())), group, size)
        every = {name: [row for rows_, _ in everyone for row in rows_[name]] for name in names}
        first = sum(len(rows_["mask"]) for rows_, _ in everyone[:rank])
        return Gathered(every, first, any(is_counted for _, is_counted in everyone))

    def _prepare_takes(self, rows: RowTensors) -> list[str]:
        """Fields that the objective's preparation reads; the present log-probabilities are the old ones there."""
        options = ObjectiveOptions.of(self.variant.objective)
        if not options.prepare:
            return []
        takes = {"old_logps" if name == "logps" else name for name in options.prepare_takes} | {"old_logps"}
        return sorted(takes & rows.keys() - {"mask"})

    def _prepared(self, gathered: Gathered, mask: Tensor, draw: torch.Generator) -> Tensor:
        rows = RowTensors({name: _wide(values) for name, values in gathered.rows.items()}, mask=mask)
        return prepare(self.variant, rows, rows["old_logps"], draw)

    def _batch(self, mask: Tensor) -> Batch:
        """What an aggregator reads beside the mask: a batch with these rows [B, T]."""
        rows, numbers = mask[:, None].bool(), torch.arange(len(mask))
        return Batch(
            rewards=torch.zeros(len(mask), 1),
            response_mask=rows,
            mask=rows,
            prompt_ids=numbers,
            max_tokens=self.max_tokens,
        )

    def loss(self, *, model_output: Mapping[str, Any], data: TensorDict, **_: Any) -> tuple[Tensor, Any]:
        """A micro-batch's share of the step's loss, with metrics, in place of verl's `ppo_loss`.

            dp_size * sum(weights * token losses)

        verl averages gradients over the `dp_size` processes. FSDP and Megatron engines call it alike.
        """
        logps = no_padding_2_padding(model_output["log_probs"], data)
        if not data[TOKENS]:  # on all ranks: parts are not asked about nothing
            return (0.0 * logps).sum(), {}
        rows = self.rows_of(data, logps.shape[1])
        if model_output.get("entropy") is not None:
            rows["entropy"] = no_padding_2_padding(model_output["entropy"], data)
        weights = rows.pop(WEIGHTS)
        rows = correct(self.variant, rows, logps.detach())
        losses, info = token_loss(self.variant, rows, logps, self.group_size)
        scale = world_size(data)
        total = (weights.to(logps.dtype) * losses).sum() * scale
        counted, tokens = rows["mask"] & data[TRAINED].bool()[:, None], data[TOKENS]
        means = {f"grpolab/{name}": x[counted].double().sum() / tokens * scale for name, x in info.items()}
        values = {"actor/pg_loss": total.detach(), **means}
        return total, {name: Metric(value=x, aggregation=AggregationType.SUM) for name, x in values.items()}


def gather_objects(own: Any, group: Any, size: int) -> list[Any]:
    """What each rank of a group gave, in their order."""
    everyone = [own] * size
    if size > 1:
        dist.all_gather_object(everyone, own, group)
    return everyone


def world_size(data: TensorDict) -> int:
    """Over how many processes verl averages gradients."""
    return int(data["dp_size"])


@contextmanager
def no_step(engine: Any) -> Iterator[None]:
    """Inside, the engine's weights stay: gradients of 0 would still move them by the optimizer's momentum."""
    engine.optimizer_step = lambda: 0.0
    try:
        yield
    finally:
        del engine.optimizer_step


def _cut(row: Tensor, length: int) -> Tensor:
    """A row without its padding; one number stays."""
    return row[:length] if row.ndim else row


def _padded(values: Tensor, width: int) -> Tensor:
    """Rows of their own lengths as [b, width]; numbers, one for each row, stay [b]."""
    if not values.is_nested:
        return values
    rows = values.unbind()
    return pad_sequence([*rows, rows[0].new_zeros(width)], batch_first=True)[:-1, :width]


def _wide(rows: list[Tensor]) -> Tensor:
    if not rows:
        return torch.zeros(0, 0)
    return pad_sequence(rows, batch_first=True) if rows[0].ndim else torch.stack(rows)


def _nested(of_trained: Tensor, trained: Tensor, lengths: list[int]) -> Tensor:
    """Rows of the step [R, T] among all of this rank, 0 elsewhere, each as long as its response."""
    rows = iter(of_trained.to(trained.device))
    own = [next(rows) if is_trained else None for is_trained in trained.tolist()]
    zeros = of_trained.new_zeros(max(lengths, default=0), device=trained.device)
    cut = [(zeros if row is None else row)[:length] for row, length in zip(own, lengths, strict=True)]
    return torch.nested.as_nested_tensor(cut, layout=torch.jagged)
