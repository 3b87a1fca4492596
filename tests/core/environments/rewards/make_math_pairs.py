"""Writes the generated part of `math_pairs.jsonl`; the pairs labelled by hand are kept as they are.

No label comes from the code under test: a value is drawn, written as the gold answer, and written again in one of many
notations (right), or another value, or something that only looks like it, is written so (wrong). Products and roots are
worked out here, with whole numbers.

    python tests/core/environments/rewards/make_math_pairs.py
"""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("math_pairs.jsonl")
FORMS = {
    "boxed": "So \\boxed{%s}.",
    "hash": "So\n#### %s",
    "answer_tag": "<answer>%s</answer>",
    "any": "The answer is %s",
}
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
WIDE = {code: 0xFEE0 + code for code in range(0x21, 0x7F)}
BOLD = {ord(str(digit)): 0x1D7CE + digit for digit in range(10)}
THINGS = ("stamps", "chairs", "green bottles", "students", "people", "cans of soup", "\\text{ coins}", "\\text{ trees}")
MEASURES = (
    "km",
    "kg",
    "ft",
    "meters",
    "square feet",
    "gallons",
    "\\text{ cm}",
    "\\ \\mathrm{kg}",
    "\\text{ mL}",
    "km/h",
)
RATES = ("per week", "a month", "per hour", "each", "an hour", "per box", "every day")
SIGNS = (("€%s", "%s euros"), ("£%s", "%s GBP"), ("¥%s", "%s yen"), ("\\$%s", "%s dollars"), ("₹%s", "%s rupees"))


