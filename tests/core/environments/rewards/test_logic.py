"""Truth tables against plain enumeration, the parser by hand, and what is the task's mistake, not the response's."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import GrpoLabError
from core.environments.rewards.logic import truth_table, who_is_who
from core.environments.rewards.propositional import Formula, UnreadableError, parse, table, variables
from core.parts.problems import Problem, Score

TREES: Any = st.recursive(
    st.sampled_from(["p", "q", "r", True, False]),
    lambda inner: st.one_of(
        st.tuples(st.just("~"), st.tuples(inner)),
        st.tuples(st.sampled_from(["&", "|", "->", "<->", "xor"]), st.tuples(inner, inner)),
    ),
    max_leaves=12,
)


def value(tree: Any, world: dict[str, bool]) -> bool:
    if isinstance(tree, bool):
        return tree
    if isinstance(tree, str):
        return world[tree]
    sign, operands = tree
    one, *rest = [value(operand, world) for operand in operands]
    if sign == "~":
        return not one
    (two,) = rest
    return {"&": one and two, "|": one or two, "->": two or not one, "<->": one == two, "xor": one != two}[sign]


def spell(tree: Any) -> str:
    if isinstance(tree, bool | str):
        return str(tree)
    sign, operands = tree
    return f"~({spell(operands[0])})" if sign == "~" else f"({spell(operands[0])} {sign} {spell(operands[1])})"


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_tables_are_those_of_plain_enumeration(tree: Formula) -> None:
    names = ("p", "q", "r")
    rows = [dict(zip(names, row[::-1], strict=True)) for row in itertools.product((False, True), repeat=3)]
    expected = sum(value(tree, row) << i for i, row in enumerate(rows))
    assert table(tree, names) == expected
    # and the parser reads back what is written with brackets
    assert table(parse(spell(tree)), names) == expected


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("p & q | r", "(p & q) | r"),
        ("p | q & r", "p | (q & r)"),
        ("~p & q", "(~p) & q"),
        ("p -> q -> r", "p -> (q -> r)"),
        ("p | q -> r & s", "(p | q) -> (r & s)"),
        ("p <-> q -> r", "p <-> (q -> r)"),
        ("p xor q & r", "p xor (q & r)"),
        ("p xor q | r", "(p xor q) | r"),
        ("not p and q", "(~p) & q"),
        ("if p then q or r", "p -> (q | r)"),
        ("~(p) q", None),
        ("~~~p", "~p"),
        (r"\left(p \Rightarrow \neg q\right) \leftrightarrow r", "(p -> ~q) <-> r"),
        ("P_1 ∧ x2' ∨ ⊥", "(P_1 & x2') | false"),
        ("p if and only if q", "p <-> q"),
        ("orange & android", "(orange) & (android)"),
        ("p ^ q", None),
        ("p &", None),
        ("(p", None),
        ("p)", None),
        ("", None),
        ("p.q", None),
        ("1 + 1", None),
    ],
)
def test_formulas_by_hand(text: str, meaning: str | None) -> None:
    if meaning is None:
        with pytest.raises(UnreadableError):
            parse(text)
        return
    read, meant = parse(text), parse(meaning)
    assert variables(read) == variables(meant)
    assert table(read, variables(read)) == table(meant, variables(meant))


def judged(logic: dict[str, Any], answer: str) -> Score:
    score: Score = truth_table(Problem("", "", 0, {"logic": logic}), f"<answer>{answer}</answer>")
    return score


def test_hostile_formulas_are_refused_quickly() -> None:
    question = {"kind": "equivalent", "formula": "p"}
    assert judged(question, "(" * 5000 + "p" + ")" * 5000).cause == "formula too long"
    assert judged(question, "(" * 500 + "p" + ")" * 500).cause == "formula too deep"
    assert judged(question, "~" * 1000 + "p").correct
    assert judged(question, " -> ".join(["p"] * 900)).cause is None
    assert judged(question, " & ".join(["p"] * 900)).correct
    assert judged(question, " & ".join(f"x{i}" for i in range(25))).cause == "too many variables"
    assert who_is_who(
        Problem("", "", 0, {"islanders": {"A": True}}), "<answer>" + "A is " * 9999 + "</answer>"
    ).cause == ("answer too long")


def test_a_response_that_repeats_itself_is_read_in_linear_time() -> None:
    problem = Problem("", "", 0, {"islanders": {"A": True}})
    for piece in ("<answer>", "</answer>", "\\boxed{", "\\boxed{A is a knight} ", "the answer is ", "A is a knight. "):
        for form in ("answer_tag", "boxed", "mark"):
            began = time.process_time()
            who_is_who(problem, piece * 5000, form=form)
            assert time.process_time() - began < 2


def test_twenty_variables_are_judged_and_more_are_refused() -> None:
    ring = " & ".join(f"(x{i} -> x{(i + 1) % 20})" for i in range(20))
    question = {"kind": "entails", "premises": [ring], "conclusion": "x3 <-> x17"}
    assert judged(question, "yes").correct
    assert not judged(question, "no").correct
    with pytest.raises(GrpoLabError, match="21 variables; truth tables are made for at most 20"):
        judged({"kind": "satisfiable", "formula": " & ".join(f"x{i}" for i in range(21))}, "yes")


@pytest.mark.parametrize(
    ("logic", "message"),
    [
        ({"kind": "satisfied", "formula": "p"}, "'satisfied' is not a question"),
        (None, "None is not a question"),
        ({"kind": "entails", "premises": ["p"], "conclusio": "q"}, "lacks 'conclusion': did you mean conclusio"),
        ({"kind": "satisfiable", "formula": "p &"}, "of kind 'satisfiable': unreadable formula"),
    ],
)
def test_a_task_that_asks_nonsense_is_refused_with_a_message(logic: Any, message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        judged(logic, "yes")
    with pytest.raises(GrpoLabError, match=r"problem.data\['islanders'\] = None: must map"):
        who_is_who(Problem("", "", 0, {}), "A is a knight")
    with pytest.raises(GrpoLabError, match=r"who_is_who\.form = 'tags': must be 'answer_tag', 'boxed' or 'mark'"):
        who_is_who(Problem("", "", 0, {"islanders": {"A": True}}), "A is a knight", form="tags")


def test_forms() -> None:
    problem = Problem("", "", 0, {"islanders": {"A": True, "B": False}})
    right = "A is a knight, B is a knave"
    answers = {
        "answer_tag": f"<answer>{right}</answer>",
        "boxed": f"\\boxed{{\\text{{{right}}}}}",
        "mark": f"so > {right}",
    }
    for form in answers:
        for other, response in answers.items():
            score = who_is_who(problem, response, form=form)
            assert score.correct == (form == other)
            assert score.lenient
            assert score.value == float(score.correct)
    assert who_is_who(problem, f"<answer>{right}</answer> <answer>A, B are knights</answer>").cause == "several answers"
    assert who_is_who(problem, right).cause == "no answer in the demanded form"


@pytest.mark.parametrize(
    ("formula", "answer", "right"),
    [
        ("p & t", "p = T, t = T", True),
        ("p & t", "P = T, T = T", True),
        ("p & t", "p: T, t: T", True),
        ("p & ~t", "p = T, t = F", True),
        ("p & t", "p = T, t = F", False),
        ("p & ~f", "p = T, f = F", True),
        ("p & ~f", "p = T, f = T", False),
        ("p & t", "p, t = T", True),
        ("p & t", "p = t", False),
        ("p & t", "T", False),
    ],
)
def test_after_an_equals_sign_stands_a_value_though_a_variable_has_its_letter(
    formula: str, answer: str, right: bool
) -> None:
    assert judged({"kind": "assignment", "formula": formula}, answer).correct is right


def test_an_empty_form_before_a_filled_one_is_no_answer() -> None:
    problem = Problem("", "", 0, {"islanders": {"A": True, "B": False}})
    right = "<answer>A is a knight, B is a knave</answer>"
    assert who_is_who(problem, f"<answer></answer> {right}").correct
    assert who_is_who(problem, f"<answer> ... </answer> {right}").correct
    assert not who_is_who(problem, f"{right} <answer></answer>").correct
    assert not who_is_who(problem, f"<answer>A is a knave</answer> {right}").correct
    for thought in (f"<think>{right}", f"<think>{right}</think> I do not know.", f"{right} <think> but"):
        assert not who_is_who(problem, thought).lenient
