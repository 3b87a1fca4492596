"""Ways to break the bridge, one by one; a test applies each and sees that the steps are no longer ours."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from experiments.bridges.trl.trainer import OURS, BridgedGRPOTrainer
from tests.experiments.bridges.trl.replay import Case

Methods = Mapping[str, Callable[..., Any]]
_weigh, _batch_of = BridgedGRPOTrainer._weigh, BridgedGRPOTrainer._batch_of
_prepare_inputs, _compute_loss = BridgedGRPOTrainer._prepare_inputs, BridgedGRPOTrainer._compute_loss


@dataclass(frozen=True)
class Mutant:
    """Methods to put in place of the bridge's, and the case that must notice."""

    methods: Methods
    case: Case
    processes: int = 1


def _ungathered(self: Any, chunks: Any) -> None:
    """As if every rank's rows were those of all."""
    self._everyones = lambda own: torch.cat([own] * self.accelerator.num_processes)
    try:
        _weigh(self, chunks)
    finally:
        del self._everyones


def _not_averaged(self: Any, chunks: Any) -> None:
    """As if gradients were added up over the ranks."""
    _weigh(self, chunks)
    for chunk in chunks:
        chunk[f"{OURS}weights"] = chunk[f"{OURS}weights"] / self.accelerator.num_processes


def _local(self: Any, chunks: Any) -> None:
    """As if a micro-batch were a step."""
    for chunk in chunks:
        _weigh(self, [chunk])
        chunk[f"{OURS}weights"] = chunk[f"{OURS}weights"] / len(chunks)


def _of_the_generation(self: Any, chunks: Any) -> None:
    """As if all rows of a generation were one step."""
    every = self._buffered_inputs
    _weigh(self, every)
    for chunk in chunks:
        chunk[f"{OURS}weights"] = chunk[f"{OURS}weights"] * len(every) / len(chunks)


def _dropped_count(self: Any, chunks: Any) -> None:
    """As if rows of groups that the filter drops were in the denominator."""
    for chunk in chunks:
        chunk[f"{OURS}trained"] = torch.ones_like(chunk[f"{OURS}trained"])
    _weigh(self, chunks)


def _with(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Methods:
    """What TRL has made of a rollout, changed before the batch is made of it."""
    return {"_batch_of": lambda self, out, prompts: _batch_of(self, change(dict(out)), prompts)}


def _padding_counts(out: dict[str, Any]) -> dict[str, Any]:
    whole = torch.ones_like(out["completion_mask"])
    return out | {"completion_mask": whole, "tool_mask": whole}


def _holes_count(out: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in out.items() if name != "tool_mask"}


def _no_old_logps(self: Any, model: Any, inputs: Any) -> Any:
    """As if every step were the first on its rollout."""
    return _compute_loss(self, model, {name: x for name, x in inputs.items() if name != f"{OURS}old_logps"})


def _without_scale(self: Any, model: Any, inputs: Any) -> Any:
    """As if the trainer divided by the number of micro-batches."""
    return _compute_loss(self, model, inputs) / self.args.gradient_accumulation_steps


def _first_weights(self: Any, generation_batch: Any) -> Any:
    """As if every micro-batch had the first one's weights."""
    inputs = _prepare_inputs(self, generation_batch)
    first = self._buffered_inputs[0][f"{OURS}weights"]
    return inputs | {f"{OURS}weights": first}


_BY_TOKEN: Final = Case("dapo", ("dapo.filter = None",), 2, 1)
_BY_ROW: Final = Case("grpo", (), 2, 1)
MUTANTS: Final = {
    "rows of a step are not gathered": Mutant({"_weigh": _ungathered}, _BY_TOKEN, 2),
    "the number of processes is forgotten": Mutant({"_weigh": _not_averaged}, _BY_ROW, 2),
    "tokens of a micro-batch are those of the step": Mutant({"_weigh": _local}, _BY_TOKEN),
    "tokens of the generation are those of the step": Mutant(
        {"_weigh": _of_the_generation}, Case("dapo", ("dapo.filter = None",), 1, 2)
    ),
    "rows of dropped groups count": Mutant(
        {"_weigh": _dropped_count}, Case("dapo", ("dapo.aggregator = @seq_mean_token_mean",))
    ),
    "padding counts": Mutant(_with(_padding_counts), _BY_ROW),
    "holes count": Mutant(_with(_holes_count), _BY_ROW),
    "old log-probabilities are lost": Mutant({"_compute_loss": _no_old_logps}, Case("grpo", (), 1, 2)),
    "the loss is divided by the micro-batches": Mutant({"_compute_loss": _without_scale}, _BY_ROW),
    "weights are another micro-batch's": Mutant({"_prepare_inputs": _first_weights}, _BY_ROW),
}


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The bridge, broken in this way."""
    before = {name: getattr(BridgedGRPOTrainer, name) for name in mutant.methods}
    for name, method in mutant.methods.items():
        setattr(BridgedGRPOTrainer, name, method)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(BridgedGRPOTrainer, name, method)
