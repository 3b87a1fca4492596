"""The methods: each one's card, row by row, and each one's loss on a small batch, token by token."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from core import VARIANTS, Batch, GrpoLabError, Variant
from core.loop.loss import compute_advantages, kl_in_reward
from core.loop.rewards import filter_groups, shape
from core.loop.update import UpdateMetrics, accumulate_gradients, compute_logps
from core.model.policy import Policy
from core.parts.registry import config

MakeBatch: TypeAlias = Callable[..., Batch]
Loss: TypeAlias = Callable[[Batch, Tensor], float]

ROWS = ("KL", "correction", "filter", "shaping", "truncated responses", "entropy bonus", "reward clip")
PLAIN = dict.fromkeys(ROWS, "none") | {"truncated responses": "keep"}
STD = {"baseline": "group mean", "std": "group, ddof 1, + 1e-06"}
CLIP = {"ratio": "token", "clip": "1 - 0.2 to 1 + 0.2"}
NO_CLIP = {"ratio": "none", "clip": "none"}
CARDS = {
    "grpo": STD | CLIP | {"aggregation": "mean over rows of their token mean"},
    "dr_grpo": {"baseline": "group mean", "std": "none"}
    | CLIP
    | {"aggregation": "mean over rows of their token sum / max_tokens"},
    "dapo": STD
    | CLIP
    | {
        "clip": "1 - 0.2 to 1 + 0.28",
        "aggregation": "mean over all tokens of the step",
        "filter": "nonuniform(), at most 10 rounds",
        "shaping": "soft_overlong(buffer=0.2, penalty=0.5)",
    },
    "rloo": {"baseline": "mean of the other samples", "std": "none"}
    | NO_CLIP
    | {"aggregation": "mean over rows of their token sum"},
    "remax": {"baseline": "reward of the greedy response", "std": "none"}
    | NO_CLIP
    | {"aggregation": "mean over all tokens of the step"},
    "reinforce": {"baseline": "none", "std": "none"} | NO_CLIP | {"aggregation": "mean over rows of their token sum"},
    "sft": {"baseline": "none", "std": "none"}
    | {"ratio": "none, and no weight: rewards do not count", "clip": "none"}
    | {"aggregation": "mean over all tokens of the step"},
}


@pytest.mark.parametrize("name", CARDS)
def test_the_card(name: str) -> None:
    assert VARIANTS[name]().card() == PLAIN | CARDS[name]
    assert VARIANTS[name]().name == name


@pytest.mark.parametrize(
    ("name", "kl", "place"), [("grpo", "k3", "loss"), ("rloo", "k1", "reward"), ("remax", "k1", "reward")]
)
def test_the_kl_of_the_papers_is_one_binding_away(name: str, kl: str, place: str) -> None:
    with config(bindings=[f"{name}.kl_coef = 0.04"]):
        variant = VARIANTS[name]()
        assert variant.card()["KL"] == f"{kl}() in the {place}, coefficient 0.04"
    assert variant.uses_kl
    assert not VARIANTS[name]().uses_kl


def test_grpo_and_dapo_differ_in_four_rows() -> None:
    one, other = (VARIANTS[name]().card() for name in ("grpo", "dapo"))
    assert {row for row in one if one[row] != other[row]} == {"clip", "aggregation", "filter", "shaping"}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_that_a_variant_names_can_be_bound(name: str) -> None:
    """An ablation changes one row: each part of a variant is a parameter of it."""
    part = VARIANTS[name]
    built = part()
    for row in ("advantage", "objective", "aggregator"):
        assert row in part.defaults
        with config(bindings=[f"{name}.{row} = @{getattr(built, row).name}"]):
            assert part().card() == built.card()


# losses by hand: rewards, log-probs, and Python


def numbers(batch: Batch, p: int) -> list[float]:
    return [float(r) for r in batch.rewards[p]]


def standardised(rewards: list[float]) -> list[float]:
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (std + 1e-6) for r in rewards]


def surrogate(logp: float, old: float, advantage: float, high: float = 0.2) -> float:
    q = math.exp(logp - old)
    return -min(q * advantage, min(max(q, 0.8), 1 + high) * advantage)


def tokens(batch: Batch, logps: Tensor, p: int, g: int) -> list[tuple[float, float, float]]:
    """(policy, old, reference) log-probs of the counted tokens of a response."""
    old, ref = batch.require("old_logps"), batch.require("ref_logps")
    return [
        (float(logps[p, g, t]), float(old[p, g, t]), float(ref[p, g, t]))
        for t in range(batch.mask.shape[-1])
        if batch.mask[p, g, t]
    ]


def every(batch: Batch) -> list[tuple[int, int]]:
    return [(p, g) for p in range(batch.groups) for g in range(batch.group_size)]


def grpo(batch: Batch, logps: Tensor, beta: float = 0.0) -> float:
    """Mean over responses of the mean over tokens of the clipped surrogate, plus beta times k3."""
    total = 0.0
    for p, g in every(batch):
        A, row = standardised(numbers(batch, p))[g], tokens(batch, logps, p, g)
        total += sum(
            surrogate(lp, old, A) + beta * (math.exp(ref - lp) - 1 - (ref - lp)) for lp, old, ref in row
        ) / len(row)
    return total / len(every(batch))


def dr_grpo(batch: Batch, logps: Tensor) -> float:
    """Centred rewards; the sum over tokens divided by the generation limit."""
    total = 0.0
    for p, g in every(batch):
        A = numbers(batch, p)[g] - sum(numbers(batch, p)) / batch.group_size
        total += sum(surrogate(lp, old, A) for lp, old, _ in tokens(batch, logps, p, g)) / batch.max_tokens
    return total / len(every(batch))


def dapo(batch: Batch, logps: Tensor) -> float:
    """One mean over all tokens, and a higher upper clip."""
    total, count = 0.0, 0
    for p, g in every(batch):
        A, row = standardised(numbers(batch, p))[g], tokens(batch, logps, p, g)
        total += sum(surrogate(lp, old, A, 0.28) for lp, old, _ in row)
        count += len(row)
    return total / count


def rloo(batch: Batch, logps: Tensor) -> float:
    """Minus the reward over the others' mean, times the log-probability of the response."""
    total = 0.0
    for p, g in every(batch):
        rewards = numbers(batch, p)
        others = (sum(rewards) - rewards[g]) / (len(rewards) - 1)
        total -= (rewards[g] - others) * sum(lp for lp, _, _ in tokens(batch, logps, p, g))
    return total / len(every(batch))


