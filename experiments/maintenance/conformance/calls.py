"""The losses of the references in the forms that rows of the table call."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from verl.trainer.config import RolloutCorrectionConfig

from core import Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import best_and_worst
from experiments.maintenance.conformance.rows import PENALTY


def trl_loss(loss_type: str = "dapo", **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of TRL's GRPO trainer."""

    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = trl.grpo(batch, loss_type=loss_type, **settings)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages}, logps)

    return call


def by_response(make: Callable[[Batch], Any]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of a trainer that takes one advantage a response."""

    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = make(batch)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages[:, 0]}, logps)

    return call


def verl_loss(mode: str, aggregation: str = "token-mean", **config: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """A loss of verl, by its name in verl's registry."""

    return lambda batch, logps, advantages: verl.loss(mode, batch, logps, advantages, aggregation=aggregation, **config)


def openrlhf_loss(**of_loss: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of OpenRLHF's actor."""

    return lambda batch, logps, advantages: openrlhf.loss(batch, logps, advantages, **of_loss)


def by_side(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """A loss that takes the sign of each response's advantage."""
    return lambda batch, logps, advantages: call(batch, logps, advantages[:, 0].sign(), *args, **settings)


def imitates(call: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """Whatever the advantages."""
    return lambda batch, logps, _: call(batch, logps)


def preferring(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor], Tensor]:
    """A loss on given preferences, here of the best of each group over the worst."""
    return lambda batch, logps: call(batch, logps, best_and_worst(batch), *args, **settings)


def verl_step(
    estimator: str,
    mode: str,
    aggregation: str = "token-mean",
    *,
    reward_kl: float = 0.0,
    punished: bool = False,
    corrected: RolloutCorrectionConfig | None = None,
    counts_rejected: bool = False,
    of_estimator: dict[str, Any] | None = None,
    **of_loss: Any,
) -> Callable[[Batch, Tensor], Tensor]:
    """An estimator of verl and a loss of verl, end to end, with its KL or its length punishment in the reward.

    `corrected`: its rollout correction, by the trainer before the update, or with `bypass_mode` in the loss.
    `counts_rejected`: a token mean divides by the tokens that there were before.
    """

    def call(batch: Batch, logps: Tensor) -> Tensor:
        if punished:
            batch = batch.having(rewards=verl.overlong(batch, batch.max_tokens, batch.max_tokens // 2, PENALTY))
        if reward_kl:
            batch = verl.with_kl_in_reward(batch, reward_kl, "k1")
        settings, weights = {"mode": mode, **of_loss}, None
        tokens = int(batch.mask.sum()) if counts_rejected else None
        if corrected is not None and corrected.bypass_mode:
            batch = batch.having(old_logps=batch.require("behaviour_logps"))
            settings |= {"mode": "bypass_mode", "policy_loss": {"rollout_correction": corrected}}
        elif corrected is not None:
            batch, weights = verl.corrected(batch, corrected)
        advantages = verl.advantages(estimator, batch, **(of_estimator or {}))
        return verl.loss(
            batch=batch,
            logps=logps,
            advantages=advantages,
            aggregation=aggregation,
            weights=weights,
            tokens=tokens,
            **settings,
        )

    return call
