"""The table of KL estimators and of the controller of their coefficient."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core import Batch
from core.loop.loss import adapted_coefficient
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.advantage_parts import CASTS, with_beta
from experiments.maintenance.conformance.calls import (
    trl_loss,
)
from experiments.maintenance.conformance.cases import (
    ALL,
    CLOSE,
    PLAIN,
    Case,
)
from experiments.maintenance.conformance.comparison import (
    FLOAT32,
    Comparison,
    Figures,
    Settings,
)
from experiments.maintenance.conformance.rows import (
    advantage,
    kl,
    kl_term,
)


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


def _trl_kl(corrected: bool) -> Callable[[Batch, Tensor], Tensor]:
    def call(batch: Batch, logps: Tensor) -> Tensor:
        loss = trl_loss(beta=1.0, of_args={"use_bias_correction_kl": corrected})
        return loss(batch, logps, torch.zeros_like(logps))

    return call


def _verl_kl(kind: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda logps, ref, _: verl.kl(logps, ref, kind)


def _openrlhf_kl(kind: str, unbiased: bool = False) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda logps, ref, _: openrlhf.kl(logps, ref, kind, unbiased)
