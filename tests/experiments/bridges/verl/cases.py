"""What is compared, step by step: a variant, how verl cuts a rollout into steps and micro-batches, what is in it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    variant: str
    bindings: tuple[str, ...] = ()
    steps: int = 1
    """Optimizer steps in an epoch."""
    epochs: int = 1
    shuffle: bool = False
    tokens: int | None = None
    """Of a micro-batch that is filled up to so many, in place of two rows."""
    on_policy: bool = False
    """Whether the old log-probabilities are the present ones."""
    rewards: str = "mixed"
    """`equal`: no group has spread."""


STOPPING = (
    "clip_cov.filter_rounds = 1",
    "cov_clip.share = 0.2",
    "cov_clip.cov_low = 0.0",
    "cov_clip.cov_high = 50.0",
)
KL = ("grpo.kl_coef = 0.1",)
CASES: Mapping[str, Case] = {
    "grpo with KL": Case("grpo", KL),
    "Dr. GRPO": Case("dr_grpo"),
    "DAPO": Case("dapo", ("dapo.filter_rounds = 1",)),
    "RLOO": Case("rloo"),
    "GSPO": Case("gspo"),
    "CISPO": Case("cispo", ("cispo.filter_rounds = 1",)),
    "KL in the reward": Case("grpo", (*KL, "grpo.kl_place = 'reward'", "grpo.kl = @k1")),
    "an estimator of one's own": Case("grpo", ("grpo.advantage = @over_the_rollout",)),
    "an aggregator of one's own": Case("grpo", ("grpo.aggregator = @later_tokens",)),
    "entropy and a correction": Case("with_entropy"),
    "a preparation": Case("clip_cov", STOPPING, on_policy=True),
    "whole distributions": Case("optimal_token"),
    "micro-batches by tokens": Case("grpo", ("grpo.aggregator = @later_tokens",), tokens=24),
    "two steps": Case("dr_grpo", steps=2),
    "two steps, shuffled, two epochs": Case("dapo", ("dapo.filter_rounds = 1",), steps=2, epochs=2, shuffle=True),
    "steps with few rows": Case("dapo", ("dapo.filter_rounds = 1",), steps=4),
    "no spread": Case("grpo", rewards="equal"),
    "every group dropped": Case("dapo", ("dapo.filter_rounds = 1",), rewards="equal"),
    "every group dropped, with a preparation": Case("clip_cov", STOPPING, rewards="equal"),
}
