"""The table of advantage estimators: what each reference has for each of ours, and where the two coincide."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from core import Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import FAINT, FAINT_SEVERAL, HOLES, PLAIN, SEVERAL
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Settings
from experiments.maintenance.conformance.rows import REWARD_KL, advantage

WITH_FAINT = (PLAIN, HOLES, FAINT)
CASTS = "It computes in float32."
WHITENS: Settings = {"correction": 0, "eps": 0.0, "floor": 1e-8, "tolerance": FLOAT32}


def advantages() -> list[Comparison]:
    """Advantage estimators."""
    return [
        *_group_means(),
        *_leave_one_out(),
        *_then_kl(),
        *_group_statistics(),
        *_whitened(),
        *_gae(),
        *_other_baselines(),
    ]


def _group_means() -> list[Comparison]:
    """Minus the mean of the group, and divided by a standard deviation."""
    return [
        advantage("no_baseline", "verl", "rloo, every response a group", _verl("rloo", group_size=1)),
        advantage("group_mean", "TRL", "scale_rewards='none'", _grpo(scale_rewards="none")),
        advantage(
            "group_mean", "verl", "grpo, norm_adv_by_std_in_grpo=False", _verl("grpo", norm_adv_by_std_in_grpo=False)
        ),
        advantage("group_mean", "OpenRLHF", "dr_grpo", _openrlhf("dr_grpo"), note="Its loss is not Dr. GRPO's."),
        advantage(
            "group_mean_std",
            "TRL",
            "scale_rewards='group'",
            _grpo(scale_rewards="group"),
            eps=1e-4,
            flavours=WITH_FAINT,
        ),
        advantage("group_mean_std", "verl", "grpo", _verl("grpo"), eps=1e-6, flavours=WITH_FAINT),
        advantage(
            "group_mean_std",
            "verl",
            "grpo_vectorized",
            _verl("grpo_vectorized"),
            eps=1e-6,
            tolerance=FLOAT32,
            flavours=WITH_FAINT,
            note=CASTS,
        ),
        advantage("group_mean_std", "OpenRLHF", "group_norm", _openrlhf("group_norm"), eps=1e-9, flavours=WITH_FAINT),
        advantage(
            "group_mean_batch_std", "TRL", "scale_rewards='batch'", _grpo(scale_rewards="batch"), flavours=WITH_FAINT
        ),
    ]


def _leave_one_out() -> list[Comparison]:
    """Minus the mean of the others of the group."""
    alone = "With a KL penalty in the reward the two differ: see leave_one_out_then_kl."
    return [
        advantage("leave_one_out", "TRL", "RLOOTrainer", _rloo(), flavours=[PLAIN]),
        advantage("leave_one_out", "TRL", "RLOOTrainer, beta", with_beta, kl=True, flavours=[PLAIN]),
        advantage("leave_one_out", "verl", "rloo", _verl("rloo")),
        advantage("leave_one_out", "verl", "rloo, KL in the reward", _verl("rloo"), kl=True, flavours=[PLAIN]),
        advantage("leave_one_out", "verl", "rloo_vectorized", _verl("rloo_vectorized")),
        advantage("leave_one_out", "OpenRLHF", "rloo, no KL", _openrlhf("rloo"), note=alone),
        advantage(
            "leave_one_out_batch_std",
            "TRL",
            "RLOOTrainer, normalize_advantages",
            _rloo(normalize_advantages=True),
            flavours=[PLAIN],
        ),
    ]


def _then_kl() -> list[Comparison]:
    """A baseline on the rewards alone, the KL penalty by token after it."""
    return [
        advantage(
            "leave_one_out_then_kl",
            "OpenRLHF",
            "rloo, KL in the reward",
            _without_kl("rloo", reward_clip=0.9),
            kl=True,
            reward_clip=0.9,
            flavours=[PLAIN],
            tolerance=FLOAT32,
            note="Its KL is in float32.",
        ),
        advantage(
            "group_mean_then_kl",
            "OpenRLHF",
            "dr_grpo, KL in the reward",
            _without_kl("dr_grpo", reward_clip=0.9),
            kl=True,
            reward_clip=0.9,
            flavours=[PLAIN],
            tolerance=FLOAT32,
            note="Its KL is in float32.",
        ),
        advantage(
            "group_mean_std_then_kl",
            "OpenRLHF",
            "group_norm, KL in the reward",
            _without_kl("group_norm", reward_clip=0.9),
            kl=True,
            reward_clip=0.9,
            flavours=[PLAIN],
            tolerance=FLOAT32,
            note="Its KL is in float32.",
        ),
        advantage(
            "whitened_group_mean_then_kl",
            "OpenRLHF",
            "reinforce_baseline, KL in the reward",
            _without_kl("reinforce_baseline", reward_clip=0.9),
            kl=True,
            reward_clip=0.9,
            flavours=[PLAIN],
            tolerance=FLOAT32,
            note="Its KL is in float32.",
        ),
    ]


def _group_statistics() -> list[Comparison]:
    """Other statistics of the group, and of several rewards."""
    return [
        advantage("length_weighted_mean", "verl", "opo", _verl("opo")),
        advantage("group_mean_nonzero_scaled", "verl", "gpg", _verl("gpg", f_norm=0.5), scale=0.5),
        advantage(
            "best_minus_second",
            "verl",
            "grpo_passk, norm_adv_by_std_in_grpo=False",
            _verl("grpo_passk", norm_adv_by_std_in_grpo=False),
        ),
        advantage("best_minus_second_std", "verl", "grpo_passk", _verl("grpo_passk"), flavours=WITH_FAINT),
        advantage(
            "per_reward_std",
            "TRL",
            "multi_objective_aggregation='normalize_then_sum'",
            _grpo(multi_objective_aggregation="normalize_then_sum"),
            flavours=[SEVERAL, FAINT_SEVERAL],
        ),
        advantage(
            "per_reward_std_whitened",
            "verl",
            "gdpo",
            _verl("gdpo"),
            flavours=[SEVERAL, FAINT_SEVERAL],
            tolerance=FLOAT32,
            note=CASTS,
        ),
    ]


def _whitened() -> list[Comparison]:
    """Whitened over the tokens of the batch."""
    return [
        advantage(
            "whitened_return",
            "verl",
            "reinforce_plus_plus",
            _verl("reinforce_plus_plus", gamma=0.9),
            gamma=0.9,
            flavours=WITH_FAINT,
        ),
        advantage(
            "whitened_return",
            "verl",
            "reinforce_plus_plus, KL in the reward",
            _verl("reinforce_plus_plus"),
            kl=True,
            flavours=[PLAIN],
        ),
        advantage(
            "whitened_return",
            "OpenRLHF",
            "reinforce",
            _openrlhf("reinforce", gamma=0.9),
            gamma=0.9,
            **WHITENS,
            flavours=[PLAIN, FAINT],
            note="Its statistics are in float32; holes cost it a discount.",
        ),
        advantage(
            "whitened_return",
            "OpenRLHF",
            "reinforce, KL in the reward",
            _without_kl("reinforce"),
            kl=True,
            **WHITENS,
            flavours=[PLAIN],
            note="Its KL and its statistics are in float32.",
        ),
        advantage(
            "whitened_group_mean",
            "verl",
            "reinforce_plus_plus_baseline",
            _verl("reinforce_plus_plus_baseline"),
            flavours=WITH_FAINT,
        ),
        advantage(
            "whitened_group_mean",
            "OpenRLHF",
            "reinforce_baseline",
            _openrlhf("reinforce_baseline"),
            **WHITENS,
            flavours=WITH_FAINT,
            note="Its statistics are in float32.",
        ),
    ]


def _gae() -> list[Comparison]:
    """Generalised advantage estimates."""
    return [
        advantage(
            "gae", "verl", "gae, before whitening", lambda b: verl.unwhitened_gae(b, 0.9, 0.8), gamma=0.9, lam=0.8
        ),
        advantage(
            "gae",
            "OpenRLHF",
            "gae, before whitening",
            lambda b: openrlhf.unwhitened_gae(b, 0.9, 0.8),
            gamma=0.9,
            lam=0.8,
            flavours=[PLAIN],
            note="At a hole it takes the next value to be 0; ours looks past the hole.",
        ),
        advantage(
            "whitened_gae", "verl", "gae", _verl("gae", gamma=0.9, lam=0.8), gamma=0.9, lam=0.8, flavours=WITH_FAINT
        ),
        advantage(
            "whitened_gae",
            "OpenRLHF",
            "gae",
            _openrlhf("gae", gamma=0.9, lam=0.8),
            gamma=0.9,
            lam=0.8,
            **WHITENS,
            flavours=[PLAIN, FAINT],
            note="Its statistics are in float32.",
        ),
    ]


def _other_baselines() -> list[Comparison]:
    """A greedy response and a baseline for each token."""
    tail = "It counts columns of the padded matrix: with holes in the mask, positions of two responses do not match."
    return [
        advantage("greedy_baseline", "verl", "remax", _verl("remax")),
        advantage("greedy_baseline", "verl", "remax, KL in the reward", _verl("remax"), kl=True, flavours=[PLAIN]),
        advantage(
            "optimal_token_baseline",
            "verl",
            "optimal_token_baseline",
            _verl("optimal_token_baseline"),
            flavours=[PLAIN],
            note=tail,
        ),
    ]


def _grpo(**settings: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: trl.rollout(trl.grpo(batch, **settings), batch)["advantages"]


def _rloo(**settings: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: trl.rollout(trl.rloo(batch, **settings), batch)["advantages"]


def _verl(estimator: str, **options: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: verl.advantages(estimator, batch, **options)


def _openrlhf(estimator: str, **options: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: openrlhf.advantages(estimator, batch, **options)


def with_beta(batch: Batch) -> Tensor:
    """RLOO's own KL penalty, on rewards that have none yet."""
    return _rloo(beta=REWARD_KL)(_bare(batch))


def _without_kl(estimator: str, **options: Any) -> Callable[[Batch], Tensor]:
    """OpenRLHF's own KL penalty, on rewards that have none yet."""
    return lambda batch: openrlhf.advantages(estimator, _bare(batch), kl_coef=REWARD_KL, **options)


def _bare(batch: Batch) -> Batch:
    """The batch before the KL penalty was taken off its rewards."""
    return batch.having(rewards=batch.rewards - batch.require("kl_rewards").sum(-1), kl_rewards=None)
