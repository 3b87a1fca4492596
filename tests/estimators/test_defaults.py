"""Default values of every hyper-parameter, checked one by one against their papers and libraries; and precision."""

from typing import Any

import pytest
import torch
from torch import Tensor

from core import (
    ADVANTAGES,
    AGGREGATORS,
    CORRECTIONS,
    CREDITS,
    FILTERS,
    KLS,
    OBJECTIVES,
    SELECTIONS,
    SHAPINGS,
    VALUE_LOSSES,
    Batch,
    Part,
    TokenLoss,
)
from core.parts.options import AdvantageOptions, ObjectiveOptions
from estimators.advantages.returns import discounted_return, earned_rewards, outcome, reward_to_go

DEFAULTS: dict[str, dict[str, Any]] = {
    "group_mean_std": {"eps": 1e-06, "correction": 1},
    "group_mean_batch_std": {"eps": 0.0001, "correction": 1},
    "leave_one_out_batch_std": {"eps": 0.0001, "correction": 1},
    "group_mean_spread_scaled": {"scale": 1.0},
    "group_mean_nonzero_scaled": {"scale": 1.0},
    "group_mean_relative": {"eps": 1e-06},
    "best_minus_second_std": {"eps": 1e-06, "correction": 1},
    "whitened_return": {"gamma": 1.0, "correction": 1, "eps": 1e-08, "floor": 0.0},
    "whitened_group_mean": {"correction": 1, "eps": 1e-08, "floor": 0.0},
    "gae": {"gamma": 1.0, "lam": 1.0},
    "whitened_gae": {"gamma": 1.0, "lam": 1.0, "correction": 1, "eps": 1e-08, "floor": 0.0},
    "shrunk_mean": {"strength": 1.0},
    "discounted_greedy_baseline": {"gamma": 0.99, "clip": 5.0},
    "running_baseline": {"decay": 0.9},
    "per_reward_std": {"eps": 0.0001, "correction": 1},
    "per_reward_std_whitened": {"eps": 1e-06, "correction": 1, "whiten_eps": 1e-08},
    "process_mean_std": {"eps": 1e-06, "correction": 1},
    "leave_one_out_then_kl": {"reward_clip": 10.0},
    "group_mean_then_kl": {"reward_clip": 10.0},
    "group_mean_std_then_kl": {"eps": 1e-09, "correction": 1, "reward_clip": 10.0},
    "whitened_group_mean_then_kl": {"correction": 0, "eps": 0.0, "floor": 1e-08, "reward_clip": 10.0},
    "optimal_token_baseline": {"eps": 1e-08},
    "outcome_mean_std": {"eps": 1e-06, "correction": 1},
    "mt_grpo_aae": {"coef": 1.0, "eps": 0.0001, "correction": 1},
    "mt_grpo_cae": {"gamma": 1.0, "eps": 0.0001, "correction": 1},
    "per_turn_mean_std": {"eps": 0.0001, "correction": 1},
    "per_turn_mean_std_padded": {"eps": 0.0001, "correction": 1},
    "last_turn_mean_std": {"eps": 1e-06, "correction": 1, "over_turns": False},
    "group_in_group": {
        "omega": 1.0,
        "gamma": 0.95,
        "norm": "mean_std",
        "eps": 1e-06,
        "correction": 1,
        "statistics": "episode",
    },
    "group_in_batch": {
        "omega": 1.0,
        "gamma": 1.0,
        "norm": "mean",
        "eps": 1e-06,
        "correction": 1,
        "statistics": "episode",
    },
    "turn_gae": {"gamma": 1.0, "lam": 0.95},
    "bilevel_gae": {"gamma": 1.0, "gamma_high": 0.95, "lam": 1.0},
    "whitened_bilevel_gae": {"gamma": 1.0, "gamma_high": 0.95, "lam": 1.0, "correction": 1, "eps": 1e-08, "floor": 0.0},
    "clip": {"eps_low": 0.2, "eps_high": 0.2},
    "dual_clip": {"eps_low": 0.2, "eps_high": 0.2, "ratio_cap": 3.0},
    "capped_clip": {"eps_low": 0.2, "eps_high": 0.2, "ratio_cap": 4.0},
    "off_policy_masked_clip": {"eps_low": 0.2, "eps_high": 0.2, "threshold": 0.5},
    "cispo_clip": {"eps_low": 1.0, "eps_high": 4.0},
    "sapo_gate": {"tau_positive": 1.0, "tau_negative": 1.05},
    "dro_quadratic": {"beta": 1.0},
    "cov_clip": {"eps_low": 0.2, "eps_high": 0.2, "share": 0.0002, "cov_low": 1.0, "cov_high": 5.0},
    "cov_kl": {"share": 0.0002, "kl_coef": 1.0},
    "dppo_tv_mask": {"threshold_low": 0.2, "threshold_high": 0.2, "ratio_cap": 20.0},
    "dppo_kl_mask": {"threshold_low": 0.2, "threshold_high": 0.2, "ratio_cap": 20.0, "eps": 1e-08},
    "gspo_clip": {"eps_low": 0.0003, "eps_high": 0.0004},
    "gspo_token_clip": {"eps_low": 0.0003, "eps_high": 0.0004},
    "sequence_clip": {"eps_low": 0.2, "eps_high": 0.2},
    "geo_mean_clip": {"eps_low": 0.4, "eps_high": 0.4},
    "vespo_weight": {
        "k_positive": 2.0,
        "lambda_positive": 3.0,
        "k_negative": 3.0,
        "lambda_negative": 2.0,
        "max_token_log_ratio": 20.0,
        "min_weight": 1e-08,
        "max_log_weight": 20.0,
    },
    "topr": {"level": "sequence", "floor": 0.0, "cap": 1.0},
    "m2po": {"threshold": 0.04},
    "dpo_sigmoid": {"beta": 0.1, "label_smoothing": 0.0},
    "ipo_square": {"beta": 0.1, "length_normalised": False},
    "kto_value": {"beta": 0.1},
    "seq_mean_token_mean": {"count_empty": True},
    "seq_mean_token_sum": {"count_empty": True},
    "seq_mean_token_sum_norm": {"count_empty": True},
    "segment_mean": {"count_empty": True},
    "seq_mean_turn_mean": {"count_empty": True},
    "turn_mean_token_mean": {"count_empty": True},
    "k3_bounded": {"max_log_ratio": 20.0, "max_value": 10.0},
    "token_truncated": {"cap": 2.0, "floor": 0.0},
    "sequence_truncated": {"cap": 2.0, "floor": 0.0},
    "token_masked": {"low": 0.0, "high": 3.0},
    "sequence_masked": {"low": 0.0, "high": 3.0},
    "geometric_mean_masked": {"low": 0.5, "high": 5.0},
    "normalized": {"level": "token", "cap": 2.0},
    "segment_truncated": {"cap": 1.2, "floor": 0.0},
    "vaco": {"bound": 0.3, "cap": 2.0},
    "rejection": {"estimator": "k1", "over": "token", "high": 2.0, "low": None},
    "age_rejection": {"most": 8},
    "outlier_rejection": {"low": 0.0001, "high": 100.0},
    "binary_kl_rejection": {"high": 0.1},
    "second_moment_rejection": {"threshold": 0.04},
    "advantage_clip": {"low": -5.0, "high": 5.0},
    "top_entropy": {"share": 0.2},
    "gfpo": {"k": 4, "by": "shortest"},
    "max_variance": {"k": 4},
    "mean_inside": {"low": 0.0, "high": 1.0},
    "enough_spread": {"share": 0.6},
    "soft_overlong": {"buffer": 0.2, "penalty": 0.5},
    "clipped_squared_error": {"clip": 0.5},
}


