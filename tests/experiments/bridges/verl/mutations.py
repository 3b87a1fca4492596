"""Ways in which the bridge could be broken, each with the case that notices; applied by replacing one function."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from tensordict import TensorDict

import experiments.bridges.verl.maths as maths
import experiments.bridges.verl.rollout as rollout
import experiments.bridges.verl.trainer as trainer
import experiments.bridges.verl.worker as worker
from core.loop.loss import step_weights
from core.parts.batch import Batch
from experiments.bridges.verl.maths import TRAINED, WEIGHTS, StepMaths


@dataclass(frozen=True)
class Mutation:
    """What is replaced, by what, and the case in which that shows."""

    owner: Any
    name: str
    broken: Callable[..., Any]
    case: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        with patch.object(self.owner, self.name, self.broken):
            yield


GATHER, LOSS, WEIGH = StepMaths._gather, StepMaths.loss, StepMaths.weigh
BATCH_OF, FIELDS_OF, ORDER_OF = rollout.batch_of, rollout.fields_of, rollout.order_of


def own_rows_only(self: StepMaths, rows: Any, trained: Any, group: Any, rank: int, size: int) -> Any:
    return GATHER(self, rows, trained, group, 0, 1)


def weights_of_another_rank(self: StepMaths, rows: Any, trained: Any, group: Any, rank: int, size: int) -> Any:
    gathered = GATHER(self, rows, trained, group, rank, size)
    return maths.Gathered(gathered.rows, 0, gathered.is_counted)


def made_up_rows_too(self: StepMaths, data: TensorDict, *args: Any) -> bool:
    data[TRAINED] = torch.ones_like(data[TRAINED])
    return WEIGH(self, data, *args)


def weights_of_the_micro_batch(self: StepMaths, *, model_output: Any, data: TensorDict, dp_group: Any = None) -> Any:
    rows = self.rows_of(data)
    local = step_weights(self.variant, self._batch(rows["mask"]), rows["mask"])
    lengths = rows["lengths"].tolist()
    data[WEIGHTS] = maths._nested(local, torch.ones(len(lengths)).bool(), lengths)
    return LOSS(self, model_output=model_output, data=data, dp_group=dp_group)


def without_groups(keys: Any, is_padding: Any, group_size: int) -> list[int]:
    return sorted(ORDER_OF(keys, is_padding, group_size))


def tools_tokens_too(*args: Any) -> Batch:
    batch = BATCH_OF(*args)
    return batch.having(mask=batch.response_mask)


def advantages_in_batch_order(rows: Any, order: Any, *rest: Any) -> TensorDict:
    fields = FIELDS_OF(rows, order, *rest)
    other = FIELDS_OF(rows, sorted(order), *rest)
    return fields.update({"advantages": other["advantages"]})


MUTATIONS: Mapping[str, Mutation] = {
    "the rows of other processes are left out": Mutation(StepMaths, "_gather", own_rows_only, "grpo with KL"),
    "every process takes the weights of the first": Mutation(
        StepMaths, "_gather", weights_of_another_rank, "an aggregator of one's own"
    ),
    "the number of processes is forgotten": Mutation(maths, "world_size", lambda data: 1, "Dr. GRPO"),
    "rows that verl made up are counted": Mutation(StepMaths, "weigh", made_up_rows_too, "grpo with KL"),
    "a micro-batch is taken for the step": Mutation(StepMaths, "loss", weights_of_the_micro_batch, "DAPO"),
    "rows are not sorted into groups": Mutation(trainer, "order_of", without_groups, "RLOO"),
    "advantages go to other rows": Mutation(trainer, "fields_of", advantages_in_batch_order, "GSPO"),
    "what tools wrote is trained on": Mutation(trainer, "batch_of", tools_tokens_too, "CISPO"),
    "a step without a gradient is taken": Mutation(worker, "no_step", lambda engine: nullcontext(), "no spread"),
}
