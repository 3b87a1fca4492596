"""The format reward: all marks once and in order, nothing but blanks outside."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import GrpoLabError
from core.environments.rewards.format_reward import think_answer
from core.parts.problems import Problem, Score

PROBLEM = Problem("2+2=", "4", 0)
GOOD = Score(1.0, correct=True, lenient=True)
BAD = Score(0.0, correct=False, lenient=False, cause="wrong format")


@pytest.mark.parametrize(
    "response",
    [
        "<think>2 and 2</think><answer>4</answer>",
        " <think>2 and 2</think>\n\n<answer>4</answer>\n",
        "<think></think><answer></answer>",
        "<think>a < b > c, <b>bold</b>\nand on</think>\t<answer>\\boxed{4}</answer>",
    ],
)
def test_well_formed(response: str) -> None:
    assert think_answer(PROBLEM, response) == GOOD


@pytest.mark.parametrize(
    "response",
    [
        "",
        "4",
        "<answer>4</answer>",
        "<think>2</think>",
        "<think>2</think><answer>4",
        "2</think><answer>4</answer>",
        "<answer>4</answer><think>2</think>",
        "<think>2<answer>4</answer></think>",
        "<think>2</think><answer>4</answer><answer>4</answer>",
        "<think>2</think><think>3</think><answer>4</answer>",
        "<think>2</think></think><answer>4</answer>",
        "<think>2</think> so <answer>4</answer>",
        "well: <think>2</think><answer>4</answer>",
        "<think>2</think><answer>4</answer>.",
        "<Think>2</Think><answer>4</answer>",
        "<think >2</think><answer>4</answer>",
        "<think>a <answer> is due</think><answer>4</answer>",
    ],
)
def test_malformed(response: str) -> None:
    assert think_answer(PROBLEM, response) == BAD


def test_other_tags() -> None:
    tags = ("plan", "code", "check")
    assert think_answer(PROBLEM, "<plan>a</plan><code>b</code> <check>c</check>", tags=tags) == GOOD
    assert think_answer(PROBLEM, "<plan>a</plan><check>c</check><code>b</code>", tags=tags) == BAD
    assert think_answer(PROBLEM, "<answer>4</answer>", tags=("answer",)) == GOOD
    # a tag that is none of the demanded ones is text like any other
    assert think_answer(PROBLEM, "<answer><think>4</answer>", tags=["answer"]) == GOOD


@pytest.mark.parametrize("tags", [(), ("think", "think"), ("<think>",), ("a b",), ("",)])
def test_tags_that_are_none(tags: tuple[str, ...]) -> None:
    with pytest.raises(GrpoLabError, match=r"think_answer\.tags = "):
        think_answer(PROBLEM, "", tags=tags)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " ", "\n"]), max_size=9))
def test_like_one_pattern_without_marks_inside(pieces: list[str]) -> None:
    text = "".join(pieces)
    marks = re.findall(r"</?(?:think|answer)>", text)
    once = sorted(marks) == ["</answer>", "</think>", "<answer>", "<think>"]
    whole = re.fullmatch(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", text, re.DOTALL)
    assert think_answer(PROBLEM, text).correct == (once and whole is not None)


def test_a_long_response_takes_no_long_time() -> None:
    assert think_answer(PROBLEM, "<think>" * 100_000 + "</answer>" * 100_000) == BAD
    assert think_answer(PROBLEM, "<think>" + "<" * 1_000_000 + "</think><answer></answer>") == GOOD
