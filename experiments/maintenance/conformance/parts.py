"""The table of parts: what each reference has for each of ours, and the hyper-parameters at which the two coincide."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core import Batch
from core.loop.loss import adapted_coefficient
from estimators.preferences import bradley_terry
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.advantage_parts import CASTS, advantages, with_beta
from experiments.maintenance.conformance.cases import CLOSE, EMPTY, EXTREME, HOLES, PLAIN, Case
from experiments.maintenance.conformance.comparison import (
    FLOAT32,
    Comparison,
    Figures,
    Settings,
    advantage,
    aggregator,
    correction,
    differentiated,
    filter,
    kl,
    kl_term,
    objective,
    shaping,
    value_loss,
)

ALL = (PLAIN, HOLES, EXTREME)


def comparisons() -> list[Comparison]:
    """Every row of the table."""
    return [
        *advantages(),
        *objectives(),
        *aggregators(),
        *value_losses(),
        *kls(),
        *corrections(),
        *filters(),
        *shapings(),
        *reward_models(),
    ]


# --- objectives ---


def _trl_loss(loss_type: str = "dapo", **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = trl.grpo(batch, loss_type=loss_type, **settings)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages}, logps)

    return call


def _by_response(make: Callable[[Batch], Any]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """The loss of a trainer that takes one advantage a response."""

    def call(batch: Batch, logps: Tensor, advantages: Tensor) -> Tensor:
        trainer = make(batch)
        return trl.loss(trainer, trl.rollout(trainer, batch) | {"advantages": advantages[:, 0]}, logps)

    return call


def _verl_loss(mode: str, aggregation: str = "token-mean", **config: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    return lambda batch, logps, advantages: verl.loss(mode, batch, logps, advantages, aggregation=aggregation, **config)


def _openrlhf_loss(**of_loss: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    return lambda batch, logps, advantages: openrlhf.loss(batch, logps, advantages, **of_loss)


def _by_side(call: Callable[..., Tensor], *args: Any, **settings: Any) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """A loss that takes the sign of each response's advantage."""
    return lambda batch, logps, advantages: call(batch, logps, advantages[:, 0].sign(), *args, **settings)


def _imitates(call: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch, Tensor, Tensor], Tensor]:
    """Whatever the advantages."""
    return lambda batch, logps, _: call(batch, logps)


