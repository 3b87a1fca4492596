"""What the lens measured on turns as tables for a terminal and as JSON."""

import math
from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table
from torch import Tensor

from experiments.lens.card import NOTHING, lens_table, more_than_reward
from experiments.lens.measures import BUDGET
from experiments.lens.off_policy_card import shown
from experiments.lens.on_turns import VALUES_0, OnTurns, worth
from experiments.lens.search import HIT_REWARD, TURN_REWARD

TRUE: Final = "true gradient"


def turns_tables(measured: OnTurns) -> list[Table | str]:
    """Bias, noise, and the push towards going on, by prompt and by what a further turn pays, with remarks."""
    bias = lens_table(
        f"expected gradient against the true one: episodes of up to {measured.turns} turns, groups of "
        f"{measured.group_size}",
        ["", "scale", "factor", "bias", "direction bias", "angle"],
        "scale: the best c in E[g] = c * true. factor: c times the constant that the aggregator divides an episode's "
        "token sum by, if any; bias: relative, at that constant. direction bias: relative, after the best scale; "
        "angle: of E[g] to the true gradient, in degrees",
    )
    noise = lens_table(
        f"noise for {BUDGET} sampled tokens",
        ["", "variance", "mse", "signal to noise"],
        "variance and mean squared error: of g / c, relative to |true|². signal to noise: |E[g]|² over the variance of "
        "g. Observations are not counted",
    )
    for name, numbers in measured.numbers.items():
        n = shown_turns(numbers)
        bias.add_row(
            name, *(_text(n.get(key)) for key in ("scale", "factor", "bias", "direction_bias")), _text(n["angle"], 1)
        )
        noise.add_row(name, _text(n["variance"]), _text(n["mse"]), _text(n["snr"], 2))
    by_prompt = lens_table(
        "push towards a call, by what a call in the first turn is worth",
        ["", *(_text(value, 2, sign=True) for value in worth(measured.policy))],
        "push: of the expected gradient over its scale, along all logits of calling the tool of one prompt. Of the "
        "true gradient: by how much the expected return rises for each unit added to these logits",
    )
    by_reward = lens_table(
        "push towards a call, mean over prompts, by what every further turn pays",
        ["", *(f"{paid:g}".replace("-", "−") for paid in measured.policies)],
        f"in units of the scale where a further turn pays {TURN_REWARD:g}".replace("-", "−"),
    )
    for name, pushes in {TRUE: measured.true_pushes, **measured.pushes}.items():
        by_prompt.add_row(name, *(_text(value, 3, sign=True) for value in pushes[TURN_REWARD].tolist()))
        by_reward.add_row(name, *(_text(float(value.mean()), 3, sign=True) for value in pushes.values()))
    return [bias, noise, by_prompt, by_reward, *remarks(measured)]


def remarks(measured: OnTurns) -> list[str]:
    """Remarks on how to read these numbers."""
    first = (
        "The true gradient is that of the expected return, averaged over prompts: outcome 1 for a right answer, "
        f"{HIT_REWARD:g} for a call that finds something, {TURN_REWARD:g} for every further turn. Every batch of one "
        f"group of {measured.group_size} is enumerated: the numbers are exact."
    )
    critic = [
        f"'{VALUES_0.strip()[1:-1]}' is a critic that has learnt nothing; without it, values are the true ones."
        for name in measured.numbers
        if name.endswith(VALUES_0)
    ]
    variants = {variant.name: variant for variant in measured.variants.values()}
    return [first, *critic[:1], *more_than_reward(list(variants.values()))]


def turns_to_json(measured: OnTurns) -> dict[str, Any]:
    """Everything measured."""
    return {
        "form": "turns",
        "turns": measured.turns,
        "group_size": measured.group_size,
        "budget_tokens": BUDGET,
        "turn_reward": TURN_REWARD,
        "worth_of_a_call": worth(measured.policy),
        "true_push": _pushes(measured.true_pushes),
        "variants": {
            name: {
                "card": dict(variant.card()),
                **{key: _finite(value) for key, value in shown_turns(measured.numbers[name]).items()},
                "push": _pushes(measured.pushes[name]),
            }
            for name, variant in measured.variants.items()
        },
        "remarks": remarks(measured),
    }


def shown_turns(numbers: Mapping[str, float]) -> dict[str, float]:
    """The measures with biases as lengths, and the angle to the true gradient in degrees."""
    cosine = min(1.0, max(-1.0, numbers["cosine"]))  # rounding; NaN stays
    return shown(numbers) | {"angle": math.degrees(math.acos(cosine)) if math.isfinite(cosine) else cosine}


def _pushes(by_reward: Mapping[float, Tensor]) -> list[dict[str, Any]]:
    return [
        {"turn_reward": paid, "by_prompt": [_finite(value) for value in pushes.tolist()]}
        for paid, pushes in by_reward.items()
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float | None, digits: int = 3, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
