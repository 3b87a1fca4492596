"""What methods hold, side by side: how many models, trained or frozen, in bytes and in parameter equivalents.

    equivalents = 4 * trained parameters + frozen parameters

A trained parameter comes with its gradient and AdamW's two moments, all of one size where everything is float32 (or
sharded); in bfloat16 with float32 masters it is nearer to nine. The four models of RLHF's PPO are a policy and a critic
that are trained, a reference and a reward model that are not: with 7B, 7B, 7B and 2B, 28 + 28 + 7 + 2 = 65B.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.parts.registry import PROVIDERS
from core.parts.variant import Variant
from experiments.memory.forecast import Forecast
from experiments.memory.measure import Measured

TRAINED: Final = 4
"""Equivalents of a trained parameter: itself, its gradient, two moments."""
MODELS: Final = ("policy", "critic", "reference", "reward")
BYTES: Final = {"weights": (2, 2), "masters": (4, 0), "gradients": (4, 0), "moments": (8, 0)}
"""Bytes a parameter where weights are bfloat16: of a trained model, of a frozen one."""
_UNITS: Final = {"K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Models:
    """Parameters of the models that a method holds at once; 0 where it has none."""

    policy: float
    critic: float = 0.0
    reference: float = 0.0
    reward: float = 0.0

    @property
    def trained(self) -> float:
        """Parameters that are trained."""
        return self.policy + self.critic

    @property
    def frozen(self) -> float:
        """Parameters that only compute."""
        return self.reference + self.reward

    @property
    def equivalents(self) -> float:
        """Parameter equivalents."""
        return TRAINED * self.trained + self.frozen

    @property
    def bytes(self) -> dict[str, float]:
        """Bytes by purpose in bfloat16 with float32 masters, gradients and moments."""
        return {name: self.trained * ours + self.frozen * still for name, (ours, still) in BYTES.items()}


def read_sizes(text: str) -> dict[str, float]:
    """`policy=7B,critic=7B,reference=7B,reward=2B` as numbers; what is left out is as large as the policy, reward 0."""
    sizes: dict[str, float] = {}
    for part in text.split(","):
        matched = re.fullmatch(r"\s*(\w+)=(\d+(?:\.\d+)?)([KMB]?)\s*", part)
        if matched is None or matched[1] not in MODELS:
            raise GrpoLabError(
                f"--sizes {text}: '{part}' must be NAME=NUMBER with NAME one of {', '.join(MODELS)}, e.g. policy=7B"
            )
        sizes[matched[1]] = float(matched[2]) * _UNITS.get(matched[3], 1.0)
    if "policy" not in sizes:
        raise GrpoLabError(f"--sizes {text}: the policy's size is missing, e.g. policy=7B")
    return {"critic": sizes["policy"], "reference": sizes["policy"], "reward": 0.0} | sizes


def models_of(variant: Variant, sizes: Mapping[str, float]) -> Models:
    """The models of these sizes that a variant needs: those its parts ask for, and a reward model if there is one."""
    own_critic = "values" in variant.needs and PROVIDERS["critic"].settings()["trunk"].value == "own"
    return Models(
        policy=sizes["policy"],
        critic=sizes["critic"] if own_critic else 0.0,
        reference=sizes["reference"] if "ref_logps" in variant.needs else 0.0,
        reward=sizes["reward"],
    )


def models_of_forecast(forecast: Forecast, recipe: Recipe) -> Models:
    """The models of a recipe whose forecast was made; adapters share the frozen policy with the reference."""
    has_reference = "ref_logps" in recipe.variant.needs and recipe.policy.lora is None
    still, trained = forecast.total - forecast.trainable + forecast.total * has_reference, 0
    if forecast.critic:
        still, trained = still + forecast.critic.parameters - forecast.critic.trainable, forecast.critic.trainable
    return Models(forecast.trainable, trained, reference=still)


def sizes_table(models: Mapping[str, Models]) -> Table:
    """A column a variant: parameters of each model, equivalents, and bytes."""
    table = Table("", title="bytes with bfloat16 weights, float32 masters, gradients and moments")
    for name in models:
        table.add_column(name, justify="right")
    for which in (*MODELS, "equivalents"):
        table.add_row(
            which,
            *(billions(getattr(model, which)) for model in models.values()),
            style="bold" if which == "equivalents" else "",
        )
    table.add_section()
    for purpose in BYTES:
        table.add_row(purpose, *(gib(model.bytes[purpose]) for model in models.values()))
    table.add_row("together", *(gib(sum(model.bytes.values())) for model in models.values()), style="bold")
    return table


def forecasts_table(rows: Mapping[str, tuple[Recipe, Forecast, Measured | None]]) -> Table:
    """A row a variant of one recipe: the most of each purpose in any phase, the peak, and what was measured."""
    held = {
        name: {
            p: max(parts.get(p, 0) for parts in forecast.parts.values())
            for parts in forecast.parts.values()
            for p in parts
        }
        for name, (_, forecast, _) in rows.items()
    }
    purposes = [
        p for p in dict.fromkeys(p for of in held.values() for p in of) if any(of.get(p) for of in held.values())
    ]
    are_measured = any(measured for *_, measured in rows.values())
    table = Table("MiB", title="largest of each purpose at any moment; the peak is at one moment")
    for name in rows:
        table.add_column(name, justify="right")
    for purpose in purposes:
        table.add_row(purpose, *(mib(of.get(purpose, 0)) for of in held.values()))
    table.add_section()
    table.add_row("peak, forecast", *(mib(forecast.peak) for _, forecast, _ in rows.values()), style="bold")
    if are_measured:
        table.add_row("peak, measured", *(mib(m.peak) if m else "" for *_, m in rows.values()), style="bold")
        table.add_row("seconds a step, measured", *(f"{m.seconds:.2f}" if m else "" for *_, m in rows.values()))
    models = [models_of_forecast(forecast, recipe) for recipe, forecast, _ in rows.values()]
    table.add_row("parameter equivalents", *(billions(model.equivalents) for model in models))
    return table


def billions(count: float) -> str:
    """A number of parameters, short."""
    for unit, size in reversed(_UNITS.items()):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}" if count else ""


def gib(count: float) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:,.1f} GiB" if count else ""


def mib(count: float) -> str:
    """Bytes in MiB, without the unit."""
    return f"{count / 2**20:,.1f}" if count else ""
