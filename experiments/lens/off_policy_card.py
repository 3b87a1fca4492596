"""The off-policy lens's measurements as tables for a terminal and as JSON."""

import math
from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

from experiments.lens.card import NOTHING, lens_table, more_than_reward
from experiments.lens.measures import BUDGET
from experiments.lens.off_policy import OffPolicy
from experiments.lens.samplers import UPDATE_KL

MEASURES: Final[Mapping[str, tuple[str, str]]] = {
    "direction_bias": ("direction bias", "|E[g] − c true| / |c true| at the best scale c: what no scale repairs"),
    "scale": ("scale", "the best c in E[g] = c true"),
    "variance": (f"variance for {BUDGET} sampled tokens", "of g / c, relative to |true|²"),
    "mse": (f"mean squared error for {BUDGET} sampled tokens", "of g / c, relative to |true|²: variance + bias²"),
}
"""What is shown of each variant: title and meaning."""


def off_policy_tables(measured: OffPolicy) -> list[Table | str]:
    """How far the sampler is, then each measure of each variant by that distance, and remarks."""
    head = [f"{measured.kind} {label}" for label in measured.labels]
    distance = lens_table("the sampler and the policy", ["", *head])
    distance.add_row("nats a token", *(f"{nats:.2g}" for nats in measured.divergences))
    distance.add_row("reward of the sampler", *(f"{p.behaviour.success.mean():.3f}" for p in measured.policies))
    distance.add_row("reward of the policy", *(f"{p.success.mean():.3f}" for p in measured.policies))
    tables: list[Table | str] = [distance]
    for name, (title, meaning) in MEASURES.items():
        table = lens_table(f"{title}, by {measured.kind}", ["", *head], meaning)
        for variant, numbers in measured.numbers.items():
            table.add_row(variant, *(_text(shown(at)[name], 4 if name == "direction_bias" else 3) for at in numbers))
        tables.append(table)
    return [*tables, *remarks(measured)]


def remarks(measured: OffPolicy) -> list[str]:
    """Remarks on how to read these numbers."""
    apart = (
        "The sampler is the policy of so many updates before, each of which went along the true gradient by "
        f"{UPDATE_KL:g} nats a token."
        if measured.kind == "age"
        else "The sampler's logits are the policy's with noise, scaled to so many nats a token."
    )
    first = (
        f"{apart} The true gradient is that of the plain expected reward at the policy. Every batch of one group of "
        f"{measured.group_size} is enumerated: the numbers are exact."
    )
    return [first, *more_than_reward(measured.variants)]


def shown(numbers: Mapping[str, float]) -> dict[str, float]:
    """The measures with biases as lengths instead of squares."""
    lengths = {
        name.removesuffix("_squared"): math.sqrt(max(0.0, value)) if math.isfinite(value) else value
        for name, value in numbers.items()
        if name.endswith("_squared")
    }
    return {name: value for name, value in numbers.items() if not name.endswith("_squared")} | lengths


def off_policy_to_json(measured: OffPolicy) -> dict[str, Any]:
    """Everything measured."""
    return {
        "form": measured.kind,
        "group_size": measured.group_size,
        "seed": measured.seed,
        "budget_tokens": BUDGET,
        "update_nats_a_token": UPDATE_KL,
        "at": list(measured.at),
        "nats_a_token": measured.divergences,
        "variants": {
            variant.name: {
                "card": dict(variant.card()),
                "at": [
                    {name: value if math.isfinite(value) else None for name, value in shown(numbers).items()}
                    for numbers in measured.numbers[variant.name]
                ],
            }
            for variant in measured.variants
        },
        "remarks": remarks(measured),
    }


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else NOTHING
