"""Tasks: problems are a function of (split, seed, index), splits are disjoint, verifiers judge; the base is honest."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from core import GrpoLabError
from core.environments.sandbox import Sandbox, sandbox
from core.environments.tasks.chain_sums import chain_sums, final_digit
from core.environments.tasks.reasoning import _digest, extract_answer, reasoning_gym, verified
from core.generation.base import Request
from core.generation.native import native
from core.loop.scoring import start
from core.model.policy import PolicySettings, load_policy
from core.parts.problems import Problem, Score, Task
from core.randomness import key

needs_sandbox = pytest.mark.skipif(sandbox().level not in ("bubblewrap", "namespaces"), reason=str(sandbox()))


def arithmetic() -> Task:
    made: Task = reasoning_gym(dataset="chain_sum", parameters={"min_terms": 2, "max_terms": 2, "max_digits": 1})
    return made


def text(problem: Problem) -> str:
    return problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]


@pytest.mark.parametrize("make", [chain_sums, arithmetic])
def test_a_problem_depends_on_split_seed_and_index_alone(make: type[Task]) -> None:
    one, other = make(), make()
    for split in ("train", "tune", *one.suites):
        assert [text(one.problem(split, 3, i)) for i in range(5)] == [
            text(other.problem(split, 3, i)) for i in range(5)
        ]
        assert [text(one.problem(split, 3, i)) for i in range(9)] != [text(one.problem(split, 4, i)) for i in range(9)]


@pytest.mark.parametrize("make", [chain_sums, arithmetic])
def test_no_question_is_in_two_splits(make: type[Task]) -> None:
    made = make()
    prompts = {
        s: {text(made.problem(s, seed, i)) for seed in range(3) for i in range(300)} for s in ("train", "tune", "test")
    }
    assert not prompts["train"] & prompts["test"]
    assert not prompts["train"] & prompts["tune"]
    assert not prompts["tune"] & prompts["test"]
    with pytest.raises(GrpoLabError, match="no split 'validation'"):
        made.problem("validation", 0, 0)


def test_chain_sums_by_hand() -> None:
    problem = Problem("4+8+7=", "9", 0)
    assert final_digit(problem, ">9.") == Score(1.0, correct=True, lenient=True)
    assert final_digit(problem, "4+8=2;2+7=9;>9") == Score(1.0, correct=True, lenient=True)
    assert final_digit(problem, "4+8=2;2+7=9") == Score(0.0, correct=False, lenient=True, cause="no final answer")
    assert final_digit(problem, ">8.") == Score(0.0, correct=False)
    made = chain_sums().problem("train", 0, 0)
    assert made.answer == str(sum(map(int, str(made.prompt).rstrip("=").split("+"))) % 10)
    longer = [str(chain_sums().problem("test_long", 0, i).prompt).count("+") + 1 for i in range(50)]
    assert set(longer) == {7, 8}


def test_questions_of_a_mixture_name_their_source() -> None:
    parts: list[dict[str, Any]] = [{"name": name, "weight": 1, "config": {}} for name in ("chain_sum", "leg_counting")]
    mixed: Task = reasoning_gym(dataset="composite", parameters={"datasets": parts})
    assert {mixed.problem("test", 0, i).family for i in range(12)} == {"chain_sum", "leg_counting"}
    assert reasoning_gym(dataset="chain_sum").problem("test", 0, 0).family == ""
    with pytest.raises(GrpoLabError, match=r"reasoning_gym.dataset = 'composite'"):
        reasoning_gym(dataset="composite", parameters={"datasets": [{"nam": "chain_sum"}]})


def test_reasoning_gym_answers_are_extracted_and_verified() -> None:
    assert extract_answer("2 + 3 = 5") == "5"
    assert extract_answer("about 1,234.5 of 7, <answer> 1,000 </answer>") == "1,000"
    assert extract_answer("so -1,200.") == "-1200"
    assert extract_answer("none") is None
    problem = arithmetic().problem("train", 0, 0)
    assert verified(problem, f"That is {problem.answer}.").correct
    assert not verified(problem, f"That is {int(problem.answer) + 1}.").correct
    assert verified(problem, "I do not know.").cause == "no answer"
    with pytest.raises(GrpoLabError, match=r"reasoning_gym.dataset = 'chain_smu'"):
        reasoning_gym(dataset="chain_smu")


@needs_sandbox
def test_a_verifier_that_evaluates_does_not_run_the_response(tmp_path: Path) -> None:
    task: Task = reasoning_gym(dataset="countdown")
    problem = task.problem("train", 0, 0)
    description = start([verified.resolved()], task)["verified"]
    assert description.startswith("verifier of countdown, in a process of its own, 3 s an answer; code sandbox: ")
    forged = f"<answer>__import__('os').system('touch {tmp_path}/run') or {problem.answer}</answer>"
    assert verified(problem, forged) == Score(0.0, correct=False, cause="would run as a program")
    assert not list(tmp_path.iterdir())
    patched = "<answer>setattr(__import__('reasoning_gym').games.countdown, 'sorted', lambda _: 0)</answer>"
    assert not verified(problem, patched).correct
    assert not verified(problem, "<answer>1</answer>").correct
    assert verified(problem, f"<answer>{problem.answer}</answer>") == Score(1.0, correct=True, lenient=True)
    slow = verified(problem, "<answer>9**9**9</answer>", seconds=0.3)
    assert slow == Score(0.0, correct=False, cause="too slow to check")


@needs_sandbox
@pytest.mark.parametrize(
    ("dataset", "finding"),
    [
        ("puzzle24", "the verifier of puzzle24 accepts the answers to other problems, in 20 of 20 cases"),
        ("game_of_life_halting", "accepts 'I do not know' to 5 of 5 problems; it accepts the question as the answer"),
        ("rush_hour", "the verifier of rush_hour refuses its own answer to 5 of 5 problems"),
        ("acre", "'acre' cannot make a problem: IndexError"),
    ],
)
def test_a_verifier_that_is_seen_to_be_wrong_is_refused(dataset: str, finding: str) -> None:
    task: Task = reasoning_gym(dataset=dataset)
    with pytest.raises(GrpoLabError, match=re.escape(finding)):
        start([verified.resolved()], task)


def test_a_level_that_a_machine_does_not_give_and_another_task_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without = Sandbox("rlimits", {"bubblewrap": "bwrap is not installed"})
    monkeypatch.setattr("core.environments.sandbox.probe._cached", [without])
    with pytest.raises(GrpoLabError, match=r"no sandbox at level 'namespaces'.*verified.level = 'rlimits'"):
        start([verified.resolved()], arithmetic())
    with pytest.raises(GrpoLabError, match=r".verified. works with the task reasoning_gym only"):
        start([verified.resolved()], chain_sums())


def test_a_data_set_of_few_questions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = reasoning_gym(dataset="chain_sum")
    monkeypatch.setattr(type(task.source.dataset), "__getitem__", lambda *_: {"question": "?", "answer": "1"})
    split = "test" if _digest("?")[0] % 8 != 1 else "tune"
    with pytest.raises(GrpoLabError, match="'chain_sum' has too few questions: none of 1000 falls into the split"):
        task.problem(split, 0, 0)


def test_the_embedded_base_is_half_able() -> None:
    """Sampled accuracy between 0.2 and 0.4, pass@8 above 0.6, and longer chains than it was made for are hard."""
    policy, generator = load_policy(PolicySettings("embedded", "float32")), native()
    right = {}
    for split in ("test", "test_long"):
        problems = [chain_sums().problem(split, 0, i) for i in range(100)]
        request = Request([policy.tokens(p) for p in problems], samples=8, max_tokens=56, noise_key=key(0, "eval"))
        (responses,) = generator.generate(policy, [request])
        rows = zip(responses.tokens.flatten(0, 1), responses.mask.flatten(0, 1), strict=True)
        texts = policy.texts([tokens[mask] for tokens, mask in rows])
        scores = [final_digit(problems[i // 8], answer).correct for i, answer in enumerate(texts)]
        right[split] = torch.tensor(scores).view(100, 8)
    assert 0.2 < right["test"].float().mean() < 0.4
    assert right["test"].any(1).float().mean() > 0.6
    assert right["test_long"].float().mean() < right["test"].float().mean()