def remax(batch: Batch, logps: Tensor) -> float:
    """Minus the reward over the greedy one, times the log-probability, over all tokens."""
    total, count = 0.0, 0
    for p, g in every(batch):
        row = tokens(batch, logps, p, g)
        total -= (float(batch.rewards[p, g]) - float(batch.require("greedy_rewards")[p])) * sum(lp for lp, _, _ in row)
        count += len(row)
    return total / count


def reinforce(batch: Batch, logps: Tensor) -> float:
    """Minus the reward times the log-probability of the response."""
    return -sum(
        float(batch.rewards[p, g]) * sum(lp for lp, _, _ in tokens(batch, logps, p, g)) for p, g in every(batch)
    ) / len(every(batch))


def sft(batch: Batch, logps: Tensor) -> float:
    """Minus the log-probability of a token, in the mean over all of them; no reward in it."""
    every_token = [lp for p, g in every(batch) for lp, _, _ in tokens(batch, logps, p, g)]
    return -sum(every_token) / len(every_token)


LOSSES: dict[str, Loss] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "rloo": rloo,
    "remax": remax,
    "reinforce": reinforce,
    "sft": sft,
}


@pytest.fixture
def sampled(tiny: Policy, make_batch: MakeBatch) -> tuple[Batch, Tensor]:
    """Responses and the policy's log-probs of them; old and reference log-probs lie around these."""
    batch = make_batch(seed=3)
    logps = compute_logps(tiny, batch, temperature=1.0, micro_tokens=10**9)
    draw = torch.Generator().manual_seed(0)
    near = {n: logps + 0.4 * torch.randn(logps.shape, generator=draw) for n in ("old_logps", "ref_logps")}
    return batch.having(**near), logps