class Pairs:
    """What has been written."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def add(
        self, family: str, gold: str, response: str, right: bool, *, lenient: bool | None = None, **more: str
    ) -> None:
        form = more.get("form", "boxed")
        pair = {"family": family, "gold": gold, "response": response, "form": form, "strict": right}
        pair["lenient"] = right if lenient is None else lenient
        if "prompt" in more:
            pair["prompt"] = more["prompt"]
        self.made.append(pair | {"by": "construction"})

    def written(
        self, family: str, gold: str, right: Iterable[str], wrong: Iterable[str], form: str = "boxed", prompt: str = ""
    ) -> None:
        """The contents of forms."""
        for answer, label in [*((text, True) for text in right), *((text, False) for text in wrong)]:
            self.add(family, gold, FORMS[form] % answer, label, form=form, prompt=prompt)


def other(rng: random.Random, value: int) -> int:
    """A value that somebody might take for this one."""
    turned = int(str(abs(value))[::-1])
    return rng.choice([new for new in (value + 1, value - 1, value * 10, -value, turned) if new not in (value, 0)])


def characters(pairs: Pairs, rng: random.Random) -> None:
    """Digits, signs and blanks of other alphabets."""
    spellings: tuple[Callable[[str], str], ...] = (
        lambda text: text.translate(WIDE),
        lambda text: text.translate(BOLD),
        lambda text: f"\u200b{text}\ufeff",
        lambda text: f"{text}。",
        lambda text: f"\u2060{text}\u00a0",
        lambda text: text.replace("-", "−"),
        lambda text: f"\u2009{text}\u200e",
    )
    for spell in spellings:
        value, pair = rng.randint(-999, 999), (rng.randint(2, 9), rng.randint(11, 99))
        pairs.written("characters", str(value), [spell(str(value))], [spell(str(other(rng, value)))])
        shown = f"({pair[0]},{pair[1]})"
        pairs.written("characters", shown, [spell(shown)], [spell(f"({pair[1]},{pair[0]})")])
    for base, power in ((10, 12), (2, 15), (7, 3)):
        joined, up = f"{base}{power}", str(power).translate(RAISED)
        pairs.written(
            "characters",
            f"{base}^{{{power}}}",
            [f"{base}{up}"],
            [joined, f"{base}{up[::-1]}"] if len(up) > 1 else [joined],
        )
        pairs.written("characters", joined, [], [f"{base}{up}"])
    pairs.written("characters", "12", [], ["①②", "१२", "\u202e21", "1\u20632", "¹²", "1̸2"])
    pairs.written("characters", "x^5", ["x⁵", "𝑥^5"], ["х^5", "x₅", "x5"])
    pairs.written("characters", "x_5", ["x₅"], ["x⁵"])


def empty_forms(pairs: Pairs, rng: random.Random) -> None:
    """Forms without content, forms in forms, and thoughts."""
    for _ in range(5):
        value = rng.randint(10, 99)
        wrong = other(rng, value)
        for form in ("boxed", "answer_tag"):
            first, right, last = (FORMS[form] % text for text in ("", str(value), str(wrong)))
            for response, label in (
                (f"{first} {right}", True),
                (f"{first} {last}", False),
                (f"{last} {first} {right}", False),
                (f"{right} {first}", False),
                (f"{first} {right} {last}", False),
            ):
                pairs.add("empty", str(value), response, label, form=form)
        pairs.written(
            "nested",
            str(value),
            [f"\\boxed{{{value}}}", f"$\\boxed{{\\fbox{{{value}}}}}$"],
            [f"\\boxed{{{wrong}}}", f"\\boxed{{{value}}}{wrong}", f"1\\boxed{{{value}}}"],
        )
        inside = FORMS["boxed"] % value
        for response, label in (
            (f"<think>{inside}</think> {FORMS['boxed'] % wrong}", False),
            (f"<think>{inside}", False),
            (f"<think>{inside}</think> None of these.", False),
            (f"<think>{wrong}?</think> {inside}", True),
        ):
            pairs.add("thoughts", str(value), response, label)
        pairs.written(
            "line",
            str(value),
            [f"{value},", f"{value}。", f"{value} ;"],
            [f"{value},{wrong}", f"{value}!", f"{wrong},", f"{value}/"],
            form="hash",
        )


def units(pairs: Pairs, rng: random.Random) -> None:
    """What is counted or measured, what it is per, money, and what is none of these."""
    for unit in (*THINGS, *MEASURES, *RATES):
        value = rng.randint(2, 400)
        pairs.written(
            "units", str(value), [f"{value} {unit}"], [f"{other(rng, value)} {unit}"], form=rng.choice(["any", "boxed"])
        )
    for mark, word in SIGNS:
        value, rate = rng.randint(2, 400), rng.choice(RATES[:2])
        bad = other(rng, value)
        pairs.written(
            "money",
            str(value),
            [mark % value, f"{mark % value} {rate}", f"{word % value} {rate}"],
            [mark % abs(bad), f"{word % bad} {rate}"] if abs(bad) != value else [f"{word % bad} {rate}"],
        )
        pairs.written("money", mark % value, [word % value], [f"{value} francs", f"{value} kg"])
    for one, two in (
        ("per day", "per week"),
        ("km", "km/h"),
        ("kg", "g"),
        ("dollars", "cents"),
        ("miles per hour", "km/h"),
    ):
        pairs.written("units", f"8 {one}", [f"8.0 {one}"], [f"8 {two}"])
    pairs.written(
        "units", "8\\text{ m/s}", ["8 meters per second", "8\\text{ m s}^{-1}"], ["8\\text{ m s}", "8\\text{ s/m}"]
    )
    for behind in (
        "\\text{7}",
        "\\text{.2}",
        "\\text{,500}",
        "\\text{/3}",
        "\\mathrm{i}",
        "\\text{!}",
        "\\text{ if }n>1",
        "\\text{k}",
        "\\text{ is impossible}",
        " tripled",
        " tens",
        "\\text{ hundreds}",
        " cubed",
        "\\text{e}",
        "\\text{x}",
        " a b",
        "nm",
        "\\text{ unless } x=1",
        " negated",
        "\\text{ no}",
        "\\text{ or fewer}",
        "\\text{-}1",
        "\\text{ times itself}",
        "x\\text{ cm}",
    ):
        value = rng.randint(2, 90)
        pairs.written("no unit", str(value), [], [f"{value}{behind}"])


def numbers(pairs: Pairs, rng: random.Random) -> None:
    """Signs before brackets, powers of ten, roots, e and i."""
    for _ in range(5):
        value, power = rng.randint(2, 99), rng.randint(4, 30)
        pairs.written(
            "sign",
            str(-value),
            [f"-({value})", f"−{{{value}}}", f"(-{value})"],
            [f"({value})", f"-({value + 1})", f"-[-{value}]"],
        )
        pairs.add("sign", str(-value), f"\\boxed{{-({value - 1}+1)}}", False, lenient=True)
        mantissa = rng.choice(("4.5", "7", "1.25"))
        up, more = str(power).translate(RAISED), str(power + 1).translate(RAISED)
        pairs.written(
            "powers of ten",
            f"{mantissa} \\times 10^{{{power}}}",
            [f"{mantissa} × 10{up}", f"{mantissa}x10^{power}"],
            [f"{mantissa} × 10{more}", f"{mantissa} × 10 {power}", f"{mantissa}{up}"],
        )
        root, factor = rng.choice((2, 3, 5, 7, 11)), rng.randint(2, 9)
        pairs.written(
            "root",
            f"{factor}\\sqrt{{{root}}}",
            [f"{factor}√{root}", f"√{factor * factor * root}", f"{factor}√({root})"],
            [f"√{factor}·{root}", f"√{factor * root}", f"{root}√{factor}", f"{factor + 1}√{root}"]
            if factor != root
            else [f"√{factor * root + 1}", f"{factor + 1}√{root}"],
        )
        pairs.written(
            "e",
            f"e^{factor}",
            [f"\\mathrm{{e}}^{{{factor}}}", f"ℯ^{factor}"],
            [f"\\mathrm{{e}}^{{{factor + 1}}}", f"{factor}\\mathrm{{e}}"],
        )
        pairs.written(
            "i",
            f"{value}+{factor}i",
            [f"{value}+{factor}\\mathrm{{i}}"],
            [f"{value}+{factor}", f"{factor}+{value}\\mathrm{{i}}", str(value + factor)],
        )
        pairs.written(
            "i", f"{value}+{factor}\\mathrm{{i}}", [f"{factor}i+{value}"], [str(value + factor), f"{value}-{factor}i"]
        )


def sets(pairs: Pairs, rng: random.Random) -> None:
    """The empty set, the line, intervals as inequalities, and values with names."""
    pairs.written(
        "sets",
        "\\emptyset",
        ["\\{\\}", "\\left\\{ \\right\\}", "the empty set"],
        ["\\{0\\}", "\\{\\{\\}\\}", "\\{x\\}"],
    )
    pairs.written(
        "sets",
        "(-\\infty,\\infty)",
        ["\\mathbb{R}", "ℝ", "all real numbers", "x \\in \\mathbb{R}"],
        [
            "\\mathbb{Z}",
            "\\mathbb{R}^2",
            "[-\\infty,\\infty]",
            "\\mathbb{R}^+",
            "(0,\\infty)",
            "all positive real numbers",
        ],
    )
    for _ in range(4):
        low, high, name = rng.randint(-9, 0), rng.randint(1, 9), rng.choice("xyt")
        pairs.written(
            "inequality",
            f"[{low},{high})",
            [f"{low} \\le {name} < {high}", f"{high} > {name} ≥ {low}"],
            [f"{low} < {name} < {high}", f"{low} \\le {name} \\le {high}", f"{high} \\le {name} < {low}"],
        )
        pairs.written(
            "inequality",
            f"(-\\infty,{low})\\cup({high},\\infty)",
            [f"{name}<{low} \\text{{ or }} {name}>{high}"],
            [f"{name}<{low} \\text{{ or }} {name}\\ge {high}", f"{low}<{name}<{high}"],
        )
        one, two = rng.sample(range(2, 60), 2)
        pairs.written(
            "names",
            f"x={one}, y={two}",
            [f"y={two}, x={one}", f"{one}, {two}", f"{one} = x, {two} = y"],
            [f"{two}, {one}", f"x={two}, y={one}", f"\\{{{one},{two}\\}}", f"a={one}, b={two}"],
        )
        pairs.written(
            "names",
            str(one),
            [f"{one} = {name}"],
            [f"{two} = {name}", f"{one} = 2{name}", f"{one} = {name} = {two}", f"{one} = \\pi"],
        )


def labels(pairs: Pairs, rng: random.Random) -> None:
    """Words and codes, and the same letters in another order."""
    for label in (
        "IV",
        "XL",
        "VIII",
        "THT",
        "HTTH",
        "CAB",
        "DBA",
        "tea",
        "gum",
        "now",
        "17C",
        "2A",
        "B4",
        "E",
        "Q7",
        "RSS",
        "CD",
    ):
        turned = (
            next(text for text in ("".join(rng.sample(label, len(label))) for _ in range(99)) if text != label)
            if len(label) > 1
            else f"1{label}"
        )
        gold = rng.choice((label, f"\\text{{{label}}}"))
        pairs.written(
            "label",
            gold,
            [rng.choice((label, f"\\text{{{label}}}", f"\\mathrm{{{label}}}"))],
            [turned, f"\\text{{{turned}}}"],
        )
    pairs.written("label", "3pq", ["3qp", "q \\cdot 3p"], ["3p", "pq3"])
    pairs.written("label", "rs", ["sr", "r \\cdot s"], ["r+s", "rss"])


def copies(pairs: Pairs, rng: random.Random) -> None:
    """Questions in which the answer is asked for in another form."""
    for _ in range(4):
        one, two = rng.sample([number for number in range(-8, 9) if number], 2)
        terms = f"x^2{one + two:+d}x{one * two:+d}"
        product, turned = f"(x{one:+d})(x{two:+d})", f"(x{two:+d})(x{one:+d})"
        backwards = f"{one * two}{one + two:+d}x+x^2"
        for prompt in (f"Expand ${product}$.", f"Expand {product}"):
            pairs.written("copy", terms, [backwards], [], prompt=prompt)
            for copied in (product, turned, f"{product}+0", f"1{product}", f"{product}+3-3"):
                pairs.add("copy", terms, f"\\boxed{{{copied}}}", False, lenient=True, prompt=prompt)
        prompt = f"Factor ${terms}$ completely."
        pairs.written("copy", product, [turned], [], prompt=prompt)
        for copied in (terms, backwards, f"{terms}+0", f"x(x{one + two:+d}){one * two:+d}"):
            pairs.add("copy", product, f"\\boxed{{{copied}}}", False, lenient=True, prompt=prompt)
    for factor, root in ((2, 3), (3, 2), (5, 6)):
        under = factor * factor * root
        prompt = f"Simplify √{under}."
        pairs.written(
            "copy",
            f"{factor}\\sqrt{{{root}}}",
            [f"{factor}√{root}", f"\\sqrt{{{root}}}\\cdot {factor}"],
            [],
            prompt=prompt,
        )
        for copied in (
            f"√{under}",
            f"\\sqrt{{{under}}}+0",
            f"1\\sqrt{{{under}}}",
            f"\\sqrt{{{factor * factor}}}\\sqrt{{{root}}}",
        ):
            pairs.add("copy", f"{factor}\\sqrt{{{root}}}", f"\\boxed{{{copied}}}", False, lenient=True, prompt=prompt)
    for function, slope in (("x^4", "4x^3"), ("\\cos x", "-\\sin x"), ("x^2-5x", "2x-5")):
        prompt = f"Find the derivative of ${function}$."
        pairs.written("copy", slope, [slope], [], prompt=prompt)
        pairs.add("copy", slope, f"\\boxed{{\\frac{{d}}{{dx}}({function})}}", False, lenient=True, prompt=prompt)


def make(rng: random.Random) -> list[dict[str, Any]]:
    pairs = Pairs()
    for family in (characters, empty_forms, units, numbers, sets, labels, copies):
        family(pairs, rng)
    return pairs.made


if __name__ == "__main__":
    lines = FILE.read_text().splitlines()
    by_hand = [line for line in lines if "by" not in json.loads(line)]
    known = {(pair["gold"], pair["response"], pair["form"]) for pair in map(json.loads, by_hand)}
    new = {(pair["gold"], pair["response"], pair["form"], pair.get("prompt")): pair for pair in make(random.Random(0))}
    made = [json.dumps(pair) for key, pair in new.items() if key[:3] not in known]
    FILE.write_text("\n".join([*by_hand, *made]) + "\n")