def shipped() -> dict[str, Part]:
    chosen = (CORRECTIONS, CREDITS, SELECTIONS, FILTERS, SHAPINGS, VALUE_LOSSES)
    registries = (ADVANTAGES, OBJECTIVES, AGGREGATORS, KLS, *chosen)
    return {name: part for registry in registries for name, part in registry.items() if "/estimators/" in part.place}


def test_defaults() -> None:
    assert {name: part.defaults for name, part in shipped().items() if part.defaults} == DEFAULTS


def rollout(dtype: torch.dtype, P: int, token_terms: bool) -> Batch:
    """The same numbers in either precision: all are exact in float32."""
    G, draw = 5, torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (P, G), generator=draw)
    mask = torch.arange(5) < lengths[..., None]

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    tokens = numbers(P, G, 5).where(mask, 0.0)
    kl = numbers(P, G, 5).where(mask, 0.0)
    rewards = numbers(P, G)
    terms = (tokens, kl) if token_terms else (None, None)
    return Batch.of(
        rewards,
        mask,
        token_rewards=terms[0],
        kl_rewards=terms[1],
        values=numbers(P, G, 5),
        greedy_rewards=rewards[:, 0] / 2,
        step_ends=mask,
        old_logps=-numbers(P, G, 5).abs(),
        sum_squared_probs=numbers(P, G, 5).float().sigmoid().to(dtype),
        reward_parts=torch.stack([rewards, 2 * rewards.float().square().to(dtype)], -1),
    )


