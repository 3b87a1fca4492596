"""The math verifier against pairs labelled by hand, and its options.

`math_pairs.jsonl` holds gold answer, response, demanded form, the two right verdicts, and the question if it matters.
Labels by hand follow the rules that the module states, and were written before the code was tried on them; those "by
construction" come from `make_math_pairs.py`.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from core import GrpoLabError
from core.environments.rewards import math_checker
from core.environments.rewards.answers import boxes, find, gold
from core.environments.rewards.math import math_answer
from core.environments.rewards.quantities import normalise, number
from core.environments.rewards.units import split_unit
from core.parts.problems import Problem, Score

PAIRS: Final = [json.loads(line) for line in Path(__file__).with_name("math_pairs.jsonl").read_text().splitlines()]
MISSES: Final = {
    ("7", "7</answer>"): "a tag whose beginning is missing",
    ("7", "The answer is 7, obviously."): "a word behind the number that is no unit",
}
"""Right answers that are not recognised, and why."""


def judge(answer: str, response: str, prompt: str = "", **options: Any) -> Score:
    """The score of a response to a problem with this answer."""
    return Score.of(math_answer(Problem(prompt, answer, 0), response, **options))


@pytest.mark.slow
def test_the_labelled_pairs() -> None:
    """No wrong answer is accepted, and fewer than one right one in fifty is refused: these, by name."""
    assert len(PAIRS) >= 2000

    def grade(pair: dict[str, Any]) -> Score:
        return judge(pair["gold"], pair["response"], pair.get("prompt", ""), form=pair["form"], seconds=5.0)

    accepted, refused = [], {}
    with ThreadPoolExecutor(math_checker.MAX_PROCESSES) as pool:
        scores = list(pool.map(grade, PAIRS))
    for pair, score in zip(PAIRS, scores, strict=True):
        if (score.correct and not pair["strict"]) or (score.lenient and not pair["lenient"]):
            accepted.append((pair, score))
        if (pair["strict"] and not score.correct) or (pair["lenient"] and not score.lenient):
            refused[pair["gold"], pair["response"]] = score
        assert score.value == float(score.correct)
        assert score.lenient or not score.correct
    assert accepted == []
    assert refused.keys() == MISSES.keys()
    assert len(refused) < 0.02 * sum(pair["lenient"] for pair in PAIRS)


def test_no_pair_is_there_twice_and_the_labels_are_consistent() -> None:
    keys = {(pair["gold"], pair["response"], pair["form"], pair.get("prompt")) for pair in PAIRS}
    assert len(keys) == len(PAIRS)
    made = [pair["strict"] for pair in PAIRS if pair.get("by") == "construction"]
    assert len(made) >= 300
    assert 0.3 < sum(made) / len(made) < 0.5  # a grader that says yes, or no, to all would fail
    assert all(pair["lenient"] or not pair["strict"] for pair in PAIRS)
    assert {pair["form"] for pair in PAIRS} == {"boxed", "hash", "answer_tag", "any"}


def test_a_copy_of_the_question_is_not_worked_out() -> None:
    problem = Problem("Expand $(x+2)(x+3)$.", "x^2+5x+6", 0)
    copied = Score.of(math_answer(problem, "\\boxed{(x+2)(x+3)}"))
    assert copied == Score(0.0, False, lenient=True, cause="not worked out")
    assert Score.of(math_answer(problem, "\\boxed{6+5x+x^2}")).correct
    assert Score.of(math_answer(problem, "\\boxed{(x+2)(x+3)=x^2+5x+6}")).correct
    larger = Problem("Which is larger, 1/2 or 0.25?", "\\frac{1}{2}", 0)
    assert Score.of(math_answer(larger, "\\boxed{1/2}")).correct  # what is asked for may stand in the question


@pytest.mark.parametrize(
    ("question", "answer", "copies", "worked_out"),
    [
        (
            "Expand (x+2)(x+3).",
            "x^2+5x+6",
            ["(x+2)(x+3)+0", "(x+3)(x+2)", "1(x+2)(x+3)", "\\frac{(x+2)(x+3)}{1}", "(x+2)(x+3)+1-1", "x(x+3)+2(x+3)"],
            ["6+5x+x^2", "x\\cdot x+5x+6"],
        ),
        (
            "Factor x²+5x+6",
            "(x+2)(x+3)",
            ["x^2+5x+6+0", "5x+x^2+6", "x(x+5)+6", "1(x^2+5x+6)"],
            ["(x+3)(x+2)", "(3+x)(x+2)+0"],
        ),
        ("Factor $x^3-x$.", "x(x-1)(x+1)", ["x(x^2-1)"], ["(x+1)x(x-1)"]),
        (
            "Factor 60 into primes.",
            "2^2 \\cdot 3 \\cdot 5",
            ["60", "60+0", "6\\cdot 10"],
            ["5\\cdot 3\\cdot 2\\cdot 2"],
        ),
        (
            "Simplify √8",
            "2\\sqrt{2}",
            ["\\sqrt{8}+0", "√8", "8^{1/2}", "\\sqrt{4}\\sqrt{2}"],
            ["2√2", "\\sqrt2 \\cdot 2"],
        ),
        ("Simplify $\\frac{x^2-1}{x-1}$.", "x+1", ["(x^2-1)/(x-1)", "\\frac{-1+x^2}{x-1}"], ["1+x"]),
        ("Simplify 50/100.", "\\frac{1}{2}", ["50/100", "\\frac{25}{50}"], ["1/2", "0.5"]),
        ("Write 0.5 as a fraction.", "\\frac{1}{2}", ["0.5", "0.5+0"], ["1/2"]),
        (
            "Find the derivative of sin²x.",
            "2\\sin x\\cos x",
            ["\\frac{d}{dx}\\sin^2 x", "\\frac{d}{dx}(\\sin x)^2"],
            ["\\sin 2x", "2\\cos x \\sin x"],
        ),
        ("Which is larger, 1/2 or 0.25?", "\\frac{1}{2}", [], ["1/2", "0.5"]),
        ("Solve $x+y=5$ for $y$.", "5-x", ["5-x+\\int_0^0 x dx"], ["y=-x+5"]),
    ],
)
def test_the_question_is_not_its_answer(question: str, answer: str, copies: list[str], worked_out: list[str]) -> None:
    def score(text: str) -> Score:
        return Score.of(math_answer(Problem(question, answer, 0), f"\\boxed{{{text}}}"))

    assert {text: score(text) for text in copies} == {
        text: Score(0.0, False, lenient=True, cause="not worked out") for text in copies
    }
    assert all(score(text).correct for text in (answer, *worked_out))


@pytest.mark.parametrize("digits", [1001, 5000])
def test_bounds_hold_for_the_gold_answer_too(digits: int) -> None:
    assert judge("6" * digits, "\\boxed{6}").cause == "gold answer too long"
    assert judge("6", "\\boxed{" + "6" * digits + "}").cause == "answer too long"
    assert judge("6" * digits, "\\boxed{6}", compare="integer").cause == "gold answer too long"


@pytest.mark.parametrize(
    ("form", "right"), [("boxed", "\\boxed{7}"), ("hash", "#### 7"), ("answer_tag", "<answer>7</answer>")]
)
def test_the_demanded_form(form: str, right: str) -> None:
    assert judge("7", right, form=form) == Score(1.0, correct=True, lenient=True)
    for other in {"\\boxed{7}", "#### 7", "<answer>7</answer>", "The answer is 7.", "It is 7"} - {right}:
        assert judge("7", other, form=form) == Score(0.0, False, lenient=True, cause="not in the demanded form")
        assert judge("7", other, form="any").correct


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        ("I do not know.", "no answer"),
        ("\\boxed{8}", None),
        ("\\boxed{7} \\boxed{8}", "several answers"),
        ("\\boxed{7x+" + "1+" * 500 + "1}", "answer too long"),
        ("\\boxed{" + "(" * 31 + "x" + ")" * 31 + "}", "unparsable"),
        ("\\boxed{x^}", "unparsable"),
        ("".join(f"\\boxed{{{i}}}" for i in range(25)), "several answers"),
        ("\\boxed{" + ",".join("x" * 25) + "}", None),
    ],
)
def test_causes(response: str, cause: str | None) -> None:
    assert judge("7", response) == Score(0.0, correct=False, lenient=False, cause=cause)


def test_a_number_not_worked_out_is_right_leniently() -> None:
    assert judge("391", "\\boxed{17*23}") == Score(0.0, correct=False, lenient=True, cause="not worked out")
    assert judge("17y", "\\boxed{34y/2}").correct


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("25", "025", True),
        ("025", "25", True),
        ("1080", "1,080", True),
        ("-5", "-5", True),
        ("25", "25.0", False),
        ("25", "50/2", False),
        ("25", "25 cm", False),
        ("25", "26", False),
        ("25", "2 5", False),
        ("25", "٢٥", False),
    ],
)
def test_integers_alone(answer: str, response: str, right: bool) -> None:
    assert judge(answer, f"\\boxed{{{response}}}", compare="integer").correct is right


def test_integers_alone_need_an_integer() -> None:
    with pytest.raises(GrpoLabError, match="compare = 'integer', but the problem's answer is '1/2'"):
        judge("1/2", "\\boxed{1}", compare="integer")


@pytest.mark.parametrize(
    ("response", "right"), [("to be", True), (" to  be\n", True), ("To be", False), ("to be.", False)]
)
def test_strings_alone(response: str, right: bool) -> None:
    assert judge("to be", f"<answer>{response}</answer>", form="answer_tag", compare="string").correct is right


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "box"}, "form = 'box': must be 'boxed', 'hash'"),
        ({"compare": "exact"}, "compare = 'exact'"),
        ({"seconds": 0}, "seconds = 0"),
        ({"seconds": float("nan")}, "seconds = nan"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        judge("7", "\\boxed{7}", **options)


@pytest.mark.parametrize("answer", ["", "  ", "$$", "\\boxed{}", "####"])
def test_an_empty_gold_answer_is_refused(answer: str) -> None:
    with pytest.raises(GrpoLabError, match="problem 0 has the answer"):
        judge(answer, "\\boxed{}")


def test_without_the_package_plain_numbers_are_still_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    math_checker.end_checkers()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert judge("0.5", "\\boxed{\\frac{1}{2}}").correct
    with pytest.raises(GrpoLabError, match="pip install 'grpo-lab\\[math\\]'"):
        judge("\\sqrt{8}", "\\boxed{2\\sqrt{2}}")


def test_finding_boxes() -> None:
    assert boxes("\\boxed{a} \\fbox{\\frac{1}{2}} \\boxed {c}") == ["a", "\\frac{1}{2}", "c"]
    assert boxes("\\boxed{\\{1\\}} {x} } \\boxed{a") == ["\\{1\\}"]
    assert boxes("\\boxed{\\boxed{a}b}") == ["\\boxed{a}b"]
    assert boxes("\\boxed{ $\\boxed{\\boxed{a}}$ }") == ["a"]
    assert boxes("\\boxed{\\boxed{a}\\boxed{b}}") == ["\\boxed{a}\\boxed{b}"]
    assert boxes("\\boxed{ \\boxed{a}") == ["a"]


def test_the_forms_in_order() -> None:
    assert find("the answer is 1, #### 2\n<answer>3</answer> \\boxed{4} 5") == [
        ("box", "4"),
        ("hash", "2"),
        ("tag", "3"),
    ]
    assert find("the answer is 1. It is 2") == [("phrase", "1")]
    assert find("It is 1, then 2.") == [("number", "2")]
    assert find("\\boxed{1}</think> It is 2") == [("number", "2")]
    assert find("<answer>\\boxed{4}</answer>") == [("box", "4"), ("tag", "4")]
    assert find("none") == []


def test_an_empty_form_before_a_filled_one_is_no_answer() -> None:
    assert find("\\boxed{} \\boxed{...} <answer>$$</answer> \\boxed{7}") == [("box", "7")]
    assert find("\\boxed{7} <answer></answer>") == [("box", "7"), ("tag", "")]
    assert find("\\boxed{}") == [("box", "")]


def test_what_is_thought_is_no_answer() -> None:
    assert find("<think>\\boxed{5}") == find("\\boxed{5}<think>no") == find("<Thinking>It is 5") == []
    assert find("<think>\\boxed{5}</think> \\boxed{6}") == [("box", "6")]


def test_a_heading_is_no_answer() -> None:
    assert find("#### Step 1\n3+4\n#### 2. Add\n#### 7") == [("hash", "7")]
    assert find("#### Step 1\n\\boxed{7}\n#### Check") == [("box", "7")]
    assert find("\\boxed{7}\n#### 8") == [("box", "7"), ("hash", "8")]
    assert find("#### Day\n#### Monday") == [("hash", "Monday")]


def test_gold_answers_of_data_sets() -> None:
    assert gold("She sold 48/2 = <<48/2=24>>24 clips.\n#### 24") == "24"
    assert gold("so $x = \\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert gold(" 073 ") == "073"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.50", "2469/2"),
        ("1 234", "1234"),
        (".5", "1/2"),
        ("-3/4", "-3/4"),
        ("1 1/2", "3/2"),
        ("-1 1/2", "-3/2"),
        ("\\frac12", "1/2"),
        ("2\\frac{1}{4}", "9/4"),
        ("1e3", "1000"),
        ("6.02\\times 10^{2}", "602"),
        ("0.1\\overline{6}", "1/6"),
        ("1e9999", None),
        ("1/0", None),
        ("1,23", None),
        ("1.2.3", None),
        ("x", None),
        ("1 23", None),
        ("--1", None),
        ("", None),
        ("-", None),
    ],
)
def test_numbers(text: str, value: str | None) -> None:
    parsed = number(text)
    assert (None if parsed is None else str(parsed)) == value


@pytest.mark.parametrize(
    ("text", "rest", "unit"),
    [
        ("5 cm", "5", "cm"),
        ("5\\text{ centimeters}", "5", "cm"),
        ("5 square meters", "5", "m^2"),
        ("5 apples", "5", "apple"),
        ("90^\\circ", "90", "°"),
        ("5 million", "5 million", None),
        ("5x", "5x", None),
        ("5 xy", "5 xy", None),
        ("\\text{east}", "\\text{east}", None),
        ("\\sqrt{2}\\text{ m}", "\\sqrt{2}", "m"),
        ("5 units", "5", None),
    ],
)
def test_units(text: str, rest: str, unit: str | None) -> None:
    assert split_unit(text) == (rest, unit)


def test_one_spelling() -> None:
    assert normalise(" $\\left( \\dfrac{1}{2},\\, 3 \\right)$. ") == "( \\frac{1}{2}, 3 )"
    assert normalise("**1{,}000**") == "1,000"
    assert normalise("\\$5.00") == "5.00 dollars"
    assert normalise("2**3") == "2^3"


@pytest.mark.parametrize(
    ("question", "gold_answer", "answer", "strict"),
    [
        (r"Simplify $\frac{x^2-1}{x-1}$.", "x+1", r"\frac{(x-1)(x+1)}{x-1}", False),
        (r"Simplify $\frac{x^2-1}{x-1}$.", "x+1", r"\frac{2x^2-2}{2x-2}", False),
        (r"Simplify $\frac{x^2-1}{x^2-x}$.", r"\frac{x+1}{x}", r"\frac{x^2+x}{x^2}", False),
        (r"Simplify $\frac{x^2-1}{x^2-x}$.", r"\frac{x+1}{x}", r"\frac{1+x}{x}", True),
        (r"Simplify $\frac{x^2-1}{x^2-x}$.", r"\frac{x+1}{x}", r"1+\frac{1}{x}", True),
        (r"Simplify $\frac{x^2-1}{x-1}$.", "x+1", "1+x", True),
        ("Combine like terms: 2x+3x", "5x", "4x+x", False),
        (r"Divide $x^2-1$ by $x^2-x$.", r"\frac{x+1}{x}", r"\frac{x^2+x}{x^2}", True),  # no form is asked for
    ],
)
def test_what_is_to_be_simplified_has_no_factor_above_and_below(
    question: str, gold_answer: str, answer: str, strict: bool
) -> None:
    score = judge(gold_answer, rf"\boxed{{{answer}}}", question)
    assert (score.correct, score.lenient) == (strict, True)
    assert score.cause == (None if strict else "not worked out")
