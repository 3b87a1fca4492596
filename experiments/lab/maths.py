"""The maths of variants on one's own tensors: no model, no run."""

from typing import Any

import torch
from torch import Tensor

from core import VARIANTS, Batch, Part, Variant
from core.errors import GrpoLabError, near
from core.loop.loss import compute_advantages, kl_in_reward, step_loss
from core.parts.arguments import checked
from core.parts.options import AdvantageOptions
from core.parts.other_libraries import elsewhere
from core.parts.registry import as_part
from experiments.lens.named import advantage_alone, named_variant
from experiments.setup import import_parts


@checked()
def variant(name: str, **settings: Any) -> Variant:
    """The registered variant of that name, with these hyper-parameters: `variant("dapo", eps_high=0.3)`.

    Raises GrpoLabError for an unknown name or setting, and for a value out of its limits.
    """
    import_parts()
    if name not in VARIANTS:
        raise GrpoLabError(f"no variant '{name}': {near(name, VARIANTS)}")
    part = VARIANTS[name]
    for setting in settings:
        if setting not in part.defaults:
            hint = elsewhere(f"{name}.{setting}", part.defaults) or near(setting, part.defaults)
            raise GrpoLabError(f"variant '{name}' has no setting '{setting}': {hint}")
    made: Variant = part(**settings)
    return made


@checked()
def advantages(method: "str | Variant | Part", batch: Batch) -> Tensor:
    """Advantages [P, G, T] of a variant, or of an advantage estimator, on a batch; detached.

    `batch` is made by `Batch.of(rewards, lengths=...)` and has the fields that the estimator asks for. A variant's KL
    penalty in the reward is taken off first. An estimator with memory begins afresh. The shaping and filtering of
    rewards are no part of it.

    Raises GrpoLabError for an unknown name, for a field that is missing, for groups that are smaller than the estimator
    is defined for, and for what is not [P, G] or [P, G, T].
    """
    made = variant_of(method)
    _check_batch(made, batch)
    state = AdvantageOptions.of(made.advantage).state
    result, _ = compute_advantages(made, kl_in_reward(made, batch), state() if state else None)
    return result


@checked()
def loss(method: "str | Variant", batch: Batch, logps: Tensor, advantages_: Tensor | None = None) -> Tensor:
    """The loss of one optimizer step on the whole batch: a scalar, differentiable in `logps` [P, G, T].

        sum over tokens of weight * (objective + kl_coef * KL - entropy_coef * entropy), 0 outside the mask

    `advantages_` [P, G, T] are computed where they are not given. Where the batch has no `old_logps`, the old policy is
    the present one.

    Raises GrpoLabError for an unknown name, for a field that is missing and for shapes that disagree.
    """
    made = variant_of(method)
    _check_batch(made, batch, estimated=advantages_ is None)
    for what, tensor in (("logps", logps), ("advantages_", advantages_)):
        if not isinstance(tensor, Tensor) and (tensor is not None or what == "logps"):
            raise GrpoLabError(f"{what} must be a tensor, not {type(tensor).__name__}: torch.as_tensor(...) makes one")
        if tensor is not None and tensor.shape != batch.response_mask.shape:
            raise GrpoLabError(
                f"{what} have shape {list(tensor.shape)}, but the batch has {list(batch.response_mask.shape)}"
            )
    for name in sorted(made.needs - {"logps", "old_logps", "advantages", "mask", "prepared"}):
        if batch.get(name) is None:
            raise GrpoLabError(
                f"variant '{made.name}' needs {name}, which the batch has not: Batch.of(..., {name}=...)"
            )
    given = advantages(made, batch) if advantages_ is None else advantages_
    return step_loss(made, batch, logps, given.to(torch.result_type(logps, given)))


def _check_batch(made: Variant, batch: Batch, *, estimated: bool = True) -> None:
    """Refuse what is no batch, and groups that are too small for advantages that are to be estimated."""
    if not isinstance(batch, Batch):
        raise GrpoLabError(f"a batch is what Batch.of(rewards) makes, not {type(batch).__name__}")
    least = AdvantageOptions.of(made.advantage).min_group
    if estimated and batch.group_size < least:
        raise GrpoLabError(
            f"the batch has {batch.group_size} response to a prompt, but advantage '{made.advantage.name}' is defined "
            f"from {least} up: give rewards as [P, G], one row for each prompt with all of its responses"
        )


def variant_of(method: "str | Variant | Part") -> Variant:
    """A variant as it is or by its name; an advantage alone goes with the plain policy gradient and the token sum."""
    if isinstance(method, Variant):
        return method
    import_parts()
    if isinstance(method, str):
        return named_variant(method)
    if isinstance(method, Part) and method.kind == "variant":
        made: Variant = method()
        return made
    return advantage_alone(as_part(method, "advantage", "the method"))