ROUNDED = ("no_baseline", "greedy_baseline", "group_median")
"""One subtraction, or none, in the rewards' own precision."""


@pytest.mark.parametrize(("P", "token_terms"), [(24, True), (24, False), (1, True)])
@pytest.mark.parametrize("name", [n for n, p in ADVANTAGES.items() if "/estimators/" in p.place])
def test_statistics_are_taken_in_float64_and_returned_in_the_rewards_precision(
    name: str, P: int, token_terms: bool
) -> None:
    part = ADVANTAGES[name]
    if "token_rewards" in AdvantageOptions.of(part).needs and not token_terms:
        return

    def run(batch: Batch) -> Tensor:
        make_state = AdvantageOptions.of(part).state
        result = part(batch, make_state())[0] if make_state else part(batch)
        assert isinstance(result, Tensor)
        return result

    batch, same = (rollout(dtype, P, token_terms) for dtype in (torch.float32, torch.float64))
    single, double = run(batch), run(same)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    if name not in ROUNDED:
        valid = batch.mask if single.ndim == 3 else batch.mask.any(-1)
        assert torch.equal(single[valid], double.float()[valid])


@pytest.mark.parametrize("name", [n for n, p in OBJECTIVES.items() if "/estimators/" in p.place])
def test_objectives_keep_the_precision_they_are_given(name: str) -> None:
    part = OBJECTIVES[name]
    for dtype in (torch.float32, torch.float64):
        numbers = torch.randn(4, 6, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)) / 3
        tensors = dict(
            zip(("logps", "old_logps", "behaviour_logps", "advantages"), (*(numbers[:3] - 2), numbers[3]), strict=True)
        )
        tensors |= {"mask": torch.ones(6, 5, dtype=torch.bool), "prepared": torch.zeros(6, 5, dtype=torch.bool)}
        tensors["ref_logps"], tensors["rewards"] = tensors["old_logps"], numbers[3, :, 0]
        if ObjectiveOptions.of(part).level == "group":
            tensors = {name: x.view(3, 2, 5) for name, x in tensors.items() if x.ndim == 2} | {
                "prepared": tensors["logps"].view(3, 2, 5)
            }
        result = part(**{name: tensors[name] for name in part.parameters})
        assert (result.loss if isinstance(result, TokenLoss) else result).dtype == dtype


@pytest.mark.parametrize("token_terms", [True, False])
def test_returns_are_in_float64(token_terms: bool) -> None:
    batch = rollout(torch.float32, 2, token_terms)
    for returns in (reward_to_go(batch), earned_rewards(batch), outcome(batch), discounted_return(batch, 0.9)):
        assert returns.dtype == torch.float64
