"""How an answer is read before it is compared: characters, units, labels, intervals, what the question asks; by hand.

Every rule stands beside what it must not take: 5² is no 52, 5 doubled no 5, 18 per cent no 18 a day.
"""

import time

import pytest

from core.environments.rewards import instructions
from core.environments.rewards.answers import find
from core.environments.rewards.characters import plain
from core.environments.rewards.quantities import Quantity, normalise
from core.environments.rewards.readings import interval, is_label, same_label, whole_set
from core.environments.rewards.thoughts import after_thoughts
from core.environments.rewards.units import same_unit, split_unit


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("７２", "72"),
        ("（１，２）", "(1,2)"),
        ("𝟕𝟐", "72"),
        ("72。", "72."),
        ("\u200b72\ufeff", "72"),
        ("−5", "-5"),
        ("10²³", "10^{23}"),
        ("10⁻⁵", "10^{-5}"),
        ("5²", "5^{2}"),
        ("x₁", "x_{1}"),
        ("√2", "\\sqrt{2}"),
        ("√12x", "\\sqrt{12}x"),
        ("√(1+√(2))", "\\sqrt{1+\\sqrt{2}}"),
        ("∛8", "\\sqrt[3]{8}"),
        ("sqrt(2)", "\\sqrt{2}"),
        ("2½", "2\\frac{1}{2}"),
        ("3⁄4", "3/4"),
        ("ℝ", "\\mathbb{R}"),
        ("ℯ", "e"),
        ("π", "\\pi "),
        ("Ⅸ", "IX"),
        ("1\u20632", "1,2"),
        ("2\u20623", "2\\cdot 3"),
        # no plain way of writing, or another one than its looks
        ("①", "①"),
        ("٥", "٥"),
        ("х", "х"),
        ("\u202e27", "\u202e27"),
        ("√", "√"),
        ("√(2", "√(2"),
        ("\\sqrt{2}", "\\sqrt{2}"),
    ],
)
def test_characters(text: str, read: str) -> None:
    assert plain(text) == read


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("18 per day", "18", "/day"),
        ("18 a day", "18", "/day"),
        ("$18 a day", "18", "$/day"),
        ("18/week", "18", "/week"),
        ("18 dollars per day", "18", "$/day"),
        ("€18", "18", "€"),
        ("18 £", "18", "£"),
        ("-\\$5", "-5", "$"),
        ("12 red balls", "12", "ball"),
        ("5 years old", "5", "year"),
        ("5\\text{ of them}", "5", None),
        ("5 in", "5", "in"),
        ("60 miles per hour", "60", "mi/h"),
        ("60 mph", "60", "mi/h"),
        ("5\\text{ m s}^{-1}", "5", "m/s"),
        ("5\\,\\mathrm{N}\\cdot\\mathrm{m}", "5", "N·m"),
        ("5 sq ft", "5", "ft^2"),
        ("5 m²", "5", "m^2"),
        ("3 people per car", "3", "person/car"),
        ("-(5)", "-5", None),
        ("5\\text{ each}", "5", None),
        ("20^\\circ\\mathrm{C}", "20", "°C"),
        ("18 per cent", "18", None),
        # no units
        ("5\\text{6}", None, None),
        ("5\\text{.5}", None, None),
        ("5\\text{,000}", None, None),
        ("5\\text{/2}", None, None),
        ("5\\mathrm{i}", None, None),
        ("5\\text{!}", None, None),
        ("5\\text{ if x>0, else 6}", None, None),
        ("5\\text{ is false}", None, None),
        ("5 doubled", None, None),
        ("5 doubled apples", None, None),
        ("10\\text{k}", None, None),
        ("10\\text{K}", None, None),
        ("300\\text{ K}", "300", "K"),
        ("5 in total", "5", None),
        ("5 total", "5", None),
        ("5 of", None, None),
        ("5 tens", None, None),
        ("5 a b", None, None),
        ("5nm", None, None),
        ("5x", None, None),
        ("6x\\text{ cm}", None, "cm"),
        ("5\\text{ dozen eggs}", None, None),
        ("5/abc", None, None),
        ("5 or more", None, None),
        ("5\\text{ minus 1}", None, None),
        ("-(-5)", None, None),
        ("5\\text{ in base }7", None, None),
    ],
)
def test_quantities(text: str, value: str | None, unit: str | None) -> None:
    quantity = Quantity.of(normalise(text))
    assert (quantity.value if quantity.value is None else str(quantity.value), quantity.unit) == (value, unit)


def test_units_that_are_the_same() -> None:
    assert same_unit("$/day", "/day")
    assert same_unit("pound", "£")
    assert same_unit("pound", "lb")
    assert not same_unit("lb", "£")
    assert not same_unit("$/day", "$")
    assert not same_unit("/day", "/week")
    assert not same_unit("$/day", "€/day")


