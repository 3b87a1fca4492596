"""One step of a variant on the enumerable policy: from drawn responses to the derivatives of its loss.

The same phases as in training (shape, filter, fill, KL in the reward, advantages, loss), by the core's own functions,
with the policy's exact tables where training computes or samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core import Batch, Variant
from core.errors import GrpoLabError
from core.loop.loss import chosen_responses, kl_in_reward, learned_responses, step_loss, weigh
from core.loop.rewards import shape, shape_rewards
from core.parts.contracts import check_shape
from core.parts.options import AdvantageOptions, fillable_fields
from core.parts.registry import Part
from experiments.lens.policy import TabularPolicy

FILLS: Final[dict[str, Callable[[TabularPolicy], Tensor]]] = {
    "ref_logps": lambda policy: policy.reference_logps,
    "values": lambda policy: policy.values,
    "sum_squared_probs": lambda policy: policy.sum_squared_probs,
    "token_rewards": lambda policy: policy.progress,
    "step_ends": lambda policy: policy.responses.mask.expand(policy.prompts, -1, -1),
}
"""Batch fields that a part may ask for, as tables [N, K, T]."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Groups of responses: prompt [P] and response [P, G] by their index in the policy's tables."""

    prompts: Tensor
    responses: Tensor

    def select(self, keep: Tensor) -> "Draw":
        """The groups at indices `keep`, in that order."""
        return Draw(self.prompts[keep], self.responses[keep])

    @staticmethod
    def concat(parts: list["Draw"]) -> "Draw":
        """Groups of several draws one after the other."""
        return Draw(torch.cat([d.prompts for d in parts]), torch.cat([d.responses for d in parts]))


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of a step's loss by the log-probability and the entropy of each sampled token, [P, G, T] each."""

    draw: Draw
    by_logp: Tensor
    by_entropy: Tensor


def check_variant(variant: Variant, group_size: int) -> None:
    """Raise `GrpoLabError` where a variant cannot be measured with groups of this size, or on tables at all."""
    least = AdvantageOptions.of(variant.advantage).min_group
    if group_size < least:
        raise GrpoLabError(
            f"--group-size {group_size}, but advantage '{variant.advantage.name}' of '{variant.name}' is defined from "
            f"{least} samples per prompt up; raise --group-size"
        )
    missing = variant.needs.intersection(fillable_fields()) - FILLS.keys() - {"greedy_rewards"}
    if missing:
        raise GrpoLabError(
            f"'{variant.name}' needs {', '.join(sorted(missing))}, which the enumerable policy does not have; measure "
            "it on a model: --model"
        )


def make_batch(policy: TabularPolicy, draw: Draw, step: int) -> Batch:
    """The batch before shaping and filters, from the policy's tables."""
    responses, prompts = draw.responses, draw.prompts[:, None]
    rewards = policy.rewards[prompts, responses]
    batch = Batch(
        rewards=rewards,
        response_mask=policy.responses.mask[responses],
        mask=policy.responses.sampled[responses],
        prompt_ids=draw.prompts,
        max_tokens=policy.responses.max_tokens,
        step=step,
        reward_parts=rewards[..., None],
        reward_names=("verdict",),
        reward_weights=(1.0,),
        truncated=policy.responses.truncated[responses],
        behaviour_logps=policy.behaviour.logps[prompts, responses],
        behaviour_entropy=policy.behaviour.entropy[prompts, responses],
        old_logps=policy.logps[prompts, responses],
        token_version=torch.zeros_like(policy.responses.tokens[responses]),
        response_tokens=policy.responses.tokens[responses],
        correct=rewards > 0,
    )
    of_turns = _of_turns(policy, draw)
    return batch.having(**of_turns) if of_turns else batch


def _of_turns(policy: TabularPolicy, draw: Draw) -> dict[str, Tensor]:
    """Batch fields that episodes have beside those of responses; `correct` is a verdict on the outcome alone."""
    turns, paid = policy.responses.turns, policy.turn_rewards
    if turns is None or paid is None:
        return {}
    prompts, responses = draw.prompts[:, None], draw.responses
    outcomes = policy.rewards - paid.sum(-1)
    return {
        "correct": outcomes[prompts, responses] > 1e-9,  # more than rounding
        "sampled_mask": turns.sampled[responses],
        "turns": turns.numbers[responses],
        "turn_rewards": paid[prompts, responses],
        "anchors": turns.anchors[responses],
        "tool_calls": turns.calls[responses],
    }


def usable_groups(policy: TabularPolicy, variant: Variant, draw: Draw, step: int) -> tuple[Batch, Tensor]:
    """Shaped and filtered, and which of the drawn groups [P] were kept."""
    batch = shape(variant, make_batch(policy, draw, step))
    if variant.filter is None:
        return batch, torch.arange(batch.groups)
    keep = variant.filter(batch)
    check_shape(variant.filter, keep, (batch.groups,))
    kept = keep.bool().nonzero()[:, 0]
    return batch.select(kept), kept