def loss_of(policy: Policy, variant: Variant, batch: Batch) -> float:
    """As the loop computes it, from rewards on."""
    advantages, _ = compute_advantages(variant, batch, None)
    loss = accumulate_gradients(
        policy,
        variant,
        batch,
        advantages,
        torch.Generator(),
        UpdateMetrics({}),
        temperature=1.0,
        micro_tokens=20,
        backward=lambda loss: None,
    )
    assert loss is not None
    return loss


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_token_by_token(name: str, tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    batch, logps = sampled
    assert loss_of(tiny, VARIANTS[name](), batch) == pytest.approx(LOSSES[name](batch, logps), rel=1e-4, abs=1e-6)


def test_the_losses_are_all_different(sampled: tuple[Batch, Tensor]) -> None:
    batch, logps = sampled
    values = sorted(loss(batch, logps) for loss in LOSSES.values())
    assert min(b - a for a, b in pairwise(values)) > 1e-3


def test_grpo_with_kl(tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    batch, logps = sampled
    with config(bindings=["grpo.kl_coef = 0.5"]):
        variant = VARIANTS["grpo"]().resolved()
    assert loss_of(tiny, variant, batch) == pytest.approx(grpo(batch, logps, 0.5), rel=1e-4)


def test_rloo_pays_kl_before_the_baseline(tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    batch, logps = sampled
    with config(bindings=["rloo.kl_coef = 0.3"]):
        variant = VARIANTS["rloo"]().resolved()
    divergence = torch.where(batch.mask, batch.require("old_logps") - batch.require("ref_logps"), 0.0).sum(-1)
    paid = kl_in_reward(variant, batch)
    torch.testing.assert_close(paid.rewards, batch.rewards - 0.3 * divergence)
    assert loss_of(tiny, variant, paid) == pytest.approx(rloo(batch.having(rewards=paid.rewards), logps), rel=1e-4)


def test_remax_with_kl_counts_what_is_still_to_come(tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    """At each token: the reward, minus the penalties from there on, minus the greedy reward."""
    batch, logps = sampled
    with config(bindings=["remax.kl_coef = 0.3"]):
        variant = VARIANTS["remax"]().resolved()
    total, count = 0.0, 0
    for p, g in every(batch):
        row = tokens(batch, logps, p, g)
        for t, (lp, _, _) in enumerate(row):
            to_go = float(batch.rewards[p, g]) - 0.3 * sum(old - ref for _, old, ref in row[t:])
            total -= (to_go - float(batch.require("greedy_rewards")[p])) * lp
        count += len(row)
    assert loss_of(tiny, variant, kl_in_reward(variant, batch)) == pytest.approx(total / count, rel=1e-4)


def test_dapo_trains_on_shaped_rewards_of_groups_that_teach_something(
    tiny: Policy, sampled: tuple[Batch, Tensor]
) -> None:
    batch, logps = sampled
    correct = torch.tensor([[True, False, True, False], [True] * 4, [False, False, False, True]])
    batch = batch.having(correct=correct, rewards=correct.float())
    variant = VARIANTS["dapo"]()
    shaped = shape(variant, batch)
    limit = batch.max_tokens
    for p, g in every(batch):
        over = (int(batch.lengths[p, g]) - 0.8 * limit) / (0.2 * limit)
        assert float(shaped.rewards[p, g]) == pytest.approx(bool(correct[p, g]) - 0.5 * min(max(over, 0), 1), abs=1e-6)
    kept = filter_groups(variant, shaped)
    assert kept.prompt_ids.tolist() == [0, 2]
    assert loss_of(tiny, variant, kept) == pytest.approx(dapo(kept, logps[[0, 2]]), rel=1e-4)


# how they are related


def advantages_of(name: str, batch: Batch) -> Tensor:
    return compute_advantages(VARIANTS[name](), batch, None)[0]


def test_rloo_is_dr_grpo_times_g_over_g_minus_1(make_batch: MakeBatch) -> None:
    for samples in (2, 4, 7):
        batch = make_batch(samples=samples)
        ratio = samples / (samples - 1)
        torch.testing.assert_close(advantages_of("rloo", batch), advantages_of("dr_grpo", batch) * ratio)


def test_grpo_is_dr_grpo_over_the_std(make_batch: MakeBatch) -> None:
    batch = make_batch()
    std = batch.rewards.std(1)[:, None, None] + 1e-6
    torch.testing.assert_close(advantages_of("grpo", batch), advantages_of("dr_grpo", batch) / std)
    assert torch.equal(advantages_of("grpo", batch), advantages_of("dapo", batch))


@pytest.mark.parametrize("other", ["reinforce", "dr_grpo", "rloo"])
def test_remax_becomes_the_others_with_their_baseline(other: str, make_batch: MakeBatch) -> None:
    """With 0 plain REINFORCE, with the group mean Dr. GRPO, with the others' mean (one sample at a time) RLOO."""
    batch = make_batch()
    if other == "rloo":
        for g in range(batch.group_size):
            rest = [i for i in range(batch.group_size) if i != g]
            advantages = advantages_of("remax", batch.having(greedy_rewards=batch.rewards[:, rest].mean(1)))
            torch.testing.assert_close(advantages[:, g], advantages_of("rloo", batch)[:, g])
    else:
        baseline = batch.rewards.mean(1) if other == "dr_grpo" else torch.zeros(batch.groups)
        advantages = advantages_of("remax", batch.having(greedy_rewards=baseline))
        torch.testing.assert_close(advantages, advantages_of(other, batch))


def test_swapping_two_parts_turns_grpo_into_dr_grpo(tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    batch, _ = sampled
    expected = loss_of(tiny, VARIANTS["dr_grpo"](), batch)
    with config(bindings=["grpo.advantage = @group_mean", "grpo.aggregator = @seq_mean_token_sum_norm"]):
        assert loss_of(tiny, VARIANTS["grpo"](), batch) == expected


def test_dapo_takes_its_own_clip_range(tiny: Policy, sampled: tuple[Batch, Tensor]) -> None:
    batch, logps = sampled
    with config(bindings=["dapo.eps_high = 0.2"]):
        narrow = VARIANTS["dapo"]().resolved()
    wide = loss_of(tiny, VARIANTS["dapo"](), batch)
    assert wide == pytest.approx(dapo(batch, logps), rel=1e-4)
    assert loss_of(tiny, narrow, batch) > wide


# the contract


BASELINE_FROM_ELSEWHERE = (
    "reinforce",
    "remax",
    "remax_verl",
    "remax_authors",
    "optimal_token",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "reinforce_pp_openrlhf",
    "reinforce_pp_baseline_openrlhf",
    "gdpo_verl",
    "ppo",
    "turn_ppo",
    "bilevel_ppo",
    "sft",
)
"""Variants in which a group without spread does teach something: its baseline, or the whitening's, is not its own."""


@pytest.mark.parametrize("name", [n for n in VARIANTS if n not in BASELINE_FROM_ELSEWHERE])
def test_a_group_without_spread_teaches_nothing_where_the_baseline_is_its_own(name: str) -> None:
    """0.7 is the trap: in float32 the mean of equal numbers is off by an ulp, and so is their std."""
    for size in (2, 5, 7, 32):
        rewards = torch.stack([torch.full((size,), 0.7), torch.arange(float(size))])
        lengths = torch.ones(2, size, dtype=torch.long)
        lengths[1, 0] = 3
        batch = Batch.of(rewards, lengths=lengths, greedy_rewards=[0.7, 0.7], reward_parts=rewards[..., None])
        if name == "grpo_process":
            first = torch.zeros(2, size, 3)
            first[..., 0] = rewards
            batch = batch.having(token_rewards=first, step_ends=torch.arange(3).expand(2, size, 3) == 0)
        advantages = advantages_of(name, batch)
        assert torch.equal(advantages[0, :, 0], torch.zeros(size))
        assert advantages[1, :, 0].ne(0).any()


@pytest.mark.parametrize("name", [n for n in BASELINE_FROM_ELSEWHERE if n != "optimal_token"])
def test_in_these_it_does(name: str) -> None:
    rewards = torch.tensor([[0.7, 0.7], [0.0, 1.0]])
    batch = Batch.of(
        rewards,
        lengths=[[1, 1], [1, 3]],
        greedy_rewards=[0.0, 0.0],
        reward_parts=rewards[..., None],
        values=torch.zeros(2, 2, 3),
    )
    assert advantages_of(name, batch)[0, :, 0].ne(0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_documents_itself_and_composes(name: str) -> None:
    part = VARIANTS[name]
    built: Any = part()
    assert isinstance(built, Variant)
    assert part.function.__doc__
    assert str(built).startswith(name)
    assert f"variants/{name}.py" in part.place or "variants/dialects/" in part.place
    with pytest.raises(GrpoLabError, match="no hyper-parameter"):
        part.using(no_such_parameter=1)