def objectives() -> list[Comparison]:
    """Policy objectives, each under an aggregator that its loss in the reference goes with."""
    bounds: Settings = {"eps_low": 0.2, "eps_high": 0.28}
    trl_bounds: Settings = {"epsilon_low": 0.2, "epsilon_high": 0.28}
    verl_bounds: Settings = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    their_bounds: Settings = {"clip_eps_low": 0.2, "clip_eps_high": 0.28}
    gspo: Settings = {"eps_low": 3e-4, "eps_high": 4e-4}
    verl_gspo: Settings = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
    trl_gspo: Settings = {"epsilon_low": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence"}
    their_gspo: Settings = {"clip_eps_low": 3e-4, "clip_eps_high": 4e-4, "policy_loss_type": "gspo"}
    by_row: Settings = {"aggregator": "seq_mean_token_mean", "per_token": False}
    preferences: Settings = {**by_row, "flavours": (*ALL, EMPTY)}
    own = "Its reference point is of responses beside prompts that are not theirs; here it is given the step's own."
    clamps = "It clamps log-ratios at 20 in size, where ours goes on."
    always_dual = "Its dual clip is always on: off for all purposes with clip_ratio_c=1e30. " + clamps
    tie = "The same while the cap is not below 1 + eps_high."
    constant = "For one advantage a response; with several, its gradient is the other form's."
    dppo: Settings = {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03, "clip_ratio_c": 3.0}
    ours_dppo: Settings = {"threshold_low": 0.02, "threshold_high": 0.03, "ratio_cap": 3.0}
    imitates_trl: Settings = {"tolerance": FLOAT32, "note": "Its model's own loss, in float32."}
    cov: Settings = {"eps_low": 0.2, "eps_high": 0.28, "cov_low": 0.1, "cov_high": 2.0, "share": 1.0}
    verl_cov: Settings = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 2.0}
    return [
        objective("policy_gradient", "verl", "gpg", _verl_loss("gpg"), flavours=ALL),
        objective("log_likelihood", "TRL", "SFTTrainer", _imitates(trl.imitation), **imitates_trl),
        objective("log_likelihood", "verl", "sft_loss", _imitates(verl.imitation)),
        objective("log_likelihood", "OpenRLHF", "SFTLoss", _imitates(openrlhf.imitation)),
        objective("clip", "TRL", "loss_type='dapo'", _trl_loss(**trl_bounds), **bounds, flavours=ALL),
        objective(
            "clip",
            "verl",
            "vanilla",
            _verl_loss("vanilla", clip_ratio_c=1e30, **verl_bounds),
            **bounds,
            note=always_dual,
        ),
        objective("clip", "OpenRLHF", "ppo", _openrlhf_loss(**their_bounds), **bounds, note=clamps),
        objective(
            "dual_clip",
            "TRL",
            "delta",
            _trl_loss(**trl_bounds, of_args={"delta": 3.0}),
            **bounds,
            ratio_cap=3.0,
            flavours=ALL,
            note=tie,
        ),
        objective(
            "dual_clip",
            "verl",
            "vanilla",
            _verl_loss("vanilla", clip_ratio_c=3.0, **verl_bounds),
            **bounds,
            ratio_cap=3.0,
            flavours=ALL,
        ),
        objective(
            "dual_clip",
            "OpenRLHF",
            "ppo, dual_clip",
            _openrlhf_loss(**their_bounds, dual_clip=3.0),
            **bounds,
            ratio_cap=3.0,
            flavours=ALL,
        ),
        objective(
            "capped_clip",
            "TRL",
            "delta",
            _trl_loss(**trl_bounds, of_args={"delta": 1.1}),
            **bounds,
            ratio_cap=1.1,
            flavours=ALL,
        ),
        objective(
            "capped_clip",
            "verl",
            "vanilla",
            _verl_loss("vanilla", clip_ratio_c=3.0, **verl_bounds),
            **bounds,
            ratio_cap=3.0,
            flavours=ALL,
            note=tie,
        ),
        objective(
            "capped_clip",
            "OpenRLHF",
            "ppo, dual_clip",
            _openrlhf_loss(**their_bounds, dual_clip=3.0),
            **bounds,
            ratio_cap=3.0,
            flavours=ALL,
            note=tie,
        ),
        objective(
            "off_policy_masked_clip",
            "TRL",
            "off_policy_mask_threshold",
            _trl_loss(**trl_bounds, off_policy_mask_threshold=0.01, knows_sampler=True),
            **bounds,
            threshold=0.01,
        ),
        objective(
            "cispo_clip",
            "TRL",
            "loss_type='cispo', epsilon_high=1.5",
            _trl_loss("cispo", epsilon_high=1.5),
            eps_low=1.0,
            eps_high=0.5,
            flavours=ALL,
            note="Its bound is the weight itself: 1 + our eps_high.",
        ),
        objective("cispo_clip", "verl", "cispo", _verl_loss("cispo", **verl_bounds), **bounds, flavours=ALL),
        objective(
            "sapo_gate", "TRL", "loss_type='sapo'", _trl_loss("sapo"), aggregator="seq_mean_token_mean", flavours=ALL
        ),
        objective(
            "sapo_gate",
            "verl",
            "sapo",
            _verl_loss("sapo"),
            aggregator="seq_mean_token_mean",
            flavours=ALL,
            note="It ignores the aggregation asked for.",
        ),
        objective("vespo_weight", "TRL", "loss_type='vespo'", _trl_loss("vespo"), flavours=ALL),
        objective(
            "gspo_clip",
            "TRL",
            "importance_sampling_level='sequence'",
            _trl_loss("grpo", **trl_gspo),
            **gspo,
            aggregator="seq_mean_token_mean",
        ),
        objective(
            "gspo_clip",
            "verl",
            "gspo",
            _verl_loss("gspo", "seq-mean-token-mean", **verl_gspo),
            **gspo,
            **by_row,
            note=constant,
        ),
        objective(
            "gspo_clip", "OpenRLHF", "gspo", _openrlhf_loss(**their_gspo), **gspo, aggregator="seq_mean_token_mean"
        ),
        objective(
            "gspo_token_clip",
            "TRL",
            "importance_sampling_level='sequence'",
            _trl_loss("grpo", **trl_gspo),
            **gspo,
            **by_row,
            note=constant,
        ),
        objective(
            "gspo_token_clip",
            "verl",
            "gspo",
            _verl_loss("gspo", **verl_gspo),
            **gspo,
            note="It bounds the log of the ratio at 10, which is not reached here.",
        ),
        objective("gspo_token_clip", "OpenRLHF", "gspo", _openrlhf_loss(**their_gspo), **gspo, **by_row, note=constant),
        objective(
            "sequence_clip",
            "TRL",
            "RLOOTrainer",
            _by_response(trl.rloo),
            aggregator="seq_mean_token_sum",
            per_token=False,
            flavours=[PLAIN],
        ),
        objective("geo_mean_clip", "TRL", "experimental GMPOTrainer", _by_response(trl.gmpo), **by_row, flavours=ALL),
        objective(
            "geo_mean_clip",
            "verl",
            "geo_mean",
            _verl_loss("geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4),
            **by_row,
            flavours=(*ALL, EMPTY),
            note="It ignores the aggregation asked for: mean over rows.",
        ),
        objective(
            "cov_clip",
            "verl",
            "clip_cov",
            _verl_loss("clip_cov", **verl_bounds, policy_loss=verl_cov),
            **cov,
            flavours=ALL,
            note="With a share of 1 nothing is drawn: else each draws tokens of its own.",
        ),
        objective(
            "cov_kl",
            "verl",
            "kl_cov",
            _verl_loss("kl_cov", policy_loss={"kl_cov_ratio": 0.2, "ppo_kl_coef": 0.5}),
            share=0.2,
            kl_coef=0.5,
            flavours=ALL,
        ),
        objective("dppo_tv_mask", "verl", "dppo_tv", _verl_loss("dppo_tv", **dppo), **ours_dppo, note=clamps),
        objective("dppo_kl_mask", "verl", "dppo_kl", _verl_loss("dppo_kl", **dppo), **ours_dppo, note=clamps),
        objective(
            "dro_quadratic", "verl", "dro", _verl_loss("dro", policy_loss={"dro_beta": 0.5}), beta=0.5, flavours=ALL
        ),
        objective(
            "dpo_sigmoid",
            "TRL",
            "DPOTrainer, loss_type='sigmoid'",
            _by_side(trl.dpo, beta=0.2),
            beta=0.2,
            **preferences,
            note="Group by group. This loss of its trainer has no label smoothing.",
        ),
        objective(
            "dpo_sigmoid",
            "OpenRLHF",
            "DPOLoss, label_smoothing=0.1",
            _by_side(openrlhf.dpo, beta=0.2, label_smoothing=0.1),
            beta=0.2,
            label_smoothing=0.1,
            **preferences,
            note="Group by group.",
        ),
        objective(
            "ipo_square",
            "TRL",
            "DPOTrainer, loss_type='ipo'",
            _by_side(trl.dpo, "ipo", beta=0.2),
            beta=0.2,
            length_normalised=True,
            **preferences,
            note="Group by group. For sums see the variant `ipo`.",
        ),
        objective(
            "ipo_square",
            "OpenRLHF",
            "DPOLoss, ipo",
            _by_side(openrlhf.dpo, beta=0.2, ipo=True),
            beta=0.2,
            **preferences,
            note="Group by group.",
        ),
        objective("kto_value", "TRL", "KTOTrainer", _by_side(trl.kto, beta=0.2), beta=0.2, **preferences, note=own),
    ]


# --- aggregators ---


def _trl_weights(loss_type: str) -> Callable[[Batch, Tensor], Tensor]:
    """For a policy that has not moved, the clip loss of a token is minus its advantage."""

    def call(batch: Batch, losses: Tensor) -> Tensor:
        return _trl_loss(loss_type)(batch, batch.rows("old_logps"), -losses)

    return call


def _verl_weights(mode: str, counts_empty: bool) -> Callable[[Batch, Tensor], Tensor]:
    return lambda batch, losses: verl.aggregate(mode, losses, batch, counts_empty=counts_empty)


def _openrlhf_weights(by_token: bool) -> Callable[[Batch, Tensor], Tensor]:
    return lambda batch, losses: openrlhf.aggregate(losses, batch, by_token)


def aggregators() -> list[Comparison]:
    """Loss aggregators, on one micro-batch that is the whole step; some rows are empty."""
    rows: list[Comparison] = []
    local = "When it is not told the step's total."
    for name, mode in (
        ("token_mean", "dapo"),
        ("token_mean_local", "bnpo"),
        ("seq_mean_token_mean", "grpo"),
        ("seq_mean_token_sum", "luspo"),
        ("seq_mean_token_sum_norm", "dr_grpo"),
    ):
        rows.append(aggregator(name, "TRL", f"loss_type='{mode}'", _trl_weights(mode), flavours=[HOLES, EMPTY]))
    for name in ("token_mean", "token_sum", "token_mean_local"):
        mode = "token-mean" if name == "token_mean_local" else name.replace("_", "-")
        note = local if name == "token_mean_local" else ""
        rows.append(aggregator(name, "verl", mode, _verl_weights(mode, True), flavours=[HOLES, EMPTY], note=note))
    for name in ("seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"):
        mode = name.replace("_", "-")
        for count in (True, False):
            given = "global_batch_size given" if count else "global_batch_size not given"
            rows.append(
                aggregator(
                    name,
                    "verl",
                    f"{mode}, {given}",
                    _verl_weights(mode, count),
                    flavours=[HOLES, EMPTY],
                    count_empty=count,
                )
            )
    for name in ("token_mean", "token_mean_local"):
        note = local if name == "token_mean_local" else ""
        rows.append(
            aggregator(name, "OpenRLHF", "token-mean", _openrlhf_weights(True), flavours=[HOLES, EMPTY], note=note)
        )
    rows.append(
        aggregator(
            "seq_mean_token_mean",
            "OpenRLHF",
            "seq-mean-token-mean",
            _openrlhf_weights(False),
            flavours=[HOLES, EMPTY],
            count_empty=False,
        )
    )
    return rows


# --- KL ---


def _trl_kl(corrected: bool) -> Callable[[Batch, Tensor], Tensor]:
    def call(batch: Batch, logps: Tensor) -> Tensor:
        loss = _trl_loss(beta=1.0, of_args={"use_bias_correction_kl": corrected})
        return loss(batch, logps, torch.zeros_like(logps))

    return call


def _verl_kl(kind: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda logps, ref, _: verl.kl(logps, ref, kind)


def _openrlhf_kl(kind: str, unbiased: bool = False) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda logps, ref, _: openrlhf.kl(logps, ref, kind, unbiased)


def kls() -> list[Comparison]:
    """KL estimators, and the controller of their coefficient."""
    in_reward = advantage(
        "leave_one_out",
        "TRL",
        "RLOOTrainer, beta",
        with_beta,
        kl=True,
        flavours=[PLAIN],
        note="In the reward only, summed over the response.",
    )
    below = "It bounds the log-ratio at 20 and the value at 10; compared below that."
    close: Settings = {"tolerance": FLOAT32, "flavours": [CLOSE]}
    clamped = "It computes in float32 and clamps values at 10 in size; compared below that."
    weighted = "It computes in float32; its training step also weights the gradient by the policy ratio, at most 10."
    return [
        replace(in_reward, kind="kl", name="k1", ours="k1()"),
        kl("k1", "verl", "k1", _verl_kl("k1"), flavours=ALL),
        kl("k2", "verl", "k2", _verl_kl("k2"), flavours=ALL),
        kl_term("k3", "TRL", "use_bias_correction_kl=False", _trl_kl(False), flavours=ALL),
        kl("k3", "verl", "k3", _verl_kl("k3"), flavours=[CLOSE], note=below),
        kl("k3_bounded", "verl", "k3", _verl_kl("k3"), flavours=ALL),
        kl("k_abs", "verl", "abs", _verl_kl("abs"), flavours=ALL),
        kl("k1_plus", "verl", "k1+", _verl_kl("k1+"), flavours=ALL),
        kl("k3_plus", "verl", "k3+", _verl_kl("k3+"), flavours=[CLOSE], note=below),
        kl_term("k3_ratio", "TRL", "use_bias_correction_kl=True", _trl_kl(True)),
        kl("k1", "OpenRLHF", "k1", _openrlhf_kl("k1"), note=clamped, **close),
        kl("k2", "OpenRLHF", "k2", _openrlhf_kl("k2"), note=clamped, **close),
        kl("k3", "OpenRLHF", "k3", _openrlhf_kl("k3"), note=clamped, **close),
        kl(
            "k3_bounded",
            "OpenRLHF",
            "k3",
            _openrlhf_kl("k3"),
            max_log_ratio=math.inf,
            max_value=10.0,
            note=CASTS,
            tolerance=FLOAT32,
            flavours=ALL,
        ),
        kl("k1_plus", "OpenRLHF", "k1, unbiased_gradient", _openrlhf_kl("k1", True), note=weighted, **close),
        kl("k3_plus", "OpenRLHF", "k3, unbiased_gradient", _openrlhf_kl("k3", True), note=weighted, **close),
        _controller("verl", verl.adapted_coefficient),
        _controller("OpenRLHF", openrlhf.adapted_coefficient),
    ]


def _controller(reference: Any, call: Callable[[float, float, float, float, int], float]) -> Comparison:
    def sides(case: Case) -> tuple[Figures, Figures]:
        kls = case.batch.rewards.flatten().abs().tolist()
        ours = [adapted_coefficient(0.1, k, target=0.4, horizon=1000, samples=64) for k in kls]
        theirs = [call(0.1, k, 0.4, 1000, 64) for k in kls]
        return Figures(torch.tensor(ours, dtype=torch.float64)), Figures(torch.tensor(theirs, dtype=torch.float64))

    return Comparison(
        "function", "adapted_coefficient", reference, "adapted_coefficient()", "AdaptiveKLController", sides
    )


# --- value losses ---


def value_losses() -> list[Comparison]:
    """Losses of a critic."""
    return [
        value_loss(
            "squared_error",
            "verl",
            "compute_value_loss, cliprange_value of 1e9",
            lambda b, v, r: verl.value_loss(b, v, r, 1e9),
        ),
        value_loss(
            "squared_error", "OpenRLHF", "ValueLoss, no clip_eps", lambda b, v, r: openrlhf.value_loss(b, v, r, None)
        ),
        value_loss(
            "clipped_squared_error",
            "verl",
            "compute_value_loss",
            lambda b, v, r: verl.value_loss(b, v, r, 0.1),
            clip=0.1,
        ),
        value_loss(
            "clipped_squared_error",
            "OpenRLHF",
            "ValueLoss",
            lambda b, v, r: openrlhf.value_loss(b, v, r, 0.1),
            clip=0.1,
        ),
    ]


# --- corrections, filters, shapings ---


def _trl_ratio(mode: str, low: float | None, high: float | None) -> Callable[[Batch], Tensor]:
    def call(batch: Batch) -> Tensor:
        bounds = {"mode": mode, "clip_min": low, "clip_max": high}
        return trl.rollout(trl.grpo(batch, correction=bounds), batch)["importance_sampling_ratio"]

    return call


def corrections() -> list[Comparison]:
    """Corrections of the mismatch between sampler and trainer."""
    band = "It needs a lower bound above 0."
    inverse = "It bounds sampler over trainer; tokens it rejects also leave the denominators."
    return [
        correction(
            "token_truncated",
            "TRL",
            "token_truncate",
            _trl_ratio("token_truncate", 0.5, 2.0),
            floor=0.5,
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "token_truncated",
            "verl",
            "token, threshold 2.0",
            lambda b: verl.correction(b, "token", 2.0),
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "token_truncated",
            "OpenRLHF",
            "token, clip",
            lambda b: openrlhf.correction(b, "token", "clip", 0.5, 5.0),
            floor=0.5,
            cap=5.0,
            flavours=ALL,
        ),
        correction(
            "sequence_truncated",
            "TRL",
            "sequence_truncate",
            _trl_ratio("sequence_truncate", 0.5, 2.0),
            floor=0.5,
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "sequence_truncated",
            "verl",
            "sequence, threshold 2.0",
            lambda b: verl.correction(b, "sequence", 2.0),
            cap=2.0,
            flavours=[PLAIN, HOLES],
        ),
        correction("token_masked", "TRL", "token_mask", _trl_ratio("token_mask", None, 3.0), high=3.0, flavours=ALL),
        correction(
            "token_masked",
            "verl",
            "token, threshold 0.5_3.0",
            lambda b: verl.correction(b, "token", "0.5_3.0"),
            low=0.5,
            high=3.0,
            flavours=ALL,
            note=band,
        ),
        correction(
            "token_masked",
            "OpenRLHF",
            "token, mask",
            lambda b: openrlhf.correction(b, "token", "mask", 0.5, 5.0),
            low=0.5,
            high=5.0,
            flavours=ALL,
        ),
        correction(
            "sequence_masked", "TRL", "sequence_mask", _trl_ratio("sequence_mask", None, 3.0), high=3.0, flavours=ALL
        ),
        correction(
            "sequence_masked",
            "verl",
            "sequence, threshold 0.5_3.0",
            lambda b: verl.correction(b, "sequence", "0.5_3.0"),
            low=0.5,
            high=3.0,
            flavours=ALL,
            note=band,
        ),
        correction(
            "geometric_mean_masked",
            "verl",
            "rejection seq_mean_k1, token weights",
            lambda b: verl.correction(b, "token", 1e30, "seq_mean_k1", f"{1 / 1.1}_{1 / 0.9}"),
            low=0.9,
            high=1.1,
            note=inverse,
        ),
        correction(
            "geometric_mean_masked",
            "OpenRLHF",
            "seq, mask",
            lambda b: openrlhf.correction(b, "seq", "mask", 0.9, 1.1),
            low=0.9,
            high=1.1,
        ),
    ]


def verdicts(batch: Batch) -> Batch:
    """The batch with 1 for a correct response and 0 for another as rewards."""
    return batch.having(rewards=batch.require("correct").double())


def filters() -> list[Comparison]:
    """Group filters."""
    return [
        filter("nonuniform", "verl", "filter_groups on accuracy", lambda b: verl.kept(verdicts(b))),
        filter(
            "nonuniform",
            "OpenRLHF",
            "dynamic_filtering_range (0, 1) on accuracy",
            lambda b: openrlhf.kept(verdicts(b), 0.0, 1.0),
        ),
        filter(
            "has_spread",
            "verl",
            "filter_groups on the reward",
            verl.kept,
            note="It tests for a std of exactly 0, which equal rewards such as 0.1 may not have.",
        ),
        filter(
            "mean_inside",
            "OpenRLHF",
            "dynamic_filtering_range",
            lambda b: openrlhf.kept(b, 0.25, 0.6),
            low=0.25,
            high=0.6,
        ),
    ]


def shapings() -> list[Comparison]:
    """Reward shapings."""
    half: Settings = {"buffer": 0.5}
    return [
        shaping(
            "soft_overlong",
            "TRL",
            "get_soft_overlong_punishment",
            lambda b, limit: b.rewards + trl.overlong(b, limit, limit // 2),
            **half,
            penalty=1.0,
        ),
        shaping(
            "soft_overlong",
            "verl",
            "overlong_buffer_cfg",
            lambda b, limit: verl.overlong(b, limit, limit // 2, 0.7),
            **half,
            penalty=0.7,
            beyond=False,
            tolerance=FLOAT32,
            note="It computes in float32, and has no floor beyond the limit, which responses do not pass.",
        ),
        shaping(
            "soft_overlong",
            "OpenRLHF",
            "overlong_buffer_len",
            lambda b, limit: openrlhf.overlong(b, limit, limit // 2, 0.7),
            **half,
            penalty=0.7,
        ),
    ]


# --- reward models ---


def reward_models() -> list[Comparison]:
    """The loss of a reward model, as a mean over pairs."""
    return [
        _of_pairs(
            "TRL",
            "RewardTrainer, center_rewards_coefficient=0.01",
            lambda chosen, rejected, margin: trl.bradley_terry(chosen, rejected, margin, 0.01),
            centering=0.01,
        ),
        _of_pairs("OpenRLHF", "PairWiseLoss", openrlhf.bradley_terry, centering=0.0),
    ]


def _of_pairs(
    reference: Any, theirs: str, call: Callable[[Tensor, Tensor, Tensor], Tensor], *, centering: float
) -> Comparison:
    """Pairs of the rewards that a batch's groups have in their first and last response; the margin is half of one."""

    def sides(case: Case) -> tuple[Figures, Figures]:
        rewards = case.batch.rewards.double()
        margin = rewards[:, 0].abs() / 2

        def ours(x: Tensor) -> Tensor:
            return bradley_terry(x[:, 0], x[:, 1], margin=margin, centering=centering).mean()

        pairs = rewards[:, [0, -1]]
        return differentiated(ours, pairs), differentiated(lambda x: call(x[:, 0], x[:, 1], margin), pairs)

    return Comparison("function", "bradley_terry", reference, f"bradley_terry(centering={centering})", theirs, sides)