def fill(policy: TabularPolicy, variant: Variant, draw: Draw, batch: Batch) -> Batch:
    """The fields that the variant's parts ask for, exactly."""
    needed = variant.needs
    filled = {
        name: table(policy)[draw.prompts[:, None], draw.responses] for name, table in FILLS.items() if name in needed
    }
    if "greedy_rewards" in needed:
        greedy, table = policy.greedy[draw.prompts], policy.responses
        filled["greedy_rewards"] = shape_rewards(
            variant,
            policy.rewards[draw.prompts, greedy],
            table.lengths[greedy],
            table.truncated[greedy],
            batch.max_tokens,
        )
    return batch.having(**filled) if filled else batch


def differentiate(
    policy: TabularPolicy, variant: Variant, draw: Draw, batch: Batch, state: Any, generator: torch.Generator
) -> tuple[Derivatives, Any]:
    """Derivatives of the step's loss on a shaped and filtered batch, and the estimator's new state."""
    batch = kl_in_reward(variant, fill(policy, variant, draw, batch))
    if variant.selection is not None:
        chosen = chosen_responses(variant.selection, batch)
        draw = Draw(draw.prompts, draw.responses.gather(1, chosen))
    batch, advantages, state = learned_responses(variant, batch, state)
    logps = batch.require("old_logps").clone().requires_grad_()
    entropy = policy.entropy[draw.prompts[:, None], draw.responses].requires_grad_()
    loss = step_loss(variant, batch, logps, advantages, generator, entropy=entropy, version=policy.age)
    by_logp, by_entropy = torch.autograd.grad(loss, (logps, entropy), allow_unused=True, materialize_grads=True)
    shape = batch.response_mask.shape
    return Derivatives(draw, by_logp.view(shape), by_entropy.view(shape)), state


def first_state(variant: Variant) -> Any:
    """The state that a running estimator starts in; None for any other."""
    return AdvantageOptions.of(variant.advantage).first_state()


def extra_tokens(policy: TabularPolicy, variant: Variant, draw: Draw) -> Tensor:
    """Tokens sampled for each group [P] besides its responses: greedy ones, where the variant needs them."""
    lengths = policy.responses.lengths[policy.greedy[draw.prompts]]
    return lengths if "greedy_rewards" in variant.needs else torch.zeros_like(lengths)


def gradients(policy: TabularPolicy, steps: Sequence[Derivatives | None]) -> Tensor:
    """Every step's direction of ascent in the logits, [steps, N * S * V]; 0 for a step without groups."""
    present = [(owner, step) for owner, step in enumerate(steps) if step is not None]
    if not present:
        return torch.zeros(len(steps), policy.logits.numel(), dtype=torch.float64)
    together = Derivatives(
        Draw.concat([step.draw for _, step in present]),
        torch.cat([step.by_logp for _, step in present]),
        torch.cat([step.by_entropy for _, step in present]),
    )
    owner = torch.tensor([owner for owner, step in present for _ in step.draw.prompts])
    return ascent(policy, together, owner, len(steps))


def ascent(policy: TabularPolicy, derivatives: Derivatives, owner: Tensor, owners: int) -> Tensor:
    """Directions of ascent in the logits, [owners, N * S * V]: groups of one `owner` [P] are added up."""
    draw, G = derivatives.draw, derivatives.draw.responses.shape[1]
    return -policy.gradients(
        draw.prompts.repeat_interleave(G),
        draw.responses.flatten(),
        derivatives.by_logp.flatten(0, 1),
        derivatives.by_entropy.flatten(0, 1),
        owner.repeat_interleave(G),
        owners,
    ).flatten(1)


def token_constant(aggregator: Part, max_tokens: int) -> float | None:
    """What the aggregator divides the mean over responses of their token sum by, where that is a constant; else None.

    w_it = 1 / (R * constant) for every token of every mask; measured on ragged masks of different sizes, as responses
    of one turn and as episodes of two.
    """
    per_mask = []
    for lengths in ([1, 2, max_tokens], [max_tokens, 1], [2, 2, 1, 1, max_tokens]):
        mask = torch.arange(max_tokens) < torch.tensor(lengths)[:, None]
        for turns in (mask.long(), mask * (1 + (torch.arange(max_tokens) > 0).long())):
            weights = weigh(aggregator, mask, max_tokens=max_tokens, group_size=1, turns=turns)
            per_mask.append((weights.double() * len(lengths))[mask])
    weights = torch.cat(per_mask)
    same = torch.allclose(weights, weights[0].expand_as(weights), rtol=1e-5) and weights[0] > 0
    return float(1 / weights[0]) if same else None
