"""What the lens measured of every shipped variant: what docs/variants.md and `grpolab describe` show of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path(__file__).with_name("variants.json")
ON_POLICY: Final = ("factor", "direction_bias_squared", "variance", "snr", "tokens")
OFF_POLICY: Final = ("scale", "direction_bias", "variance")


def shown_of(exact: Mapping[str, Any], off_policy: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of the lens's own JSON, on-policy at one group size and at two ages."""
    return {
        **{key: exact[key] for key in ("group_size", "batches", "seed")},
        "off_policy": {key: off_policy[key] for key in ("group_size", "at", "nats_a_token")},
        "variants": {
            name: {
                "beside_reward": variant["beside_reward"],
                "on_policy": _only(ON_POLICY, variant["by_group_size"][str(exact["group_size"])]),
                "off_policy": [_only(OFF_POLICY, numbers) for numbers in off_policy["variants"][name]["at"]],
            }
            for name, variant in exact["variants"].items()
        },
    }


def _only(names: tuple[str, ...], numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: numbers[name] for name in names if name in numbers}


def on_policy(figures: Mapping[str, Any], name: str) -> dict[str, str]:
    """A variant's figures as text; bias and variance are relative to a gradient, where there is one to be seen."""
    numbers = figures["variants"][name]["on_policy"]
    signal = numbers["snr"]
    is_seen = signal["value"] is not None and signal["value"] > 2 * signal["error"]
    return {
        "factor": _number(numbers.get("factor")),
        "direction bias": _root(numbers["direction_bias_squared"]) if is_seen else "-",
        "variance": _number(numbers["variance"]) if is_seen else "-",
        "signal to noise": _number(numbers["snr"]),
        "tokens a batch": f"{numbers['tokens']['value']:.0f}",
    }


def off_policy(figures: Mapping[str, Any], name: str) -> dict[int, dict[str, str]]:
    """Its figures by age, which are exact; `-` where its gradient does not go along the true one at all."""
    return {
        age: {
            title: f"{numbers[key]:.3f}" if numbers[key] is not None and numbers["scale"] > 0 else "-"
            for title, key in {"direction bias": "direction_bias", "variance": "variance"}.items()
        }
        for age, numbers in zip(figures["off_policy"]["at"], figures["variants"][name]["off_policy"], strict=True)
    }


def _number(estimate: Mapping[str, float | None] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.3f} ± {estimate['error']:.3f}"


def _root(square: Mapping[str, float | None]) -> str:
    """The root of an estimated square, or the bound that noise leaves."""
    value, error = square["value"], square["error"]
    if value is None or error is None:
        return "-"
    if value > 2 * error:
        root = math.sqrt(value)
        return f"{root:.3f} ± {error / (2 * root):.3f}"
    return f"< {math.sqrt(max(0.0, value + 2 * error)):.3f}"
