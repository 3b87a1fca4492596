"""The table of parts: what each reference has for each of ours, and the hyper-parameters at which the two coincide."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from core import Batch
from estimators.preferences import bradley_terry
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.advantage_parts import advantages
from experiments.maintenance.conformance.calls import trl_loss
from experiments.maintenance.conformance.cases import ALL, EMPTY, HOLES, Case, verdicts
from experiments.maintenance.conformance.comparison import FLOAT32, Comparison, Figures, Settings, differentiated
from experiments.maintenance.conformance.correction_parts import corrections
from experiments.maintenance.conformance.kl_parts import kls
from experiments.maintenance.conformance.objective_parts import objectives
from experiments.maintenance.conformance.rows import KL, aggregator, credit, filter, shaping, value_loss


def comparisons() -> list[Comparison]:
    """Every row of the table."""
    return [
        *advantages(),
        *objectives(),
        *aggregators(),
        *value_losses(),
        *kls(),
        *corrections(),
        *credits(),
        *filters(),
        *shapings(),
        *reward_models(),
    ]


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


def _trl_weights(loss_type: str) -> Callable[[Batch, Tensor], Tensor]:
    """For a policy that has not moved, the clip loss of a token is minus its advantage."""

    def call(batch: Batch, losses: Tensor) -> Tensor:
        return trl_loss(loss_type)(batch, batch.rows("old_logps"), -losses)

    return call


def _verl_weights(mode: str, counts_empty: bool) -> Callable[[Batch, Tensor], Tensor]:
    return lambda batch, losses: verl.aggregate(mode, losses, batch, counts_empty=counts_empty)


def _openrlhf_weights(by_token: bool) -> Callable[[Batch, Tensor], Tensor]:
    return lambda batch, losses: openrlhf.aggregate(losses, batch, by_token)


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


def credits() -> list[Comparison]:
    """Steps of the chain of credit."""
    present = "It takes the present policy's entropy, ours the sampler's: the same until the first update. "
    return [
        credit(
            "top_entropy",
            "TRL",
            f"top_entropy_quantile={share}, beta",
            trl_loss(top_entropy_quantile=share, beta=KL),
            kl_coef=KL,
            share=share,
            flavours=[*ALL, EMPTY],
            note=present + "Its quantile is over a micro-batch, in float32; here one takes the whole rollout.",
        )
        for share in (0.2, 0.75)
    ]


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
