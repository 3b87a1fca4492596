"""Properties that a part may have or not, on parts of which they are known."""

import math
import re
from itertools import count

import pytest
import torch
from torch import Tensor

from core import (
    ADVANTAGES,
    AGGREGATORS,
    CORRECTIONS,
    FILTERS,
    KLS,
    OBJECTIVES,
    SHAPINGS,
    VARIANTS,
    Batch,
    Part,
)
from experiments.check.suite import examine
from tests.experiments.check.broken import (
    composed,
    divides_by_nothing,
    doubled,
    mean_of_all,
    no_epsilon,
    outcome,
    part_of,
    summed,
    with_a_penalty,
)


def quiet_mean(batch: Batch) -> Tensor:
    """The mean over the group, without the trap."""
    return (
        batch.rewards.double()
        .sub(batch.rewards.double().mean(1, keepdim=True))
        .masked_fill(batch.no_spread[:, None], 0.0)
    )


def flat(batch: Batch) -> Tensor:
    """Declares the batch and reads a group."""
    return quiet_mean(batch)


def unguarded(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> Tensor:
    """The gradient of the branch not taken is 0 times infinity."""
    ratio = torch.exp(logps - old_logps)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


SCALING, SHIFT = "scaling the rewards", "adding a constant to the rewards changes nothing"
SIGN, ZERO = "flipping the sign of the rewards flips the advantages", "sums to zero over a group"


@pytest.mark.parametrize(
    ("part", "name", "state", "reason"),
    [
        (ADVANTAGES["group_mean"], SCALING, "holds", "degree 1"),
        (ADVANTAGES["group_mean_std"], SCALING, "holds", "changes nothing"),
        (part_of("advantage", lambda batch: batch.rewards.square()), SCALING, "does not hold", "neither"),
        (ADVANTAGES["group_mean"], SHIFT, "holds", ""),
        (ADVANTAGES["no_baseline"], SHIFT, "does not hold", "rewards \\+ 2"),
        (ADVANTAGES["greedy_baseline"], SHIFT, "holds", ""),
        (ADVANTAGES["leave_one_out"], SIGN, "holds", ""),
        (part_of("advantage", lambda batch: batch.rewards.relu()), SIGN, "does not hold", ""),
        (ADVANTAGES["leave_one_out"], ZERO, "holds", ""),
        (ADVANTAGES["no_baseline"], ZERO, "does not hold", "the sum is"),
        (ADVANTAGES["group_mean"], "sums to zero over tokens", "does not hold", "48 tokens"),
        (ADVANTAGES["group_mean"], "no spread, no advantage", "holds", ""),
        (ADVANTAGES["no_baseline"], "no spread, no advantage", "does not hold", "an advantage of 8"),
        (no_epsilon, "no spread, no advantage", "does not hold", "an advantage of inf"),
        (ADVANTAGES["no_baseline"], "no spread, not nearly 0", "does not apply", "anyway"),
        (part_of("advantage", flat, scope="batch"), "reads the whole batch, as declared", "does not hold", "group"),
        (part_of("advantage", mean_of_all.function, scope="batch"), "reads the whole batch, as declared", "holds", ""),
        (part_of("advantage", mean_of_all.function, scope="batch"), "groups apart, as declared", "does not apply", ""),
        (OBJECTIVES["clip"], "on-policy its gradient is REINFORCE's", "holds", ""),
        (with_a_penalty, "has a loss without advantage, as declared", "does not apply", "declared"),
        (part_of("objective", summed.function), "on-policy its gradient is REINFORCE's", "does not hold", ""),
        (
            part_of("objective", OBJECTIVES["policy_gradient"].function),
            "has a loss without advantage, as declared",
            "does not hold",
            "could be declared",
        ),
        (part_of("objective", with_a_penalty.function), "has a loss without advantage, as declared", "holds", ""),
        (OBJECTIVES["policy_gradient"], "finite however far the policy has moved", "holds", ""),
        (OBJECTIVES["clip"], "finite however far the policy has moved", "holds", ""),
        (
            part_of("objective", unguarded),
            "finite however far the policy has moved",
            "does not hold",
            "log-ratio of \\+100",
        ),
        (AGGREGATORS["token_mean"], "every token counts the same", "holds", ""),
        (AGGREGATORS["token_mean"], "every row counts the same", "does not hold", "4 3 tokens"),
        (AGGREGATORS["token_mean"], "a row without a counted token still counts as a row", "does not hold", ""),
        (AGGREGATORS["seq_mean_token_mean"], "every row counts the same", "holds", ""),
        (AGGREGATORS["seq_mean_token_mean"], "weights sum to 1", "holds", ""),
        (AGGREGATORS["seq_mean_token_mean"], "a row without a counted token still counts as a row", "holds", ""),
        (AGGREGATORS["seq_mean_token_sum_norm"], "a row's weights depend on no other row's length", "holds", ""),
        (AGGREGATORS["seq_mean_token_sum_norm"], "weights sum to 1", "does not hold", "to 0.37"),
        (
            part_of("aggregator", divides_by_nothing.function, split_invariant=False),
            "any split into micro-batches gives the same loss",
            "does not hold",
            "as declared",
        ),
        (KLS["k1"], "expected gradient", "holds", "no use"),
        (KLS["k2"], "expected gradient", "holds", r"KL\(pi \|\| ref\)"),
        (KLS["k3"], "expected gradient", "holds", r"KL\(ref \|\| pi\)"),
        (KLS["k1"], "never negative", "does not hold", "for logps"),
        (KLS["k3"], "expected value is KL(pi || ref)", "holds", ""),
        (KLS["k2"], "expected value is KL(pi || ref)", "does not hold", ""),
        (
            part_of("kl", lambda logps, ref_logps: (logps - ref_logps).detach()),
            "as a loss it has a gradient",
            "does not hold",
            "kl_place='reward'",
        ),
        (CORRECTIONS["token_truncated"], "bounded above", "holds", "2 at most"),
        (part_of("correction", doubled.function), "bounded above", "does not hold", "log-ratio of 80"),
        (FILTERS["nonuniform"], "a group without spread", "holds", "all right: dropped"),
        (FILTERS["nonuniform"], "keeps a group that is half right", "holds", ""),
        (
            part_of("filter", lambda batch: batch.rewards.mean(1) > batch.rewards.mean()),
            "a verdict depends on its own group alone",
            "does not hold",
            "beside other groups",
        ),
        (SHAPINGS["soft_overlong"], "never rises with length", "holds", ""),
        (SHAPINGS["soft_overlong"], "leaves short responses alone", "holds", ""),
        (SHAPINGS["soft_overlong"], "change at most", "holds", "-0.5 at 20 of 20 tokens"),
        (
            part_of("shaping", lambda rewards, lengths, truncated: rewards + lengths),
            "never rises with length",
            "does not hold",
            "becomes 2 at 1 tokens, 3 at 2",
        ),
        (
            part_of("shaping", lambda rewards, lengths, truncated: rewards - lengths.float().mean()),
            "each response by itself",
            "does not hold",
            "",
        ),
        (VARIANTS["grpo"], "everything it needs is provided", "holds", ""),
        (VARIANTS["remax"], "everything it needs is provided", "holds", "greedy_rewards: one greedy response"),
        (
            part_of("variant", lambda: composed(advantage=part_of("advantage", quiet_mean, needs=("step_ends",)))),
            "everything it needs is provided",
            "does not hold",
            "nothing fills step_ends",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Part) else None,
)
def test_a_property_is_reported(part: Part, name: str, state: str, reason: str) -> None:
    result = outcome(part, name)
    assert result.state == state, result.reason
    assert re.search(reason, result.reason), result.reason


def test_rewards_are_reported_on() -> None:
    names = count()
    steady = part_of("reward", lambda problem, response: response == problem.answer)
    moody = part_of("reward", lambda problem, response: float(next(names)))
    broken = part_of("reward", lambda problem, response: math.nan)
    assert outcome(steady, "scores an empty response").reason == "0"
    assert outcome(steady, "same response, same score").state == "holds"
    assert outcome(moody, "same response, same score").state == "does not hold"
    assert outcome(broken, "scores an empty response").reason == "nan for ''"
    assert [each.name for each, _ in examine(broken).failures] == ["returns a number, a bool or a Score"]
    together = part_of(
        "reward", lambda problems, responses: [[float(len(t)) for t in g] for g in responses], together=True
    )
    assert outcome(together, "scores an empty response").reason == "0"
    assert outcome(together, "same response, same score").state == "holds"
