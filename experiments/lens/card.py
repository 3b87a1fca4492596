"""The lens's measurements as tables for a terminal and as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from core import Variant
from core.loop.recipe import Recipe
from experiments.lens.exact import Exact
from experiments.lens.measures import BUDGET, Estimate
from experiments.lens.on_model import OnModel
from experiments.lens.sampled import Measurement
from experiments.lens.step import token_constant

NOTHING = "–"


def exact_tables(exact: Exact) -> list[Table | str]:
    """The cards, the tables by group size, difficulty and length, and remarks."""
    main = exact.main(exact.variants[0].name)
    bias = lens_table(
        f"expected gradient against the true one: groups of {exact.group_size}, {main.rollouts} responses a batch, "
        f"{exact.batches} batches",
        ["", "scale", "factor", "bias", "direction bias", "cosine"],
        "scale: the best c in E[g] = c * true. factor: c times the constant that the aggregator divides a response's "
        "token sum by, if any; bias: relative, at that constant. direction bias: relative, after the best scale. "
        "± one standard error; < where noise covers it",
    )
    noise = lens_table(
        f"noise for {BUDGET} sampled tokens",
        ["", "variance", "mse", "signal to noise", "tokens a batch"],
        "variance and mean squared error: of g / c, relative to |true|². signal to noise: |E[g]|² over the variance of "
        "g. Tokens of greedy responses and of groups thrown away are counted",
    )
    for variant in exact.variants:
        n = exact.main(variant.name).numbers
        bias.add_row(
            variant.name,
            _text(n["scale"]),
            _text(n.get("factor")),
            _root(n.get("bias_squared")),
            _root(n["direction_bias_squared"]),
            _text(n["cosine"]),
        )
        noise.add_row(
            variant.name, _text(n["variance"]), _text(n["mse"]), _text(n["snr"], 2), f"{n['tokens'].value:.0f}"
        )
    tables: list[Table | str] = [bias, noise]
    for title, quantity, square in (
        (f"variance for {BUDGET} sampled tokens, by group size", "variance", False),
        ("direction bias, by group size", "direction_bias_squared", True),
    ):
        table = lens_table(title, ["", *(f"G = {size}" for size in exact.sizes)])
        for name, measured in exact.measured.items():
            numbers = [measured[size].numbers[quantity] if size in measured else None for size in exact.sizes]
            table.add_row(name, *(_root(n) if square else _text(n) for n in numbers))
        if len(exact.sizes) > 1:
            tables.append(table)
    table = lens_table(
        "scale of a prompt's own gradient over that of the whole, by the prompt's success probability",
        ["", *(f"{p:.2g}" for p in exact.policy.success.tolist())],
    )
    for name in exact.measured:
        table.add_row(
            name, *(_text(numbers_of_prompt["relative_scale"], 2) for numbers_of_prompt in exact.main(name).by_prompt)
        )
    tables.append(table)
    table = lens_table(
        "weight of a token by the length of its response, relative to the mean token of its prompt and verdict",
        ["", "", "1 token", *(f"{t} tokens" for t in range(2, exact.policy.responses.max_tokens + 1))],
    )
    for name in exact.measured:
        for verdict, weights in exact.main(name).weights.items():
            table.add_row(name if verdict == "wrong" else "", verdict, *(_text(weight, 2) for weight in weights))
    return [*tables, table, *remarks(exact)]


def remarks(exact: Exact) -> list[str]:
    """Remarks on how to read these numbers."""
    first = (
        "The true gradient is that of the plain expected reward, averaged over prompts. Sampling is on-policy, as in "
        "the first update of a rollout: no clip acts."
    )
    return [first, *more_than_reward(exact.variants), *exact.notes]


def more_than_reward(variants: Sequence[Variant]) -> list[str]:
    """A remark on each variant that optimises more than the expected reward."""
    terms = {variant.name: beside_reward(variant) for variant in variants}
    return [
        f"{name} optimises more than the reward: {', '.join(its)}. It counts as bias here."
        for name, its in terms.items()
        if its
    ]


def beside_reward(variant: Variant) -> list[str]:
    """What a variant optimises beside the expected reward, in words."""
    terms = [f"KL in the {variant.kl_place}, {variant.kl_coef:g}"] if variant.uses_kl else []
    terms += [f"shaping by {part.name}" for part in variant.shaping]
    terms += [f"rewards clipped at {variant.reward_clip:g}"] if variant.reward_clip is not None else []
    terms += [f"entropy, {variant.entropy_coef:g}"] if variant.entropy_coef else []
    return terms


def exact_to_json(exact: Exact) -> dict[str, Any]:
    """Everything measured, with errors."""
    policy = exact.policy
    success = policy.success.tolist()
    variants = {}
    for variant in exact.variants:
        measured = exact.measured[variant.name]
        main = exact.main(variant.name)
        variants[variant.name] = {
            "card": dict(variant.card()),
            "token_constant": token_constant(variant.aggregator, policy.responses.max_tokens),
            "beside_reward": beside_reward(variant),
            "by_group_size": {str(size): _measured(measurement) for size, measurement in measured.items()},
            "by_prompt": [
                {"success": p, **_numbers(numbers)} for p, numbers in zip(success, main.by_prompt, strict=True)
            ],
            "weights_by_length": {
                verdict: [weight.to_json() for weight in weights] for verdict, weights in main.weights.items()
            },
        }
    return {
        "form": "exact",
        "group_size": exact.group_size,
        "batches": exact.batches,
        "seed": exact.seed,
        "budget_tokens": BUDGET,
        "policy": {
            "success": success,
            "responses": policy.probabilities.shape[1],
            "vocabulary": policy.responses.vocabulary,
            "max_tokens": policy.responses.max_tokens,
        },
        "variants": variants,
        "remarks": remarks(exact),
    }


def _measured(measurement: Measurement) -> dict[str, Any]:
    return {"rollouts": measurement.rollouts, **_numbers(measurement.numbers)}


def _numbers(numbers: Mapping[str, Estimate]) -> dict[str, Any]:
    """Estimates as JSON; each estimated square also as its root, with an interval of two errors either way."""
    shown: dict[str, Any] = {name: estimate.to_json() for name, estimate in numbers.items()}
    for name, square in numbers.items():
        if name.endswith("_squared"):
            bounds = {"value": 0.0, "low": -2.0, "high": 2.0}
            roots = {at: math.sqrt(max(0.0, square.value + k * square.error)) for at, k in bounds.items()}
            finite = all(math.isfinite(root) for root in roots.values())
            shown[name.removesuffix("_squared")] = roots if finite else None
    return shown


def model_tables(lenses: Sequence[OnModel], shown: Mapping[str, Any]) -> list[Table | str]:
    """Agreement between variants on one pool, and how much of each gradient is noise."""
    noise = lens_table(
        f"gradients on {shown['model']}: one pool of {shown['prompts']} prompts x {shown['group_size']} responses, "
        f"accuracy {shown['accuracy']:.3f}",
        ["", "groups", "tokens", "norm", "split-half cosine", "variance"],
        "groups: trained on; tokens: sampled; split-half cosine: between two halves of the pool; variance: of the "
        "pool's gradient over its squared expectation, at the bare pool's number of tokens. ± spread over halvings of "
        "this pool",
    )
    cosines = lens_table("cosine between gradients on the whole pool", ["", *(lens.variant for lens in lenses)])
    for lens in lenses:
        noise.add_row(
            lens.variant,
            str(lens.groups),
            str(lens.tokens),
            f"{lens.norm:.3g}",
            _text(lens.split_cosine),
            _text(lens.variance),
        )
        cosines.add_row(lens.variant, *(_text(Estimate(cosine)) for cosine in lens.cosines.values()))
    return [noise, cosines]


def model_to_json(lenses: Sequence[OnModel], recipe: Recipe, model: str, accuracy: float, seed: int) -> dict[str, Any]:
    """Everything measured on a model."""
    return {
        "form": "model",
        "model": model,
        "prompts": recipe.prompts,
        "group_size": recipe.group_size,
        "seed": seed,
        "accuracy": accuracy,
        "variants": {
            lens.variant: {
                "groups": lens.groups,
                "tokens": lens.tokens,
                "norm": lens.norm,
                # of a gradient that is 0 there is none
                "cosines": {other: Estimate(cosine).to_json()["value"] for other, cosine in lens.cosines.items()},
                "split_cosine": lens.split_cosine.to_json(),
                "variance": lens.variance.to_json(),
            }
            for lens in lenses
        },
    }


def lens_table(title: str, columns: Sequence[str], caption: str = "") -> Table:
    """A table for a terminal of 80 columns: a long name is folded before a number is cut."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0 if len(columns) > 7 else 1, 0, 0),
        title=Text(title),
        title_justify="left",
        title_style="bold",
        caption=Text(caption) if caption else None,
        caption_justify="left",
    )
    table.add_column(columns[0], overflow="fold", min_width=6)
    for column in columns[1:]:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _text(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return NOTHING
    # without the leading zero: the tables are for 80 columns
    error = f"±{estimate.error:.{digits}f}".replace("±0.", "±.") if estimate.error > 0 else ""
    return f"{estimate.value:.{digits}f}{error}".replace("-", "−")


def _root(square: Estimate | None) -> str:
    """The root of an estimated square: with its error, or only a bound where noise covers it."""
    if square is None or not math.isfinite(square.value):
        return NOTHING
    if square.value > 2 * square.error:
        root = math.sqrt(square.value)
        return _text(Estimate(root, square.error / (2 * root)))
    return f"< {math.sqrt(max(0.0, square.value + 2 * square.error)):.3f}"
