"""The critic: a value head on a trunk, which predicts at every token what the response will earn from there on."""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.distributed import gather
from core.errors import GrpoLabError
from core.loop.loss import step_weights
from core.loop.run_state import Backward, Fill, RunState
from core.loop.update import assign_micro_batches, map_micro_batches, ragged_tokens
from core.model.optimizer import LIMITS, Optimizer, OptimizerSettings, Schedule
from core.model.packing import scatter_rows
from core.model.policy import Policy, PolicySettings, load_policy
from core.model.trainable import restore, weights_of
from core.parts.batch import Batch
from core.parts.contracts import check_shape, provider
from core.parts.options import AdvantageOptions
from core.parts.settings import POSITIVE


class Critic:
    """Values of every token, and their update beside each of the policy's."""

    def __init__(
        self, run: RunState, trunk: Policy, settings: OptimizerSettings, *, coefficient: float, reaches_trunk: bool
    ) -> None:
        self._run, self._trunk, self._settings = run, trunk, settings
        self._coefficient, self._reaches_trunk = coefficient, reaches_trunk
        self._own = trunk is not run.policy
        self._is_shared = reaches_trunk and not self._own
        width: int = trunk.model.config.hidden_size
        # without weights at first: every value is 0, and only what has been learned counts
        self._head = nn.Linear(width, 1, device=trunk.device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._trained = dict(self._head.named_parameters(prefix="head"))
        if self._own:
            within = trunk.model.base_model.named_parameters(prefix="trunk")  # the output layer is not asked for
            self._trained |= {name: parameter for name, parameter in within if parameter.requires_grad}
        self._optimizer = Optimizer(self._trained.values(), settings)
        run.learners.append(self.learn)

    def __call__(self, batch: Batch) -> Tensor:
        """Values [P, G, T] of the states in which each token was chosen."""
        with torch.no_grad():
            return map_micro_batches(batch, lambda rows: self._values(batch, rows), self._run.recipe.micro_tokens)

    def _values(self, batch: Batch, rows: Tensor) -> Tensor:
        """Values [b, T] of these rows, 0 past the end."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._reaches_trunk):
            tokens = ragged_tokens(batch, rows, self._trunk.device)
            states, valid = self._trunk.predicting(*tokens, batch.response_mask.shape[-1])
        values: Tensor = self._head(states.float())[:, 0]
        return scatter_rows(values, valid).cpu()

    def learn(self, batch: Batch, backward: Backward) -> dict[str, float]:
        """One step on the rows of one of the policy's; where the trunk is shared, its gradient joins the policy's."""
        recipe = self._run.recipe
        variant = recipe.variant
        assert variant.value_loss is not None
        mask, old, returns = (batch.rows(name) for name in ("mask", "values", "returns"))
        weights = step_weights(variant, batch, mask, batch.turn_numbers.flatten(0, 1))
        micros, turns = assign_micro_batches(batch, mask.any(-1).nonzero()[:, 0], recipe.micro_tokens)
        total = 0.0
        for turn in turns:
            rows = min(micros, key=len) if turn is None else turn
            values = self._values(batch, rows)
            available = {"values": values, "old_values": old[rows], "returns": returns[rows]}
            arguments = {n: torch.where(mask[rows], available[n], 0.0) for n in variant.value_loss.parameters}
            losses = variant.value_loss(**arguments)
            check_shape(variant.value_loss, losses, values.shape)
            loss = (weights[rows].to(values.dtype) * torch.where(mask[rows], losses, 0.0)).sum()
            # where the trunk is the policy's, so is the step; the head is float32, whose gradient needs no gathering
            follow = backward if self._is_shared else self._optimizer.backward
            follow((self._coefficient if turn is not None else 0.0) * loss)
            total += float(loss.detach()) * (turn is not None)
        norm = self._optimizer.step(self._settings.rate(batch.step, recipe.steps))
        return {"value_loss": sum(gather([total])), "value_grad_norm": norm}

    @property
    def forward_tokens(self) -> int:
        """Tokens that went through a trunk of its own so far; those through the policy's count there."""
        return self._trunk.forward_tokens if self._own else 0

    @property
    def backward_tokens(self) -> int:
        """Tokens that its own trunk learned from."""
        return self._trunk.backward_tokens if self._own else 0

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The head, and what is trained of a trunk of its own."""
        return iter(self._trained.items())

    def shard(self, *_: Any) -> None:
        """Refused: its head and optimizer are whole."""
        raise GrpoLabError("a critic does not work with sharded weights yet: use ddp, or an advantage without a critic")

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer."""
        return {"weights": weights_of(self.trained()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        restore(self.trained(), state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])


@provider(
    fills="values",
    cost="a critic with its optimizer, one more forward pass a response, one forward and backward pass an update",
    published={"learning_rate": "verl"},
    limits={**LIMITS, "coefficient": POSITIVE},
)
def critic(
    run: RunState,
    *,
    trunk: Literal["own", "shared", "frozen"] = "own",
    model: str | None = None,
    learning_rate: float = 1e-5,
    warmup_steps: int = 0,
    schedule: Schedule = "constant",
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    coefficient: float = 0.1,
) -> Fill:
    """Values of a critic: a linear head, 0 at first, on a transformer's states.

        V_t = w . h_t + b,   h_t: the state from which token t is predicted

    It learns the advantage's target by the variant's `value_loss`, weighted by its aggregator, one step of AdamW beside
    each of the policy's. `trunk = "own"`: a transformer of its own, with the policy's first weights, of which it trains
    what the policy does (all, or adapters), or those of `model` (e.g. a smaller one with the same tokenizer), trained
    whole. "shared": the policy's, into whose gradient the value loss goes with this `coefficient` (TRL's earlier
    trainer: 0.1). "frozen": the policy's as it is, and only the head learns: nearly free.
    """
    where = f"variant '{run.recipe.variant.name}'"
    target = AdvantageOptions.of(run.recipe.variant.advantage).target
    if run.recipe.variant.value_loss is None or target is None:
        raise GrpoLabError(
            f"{where} asks for a critic's values and does not define how they are learned: give the Variant a "
            "value_loss, e.g. clipped_squared_error, and the advantage a target, @advantage(target=...)"
        )
    if model is not None and trunk != "own":
        raise GrpoLabError(
            f"critic.model = {model!r}, but critic.trunk = {trunk!r} is the policy's: remove one of them"
        )
    settings = OptimizerSettings(learning_rate, (0.9, 0.999), 1e-8, weight_decay, warmup_steps, schedule, max_grad_norm)
    return Critic(
        run,
        _own_trunk(run, model) if trunk == "own" else run.policy,
        settings,
        coefficient=coefficient if trunk == "shared" else 1.0,
        reaches_trunk=trunk != "frozen",
    )


def _own_trunk(run: RunState, model: str | None) -> Policy:
    """A transformer to be trained: the policy's a second time, without its output layer, or another one."""
    policy = run.policy
    if model is None:
        head = policy.model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
        tied = head is policy.model.get_input_embeddings().weight
        # what is in the memo is not copied: values do not need the output layer
        return Policy(copy.deepcopy(policy.model, {} if tied else {id(head): head}), policy.tokenizer, policy.kernel)
    settings = run.recipe.policy
    reads = PolicySettings(model, settings.dtype, settings.gradient_checkpointing, attention=settings.attention)
    own = load_policy(reads, policy.device, "critic.model")
    if own.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise GrpoLabError(
            f"critic.model = {model!r} has another tokenizer than policy.model = {settings.model!r}: a critic "
            "reads the policy's tokens"
        )
    return own
