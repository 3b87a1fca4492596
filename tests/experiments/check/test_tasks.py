"""What is reported of tasks: sizes, what the gold answer scores, worked solutions and the lengths of prompts."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from core import TASKS, Problem, reward
from core.parts.registry import config
from experiments.check.suite import Findings, examine
from tests.experiments.check.broken import Sums, outcome, part_of

SUMS = [{"question": f"{n}+1=", "answer": n + 1} for n in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def examined(path: str, *bindings: str) -> Findings:
    with config(bindings=(f"files.path = {path!r}", "files.template = 'plain'", *bindings)):
        return examine(TASKS["files"])


def reasons(findings: Findings) -> dict[str, str]:
    return {check.name: f"{outcome.state}: {outcome.reason}".removesuffix(": ") for check, outcome in findings.outcomes}


def test_a_file_of_questions_by_hand(tmp_path: Path) -> None:
    found = examined(
        write(tmp_path / "sums.jsonl", SUMS),
        "policy.model = 'embedded'",
        "train.max_tokens = 251",
        "train.rewards = [@math_answer, @think_answer]",
    )
    assert not found.failures
    assert reasons(found) == {
        "gives problems": "holds",
        "same problem every time": "holds",
        "splits apart": "holds",
        "questions to tune learning rates on": "holds",
        "sizes": "holds: train 45, test 11, tune 4",
        "rewards can start": "holds",
        "gold answers are right": "holds",
        "a response with the gold answer": "holds: math_answer 1, think_answer 0; written in \\boxed{...}",
        "worked solutions": "does not apply: there are none",
        "prompts fit the model": "holds",
        # 0+1= to 59+1=, where the context of 256 leaves 5
        "prompts": "holds: 4 to 5 tokens, of 5 that fit",
    }
    # one less than the longest
    too_long = examined(str(tmp_path / "sums.jsonl"), "policy.model = 'embedded'", "train.max_tokens = 252")
    ((check, outcome),) = too_long.failures
    assert check.name == "prompts fit the model"
    assert outcome.reason.startswith(f"47 of 56 do not: problem 2 of train ({tmp_path / 'sums.jsonl'}, line ")


def test_a_solution_that_is_wrong_is_reported_with_its_line(tmp_path: Path) -> None:
    rows = [row | {"solution": f"It is \\boxed{{{n + 1 + (n == 9)}}}."} for n, row in enumerate(SUMS)]
    found = reasons(examined(write(tmp_path / "sums.jsonl", rows)))
    wrong = found["worked solutions"]
    assert wrong.startswith("does not hold: 1 of 56 are taken for wrong, the first in problem ")
    assert wrong.endswith(f"{tmp_path / 'sums.jsonl'}, line 10)")
    # the answer in its column is right all the same
    assert found["gold answers are right"] == "holds"


def test_an_answer_that_the_reward_cannot_read_is_a_failure_with_its_line(tmp_path: Path) -> None:
    @reward
    def whole_number(problem: Problem, response: str) -> bool:
        """The answer, where it is a whole number."""
        return problem.answer.isdigit() and response == problem.answer

    rows = [row | ({"answer": "see the appendix"} if n == 9 else {}) for n, row in enumerate(SUMS)]
    found = examined(write(tmp_path / "sums.jsonl", rows), "train.rewards = [@whole_number]")
    ((check, outcome),) = found.failures
    assert check.name == "gold answers are right"
    assert f"{tmp_path / 'sums.jsonl'}, line 10): 'see the appendix'" in outcome.reason
    assert reasons(found)["a response with the gold answer"] == "holds: whole_number 1; written alone"


def test_what_cannot_be_built_is_said() -> None:
    demanding = part_of("reward", lambda problem, text: float(text == f"ANSWER: {problem.answer}"))
    part = part_of("task", lambda: Sums(rewards=(demanding,)))
    assert outcome(part, "gold answers are right").state == "does not apply"
    shown = outcome(part, "a response with the gold answer")
    assert shown.state == "does not hold"
    assert shown.reason.startswith("cannot be built: '<lambda>' takes the answer '5' for right neither alone, in ")
    without = part_of("task", lambda: Sums(answer=lambda right: ""))
    assert "neither an answer nor a data['solution']" in outcome(without, "a response with the gold answer").reason
    judged = part_of("task", lambda: Sums(rewards=(part_of("reward", demanding.function, together=True),)))
    assert "judges by a model" in outcome(judged, "a response with the gold answer").reason


def test_a_task_without_end_tells_how_much_it_repeats() -> None:
    sums = part_of("task", Sums)
    assert not examine(sums).failures
    assert outcome(sums, "sizes").reason == "no end; questions that differ: 50 of 200 in train, 50 of 200 in test"
    assert outcome(sums, "prompts").reason == "4 to 5 characters"


def test_what_must_be_bound_first_is_no_failure() -> None:
    found = examine(TASKS["files"])
    assert not found.failures
    assert {outcome.state for _, outcome in found.outcomes} == {"does not apply"}
    assert found.outcomes[0][1].reason == "files.path is not set: bind it, with -b or in a file behind -c"


def test_a_package_that_is_not_there_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with config(bindings=("reasoning_gym.dataset = 'chain_sum'",)):
        found = examine(TASKS["reasoning_gym"])
    assert not found.failures
    assert found.outcomes[0][1].reason.startswith("the task reasoning_gym needs the package reasoning-gym")


def test_a_reward_whose_package_is_not_there_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gold answers that are plain numbers need none, and so only the responses of a run would."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "math_verify" else found(name))
    ((check, outcome),) = examined(write(tmp_path / "sums.jsonl", SUMS)).failures
    assert check.name == "rewards can start"
    assert outcome.reason == (
        "math_answer needs the package math-verify for what a model may write, whatever the gold answers are: "
        "pip install 'grpo-lab[math]'"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "?", "answer": null}', "column 'answer' is None"),
        ('{"question": "?", "answer": "4"},', "not JSON"),
        (
            '{"question": [{"role": "human", "content": "?"}], "answer": "4"}',
            "column 'question' must end with a message of",
        ),
        ('{"input": "?", "target": "4"}', "no column 'question'"),
    ],
)
def test_a_file_with_a_mistake_is_a_failure_with_its_line_and_a_remedy_for_files(
    line: str, said: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "sums.jsonl", SUMS)
    with Path(file).open("a") as more:
        more.write(line + "\n")
    ((check, outcome),) = examined(file).failures
    assert check.name == "gives problems"
    assert outcome.reason.startswith(f"{tmp_path / 'sums.jsonl'}, line 61: {said}")
    assert "a line of the file is an object" in outcome.remedy
    assert "files.columns" in outcome.remedy
    assert "Problem(" not in outcome.remedy


def test_prompts_that_no_template_takes_are_said_once_for_all(tmp_path: Path) -> None:
    file = write(tmp_path / "sums.jsonl", SUMS)
    found = examined(file, "policy.model = 'embedded'", "files.template = 'chat'")
    ((check, outcome),) = found.failures
    assert check.name == "prompts fit the model"
    assert outcome.reason.startswith(
        "all 56: the prompts are chat messages, but the tokenizer of the model has no chat"
    )
    assert "policy.chat_template" in outcome.remedy
    assert "max_tokens" not in outcome.remedy


def test_a_data_set_of_reasoning_gym() -> None:
    with config(bindings=("reasoning_gym.dataset = 'chain_sum'",)):
        found = examine(TASKS["reasoning_gym"])
    assert not found.failures
    assert "verified 1" in reasons(found)["a response with the gold answer"]