def test_a_gold_answer_may_have_a_unit_that_is_not_known() -> None:
    assert split_unit("5\\text{ yak}", trusted=True) == ("5", "yak")
    assert split_unit("5\\text{ yak}") == ("5\\text{ yak}", None)
    assert split_unit("5\\text{ doubled}", trusted=True) == ("5\\text{ doubled}", None)


@pytest.mark.parametrize("text", ["IX", "HHT", "BCA", "cat", "13A", "A13", "1F", "F", "my", "kg", "x10"])
def test_labels(text: str) -> None:
    assert is_label(text)
    assert not same_label(text, text[::-1] + "x")


@pytest.mark.parametrize("text", ["xy", "mn", "2xy", "ab", "x", "17y", "x^2", "east", "3R^2"])
def test_products_and_words_are_no_labels(text: str) -> None:
    assert not is_label(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1\\le x<3", "[1,3)"),
        ("3>x\\ge 1", "[1,3)"),
        ("x>3", "(3,\\infty)"),
        ("3\\ge t", "(-\\infty,3]"),
        ("x<1 or x>3", "(-\\infty,1)\\cup (3,\\infty)"),
        ("x>1, x<3", None),
        ("1<x>3", None),
        ("x<1 or y>3", None),
        ("x+1<3", None),
        ("1<2", None),
        ("1<x<2<3", None),
    ],
)
def test_inequalities(text: str, line: str | None) -> None:
    assert interval(text) == line


def test_the_line_and_the_empty_set() -> None:
    assert whole_set("\\mathbb{R}") == whole_set("all real numbers") == whole_set("(-\\infty, +\\infty)")
    assert whole_set("\\{ \\}") == whole_set("the empty set") == "\\emptyset"
    for other in (
        "\\mathbb{R}^2",
        "(-\\infty,\\infty]",
        "\\{0\\}",
        "\\{\\emptyset\\}",
        "R",
        "all positive real numbers",
    ):
        assert whole_set(other) == other


def test_formulas_of_a_question() -> None:
    assert instructions.formulas("Expand (x+2)(x + 3).") == ["(x+2)(x + 3)"]
    assert instructions.formulas("Let $y = x^2$, then") == ["y = x^2", "y", "x^2"]
    assert instructions.formulas("Simplify √8, please") == ["\\sqrt{8}"]
    assert instructions.tasks("Expand and simplify") == ["expand", "simplify"]
    assert instructions.tasks("What is the greatest?") == []


def test_a_number_is_copied_only_where_it_is_to_be_written_otherwise() -> None:
    assert instructions.copies_number("Write 0.5 as a fraction.", "\\frac{1}{2}", "0.5")
    assert instructions.copies_number("Simplify 2/4", "\\frac{1}{2}", "2/4")
    # the same notation as the gold answer's, though the number is in the question by chance
    assert not instructions.copies_number("A coin lands on heads 1/2 of the time. Express ...", "\\frac{1}{2}", "1/2")
    assert not instructions.copies_number("Tom has 0.5 pies. How many?", "\\frac{1}{2}", "0.5")


def test_operators_left_to_be_carried_out() -> None:
    for answer in (
        "\\frac{d}{dx}x^2",
        "\\frac{\\text{d}}{\\text{d}x}x^2",
        "\\int 2x dx",
        "d/dx x^2",
        "\\lim_{x\\to 0} x",
    ):
        assert instructions.unevaluated("2x", answer)
        assert not instructions.unevaluated(answer, answer)
    assert not instructions.unevaluated("2x", "\\frac{d}{2}x")
    assert not instructions.unevaluated("2x", "2\\sin x")


def test_what_stands_after_thinking() -> None:
    assert after_thoughts("a<think>b</think>c") == "c"
    assert after_thoughts("b</think>c") == "c"
    assert after_thoughts("a<Thinking>b") == ""
    assert after_thoughts("a < think > b") == "a < think > b"


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{}",
        "\\boxed{\\boxed{1}} ",
        "<answer>",
        "<think>",
        "#### ,,,",
        "$$",
        "the answer is ",
        "√(",
        "。",
    ],
)
def test_hostile_responses_are_searched_in_linear_time(piece: str) -> None:
    start = time.process_time()
    find(piece * 20_000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "piece", ["√(", "\\text{", "a ", "\\text{a} ", "^", "/", "per ", "$", "(", "sqrt(", "x<", "½", "²"]
)
def test_hostile_answers_are_read_quickly(piece: str) -> None:
    text = (piece * 1000)[:1000]
    start = time.process_time()
    for variant in (text, "5" + text, text + "5"):
        Quantity.of(normalise(variant))
        interval(normalise(variant))
        instructions.formulas(variant)
    assert time.process_time() - start < 2
