"""The lens on turns: variants on episodes that can be enumerated, and what they make of going on. All of it is exact.

    push = d J / d delta,   where delta is added to every logit of calling the tool, at each turn that can be followed

of a prompt, and of an estimator the same of its expected gradient, over its scale: what it does to the decision to go
on. For episodes of two turns the true one is c (1 - c) times what a call is worth, with c the probability of calling.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from core import Variant
from core.errors import GrpoLabError
from experiments.lens.enumerate import expected_gradient
from experiments.lens.off_policy import exact_numbers, one_thread
from experiments.lens.policy import TabularPolicy
from experiments.lens.search import CALL, TURN_REWARD, make_search
from experiments.lens.step import check_variant, token_constant

GROUP_SIZES: Final = {2: 4, 3: 3}
"""Of episodes of as many turns, so that a variant takes seconds."""
TURN_REWARDS: Final = {2: (-0.4, TURN_REWARD, 0.0, 0.2, 0.4), 3: (TURN_REWARD, 0.0, 0.2)}
"""What every further turn pays, where the push is followed; all other numbers are of `TURN_REWARD`."""
MISSING: Final = ("greedy_rewards", "token_rewards", "step_ends")
"""Batch fields that the enumerable episodes do not have."""
VALUES_0: Final = " (values 0)"
"""After the name of a variant whose critic has learnt nothing."""


@dataclass(frozen=True)
class OnTurns:
    """Every variant's measures, and its push by what a further turn pays; a variant with a critic is there twice."""

    turns: int
    policies: Mapping[float, TabularPolicy]
    """By what a further turn pays."""
    variants: Mapping[str, Variant]
    """By name."""
    numbers: Mapping[str, Mapping[str, float]]
    """By name, then by the names of `measures`."""
    pushes: Mapping[str, Mapping[float, Tensor]]
    """By name and what a further turn pays: [N], one for each prompt, in units of the scale in `numbers`."""
    group_size: int

    @property
    def policy(self) -> TabularPolicy:
        """The one that `numbers` are of."""
        return self.policies[TURN_REWARD]

    @property
    def true_pushes(self) -> dict[float, Tensor]:
        """The push of the true gradient, by what a further turn pays: [N]."""
        return {paid: push(policy, policy.true_gradient) for paid, policy in self.policies.items()}


def check_on_turns(variant: Variant, group_size: int) -> None:
    """Raise `GrpoLabError` where a variant cannot be measured on enumerable episodes in groups of this size."""
    check_variant(variant, group_size)
    missing = variant.needs.intersection(MISSING)
    if missing:
        raise GrpoLabError(
            f"'{variant.name}' needs {', '.join(sorted(missing))}, which the enumerable episodes do not have: leave "
            "it out"
        )


def measure_on_turns(
    variants: Sequence[Variant],
    *,
    turns: int,
    group_size: int | None = None,
    advance: Callable[[str, int, int], None] = lambda *_: None,
) -> OnTurns:
    """Measure variants on episodes of up to `turns` turns, in batches of one group.

    `advance` is called with the variant's name, and how many of all expectations are done.
    """
    group_size = GROUP_SIZES[turns] if group_size is None else group_size
    for variant in variants:
        check_on_turns(variant, group_size)
    policies = {paid: make_search(turns, paid) for paid in TURN_REWARDS[turns]}
    cases = {
        variant.name + ("" if critic else VALUES_0): (variant, critic)
        for variant in variants
        for critic in ((1.0, 0.0) if "values" in variant.needs else (1.0,))
    }
    numbers: dict[str, Mapping[str, float]] = {}
    pushes: dict[str, Mapping[float, Tensor]] = {}
    with one_thread():
        for place, (name, (variant, critic)) in enumerate(cases.items()):
            by_reward, scale = {}, math.nan
            for at, (paid, policy) in enumerate(policies.items()):
                advance(name, place * len(policies) + at, len(cases) * len(policies))
                known = replace(policy, critic=critic)
                gradient, moments = expected_gradient(known, variant, groups=1, group_size=group_size)
                by_reward[paid] = push(policy, gradient)
                if paid == TURN_REWARD:
                    constant = token_constant(variant.aggregator, policy.responses.max_tokens)
                    numbers[name] = exact_numbers(moments, constant)
                    scale = moments.along if math.isfinite(numbers[name]["cosine"]) else math.nan
            pushes[name] = {paid: value / scale for paid, value in by_reward.items()}
    measured = {name: variant for name, (variant, _) in cases.items()}
    return OnTurns(turns, policies, measured, numbers, pushes, group_size)


def push(policy: TabularPolicy, gradient: Tensor) -> Tensor:
    """[N]: how a gradient [N, S, V] of the mean over prompts moves each prompt's logits of calling, all together."""
    moved: Tensor = gradient[:, decisions(policy), CALL].sum(-1) * policy.prompts
    return moved


def decisions(policy: TabularPolicy) -> Tensor:
    """The states, out of S, in which a turn begins that another may follow."""
    table, turns = policy.responses, policy.responses.turns
    assert turns is not None
    before = torch.nn.functional.pad(turns.numbers, (1, 0))[:, :-1]
    begins = turns.sampled & (turns.numbers != before) & (turns.numbers < turns.numbers.max())
    states: Tensor = torch.unique(table.states[begins])
    return states


def worth(policy: TabularPolicy) -> list[float]:
    """What a call in the first turn is worth, for each prompt: the expected return with it minus that without."""
    calls = policy.log_probs[:, 0, CALL].exp()
    worth: list[float] = (policy.true_gradient[:, 0, CALL] * policy.prompts / (calls * (1 - calls))).tolist()
    return worth
