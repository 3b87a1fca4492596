"""A judge as a reward: what it is asked, what its answers come to, and a server that fails in every way it can."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from core import GrpoLabError, reward
from core.environments.judges import local as local_module
from core.environments.judges.local import LocalJudge
from core.environments.judges.prompts import JudgePrompter, pairs, read_principles, win_rates
from core.environments.rewards.judge import judge
from core.errors import MachineError
from core.loop.scoring import score, start
from core.model.loading import read_tokenizer
from core.model.policy import PolicySettings, load_policy
from core.parts.problems import Problem

PROBLEMS = [Problem("1+1=", "2", 0), Problem([{"role": "user", "content": "2+2="}], "4", 1)]


@dataclass
class FakeJudge:
    """A judge that answers by a function of the question, and records the questions."""

    answer: Callable[[str], float]
    questions: list[str] = field(default_factory=list)

    def prefer(self, questions: Sequence[str], words: Sequence[str]) -> list[float]:
        self.questions += questions
        return [self.answer(question) for question in questions]


def prompter(judge: FakeJudge, words: tuple[str, str] = ("A", "B"), *, reference: bool = False) -> JudgePrompter:
    return JudgePrompter(judge, "Be right.", words, reference)


def shown(question: str) -> list[str]:
    """The responses in a question."""
    return [part.partition(":\n")[2] for part in question.split("\n\n") if part.startswith("Response")]


# --- what is asked, and what the answers come to ---------------------------------------------------------------------


def test_a_question_holds_principles_question_and_response_and_the_right_answer_if_shown() -> None:
    judge = FakeJudge(lambda question: 0.25)
    assert prompter(judge, ("Yes", "No")).scores(PROBLEMS, [[">2"], [">5"]]) == [[0.25], [0.25]]
    assert judge.questions[1].startswith("Be right.\n\nQuestion:\n2+2=\n\nResponse:\n>5\n\n")
    assert judge.questions[1].endswith("Answer with Yes or No.")
    prompter(judge, ("Yes", "No"), reference=True).scores(PROBLEMS, [[">2"], [">5"]])
    assert "\n\nRight answer:\n4\n\nResponse:\n>5" in judge.questions[3]


def test_equal_responses_are_asked_about_once() -> None:
    judge = FakeJudge(lambda question: float(len(question)))
    ((a, b, c),) = prompter(judge, ("Yes", "No")).scores(PROBLEMS[:1], [[">2", ">22", ">2"]])
    assert a == c == b - 1
    assert len(judge.questions) == 2


@given(p=st.floats(0.0, 1.0), samples=st.integers(2, 6))
def test_a_judge_that_prefers_a_place_prefers_no_response(p: float, samples: int) -> None:
    """However strongly: 1 is the judge that always says A."""
    judge = FakeJudge(lambda question: p)
    texts = [[f">{n}" for n in range(samples)]]
    (rates,) = prompter(judge).wins(PROBLEMS[:1], texts, 8)
    assert rates == pytest.approx([0.5] * samples)
    assert len(judge.questions) == samples * (samples - 1)


def test_a_judge_that_knows_gives_each_its_share_of_wins() -> None:
    """Longer is better here: of three, the longest beats two, the middle one beats one."""
    judge = FakeJudge(lambda question: float(len(shown(question)[0]) > len(shown(question)[1])))
    assert prompter(judge).wins(PROBLEMS[:1], [["1", "111", "11"]], 8) == [[0.0, 1.0, 0.5]]


def test_a_strong_bias_is_cancelled_and_the_rest_is_kept() -> None:
    """By hand: P(A) is .9 with the better one first, .7 with the worse one first; (.9 + .3) / 2 = .6 for the better."""
    judge = FakeJudge(lambda question: 0.9 if shown(question)[0] == "good" else 0.7)
    assert prompter(judge).wins(PROBLEMS[:1], [["good", "bad"]], 8)[0] == pytest.approx([0.6, 0.4])


def test_equal_responses_draw_without_being_asked_about() -> None:
    judge = FakeJudge(lambda question: 1.0)
    assert prompter(judge).wins(PROBLEMS[:1], [["same", "same"]], 8) == [[0.5, 0.5]]
    assert judge.questions == []


def test_a_pair_that_was_judged_in_one_order_only_does_not_count() -> None:
    games = [(0, 1, math.nan, 0.2), (0, 2, 1.0, 0.0), (1, 2, math.nan, math.nan)]
    rates = win_rates(games, ["a", "b", "c"], 8)
    assert rates[::2] == [1.0, 0.0]
    assert math.isnan(rates[1])


def test_large_groups_meet_on_a_ring() -> None:
    assert pairs(4, 3) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert pairs(5, 3) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]


@given(samples=st.integers(2, 40), opponents=st.integers(2, 12))
def test_the_cost_of_a_group_is_bounded(samples: int, opponents: int) -> None:
    met = pairs(samples, opponents)
    assert len({frozenset(pair) for pair in met}) == len(met)
    each = Counter(i for pair in met for i in pair)
    assert set(each) == set(range(samples))
    assert max(each.values()) <= opponents
    assert len(set(each.values())) == 1


def test_principles_are_a_file_or_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Be brief.\n")
    assert read_principles(str(tmp_path / "mine.txt")) == "Be brief."
    assert "wrong final number" in read_principles("arithmetic")
    with pytest.raises(GrpoLabError, match="did you mean arithmetic"):
        read_principles("aritmetic")
    (tmp_path / "mine.txt").write_text("\n")
    with pytest.raises(GrpoLabError, match="is empty"):
        read_principles(str(tmp_path / "mine.txt"))


# --- a model that runs here ------------------------------------------------------------------------------------------

WORDS = ("1", "0")


@torch.no_grad()
def test_probabilities_are_those_of_the_plain_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P(1) / (P(1) + P(0)) with each question by itself, whatever is packed together."""
    questions = ["1+2=3;", "1+2=", "1+22;>", "1", "1+2=3;>7"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_folder), AutoTokenizer.from_pretrained(tiny_folder)
    expected = []
    for question in questions:
        ids = tokenizer(question + "\nVerdict:", return_tensors="pt")["input_ids"]
        p = model(input_ids=ids).logits[0, -1].softmax(-1)
        one, zero = (p[tokenizer(word)["input_ids"][0]] for word in WORDS)
        expected.append(float(one / (one + zero)))
    judge = LocalJudge(str(tiny_folder), "float32")
    preferences = judge.prefer(questions, WORDS)
    assert preferences == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1, "else the test could not fail"
    assert judge.prefer(questions, WORDS) == preferences
    monkeypatch.setattr(local_module, "MAX_TOKENS", 40)
    assert judge.prefer(questions, WORDS) == pytest.approx(expected, abs=1e-5)
    # one that nothing is shared with
    assert judge.prefer([*questions, "2+1="], WORDS)[:5] == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_a_chat_template_is_used_where_there_is_one(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = (
        "{% for m in messages %}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made = LocalJudge(str(tmp_path), "float32")
    ids = tokenizer(">1+2=", return_tensors="pt")["input_ids"]
    logits = AutoModelForCausalLM.from_pretrained(tiny_folder)(input_ids=ids).logits[0, -1]
    one, zero = (logits[tokenizer(word)["input_ids"][0]] for word in WORDS)
    assert made.prefer(["1+2"], WORDS) == pytest.approx([float(torch.sigmoid(one - zero))], abs=1e-5)


def test_what_does_not_fit_into_the_context_is_not_judged(tiny_folder: Path) -> None:
    preferences = LocalJudge(str(tiny_folder), "float32").prefer(["1" * 80, "1"], WORDS)
    assert math.isnan(preferences[0])
    assert 0 < preferences[1] < 1


def test_a_local_judge_as_a_reward(tiny_folder: Path, tmp_path: Path) -> None:
    """Values are those of the questions asked one by one, in both modes, and the same again."""
    roomy = load_policy(PolicySettings(str(tiny_folder)))
    roomy.model.config.max_position_embeddings = 512
    roomy.save(tmp_path / "roomy")
    (tmp_path / "p.txt").write_text("1")
    part = judge.using(model=str(tmp_path / "roomy"), principles=str(tmp_path / "p.txt"), verdicts=WORDS)
    texts = [[">2", ">3", ">2"], [">4", "2+2=4;>4", ""]]
    scores = score([part.resolved()], PROBLEMS, texts)
    assert scores.failed == ()
    assert torch.equal(scores.parts, score([part.resolved()], PROBLEMS, texts).parts)
    assert torch.equal(scores.correct, scores.parts[..., 0] > 0.5)
    alone = LocalJudge(str(tmp_path / "roomy"), "float32")
    one_by_one = JudgePrompter(alone, "1", WORDS, False).scores(PROBLEMS, texts)
    assert torch.allclose(scores.parts[..., 0], torch.tensor(one_by_one), atol=1e-5)
    assert scores.parts[0, 0] == scores.parts[0, 2]
    assert float(scores.parts.std()) > 1e-3
    won = score([part.using(mode="compare").resolved()], PROBLEMS, texts).parts
    assert won.mean(1).flatten().tolist() == pytest.approx([0.5, 0.5]), "what one wins another loses"


def test_a_local_judge_says_who_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("1")
    part = judge.using(
        model=str(tiny_folder), principles=str(tmp_path / "p.txt"), verdicts=WORDS, dtype="float32"
    ).resolved()
    description = start([part])["judge"]
    assert f"judge {tiny_folder} (float32), mode score, principles {tmp_path / 'p.txt'} (" in description
    assert "told the right answer" not in description
    # the questions are too long for a model of 64 tokens: no verdict, and every group is dropped
    assert score([part], PROBLEMS, [[">2", ">3"], [">4", ">5"]]).failed == (0, 1)
    (tmp_path / "p.txt").write_text("0")
    assert start([part])["judge"] != description, "other principles"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"judge.model is not set"),
        ({"model": "/nowhere"}, r"judge.model = '/nowhere': there is no such folder"),
        ({"model": "embedded"}, r"no single token for the verdict 'Yes'"),
        ({"model": "embedded", "mode": "compare"}, r"no single token for the verdict 'A'"),
        ({"model": "embedded", "verdicts": ("1", "1")}, r"cannot tell them apart"),
        ({"model": "embedded", "verdicts": ("1",)}, r"must be two words"),
        ({"model": "embedded", "mode": "scores"}, r"judge.mode = 'scores': must be 'score' or 'compare'"),
        ({"model": "embedded", "dtype": "fp8"}, r"judge.dtype = 'fp8'"),
        ({"model": "embedded", "principles": "/no/such.txt"}, r"judge.principles = '/no/such.txt'"),
        ({"model": "http://127.0.0.1:9/v1"}, r"judge.name is not set"),
        ({"model": "http://127.0.0.1:9/v1", "name": "j", "key_variable": "NO_SUCH_KEY"}, r"variable is not set"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        start([judge.using(**settings).resolved()])


def test_adapters_speak_with_the_tokenizer_of_the_model_they_adapt(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_folder)}))
    assert (
        read_tokenizer(str(tmp_path))("1+2")["input_ids"]
        == AutoTokenizer.from_pretrained(tiny_folder)("1+2")["input_ids"]
    )


def test_a_group_of_one_cannot_be_compared(tiny_folder: Path) -> None:
    part = judge.using(model=str(tiny_folder), mode="compare", verdicts=WORDS).resolved()
    with pytest.raises(GrpoLabError, match=r"one response only.*judge.mode = 'score'"):
        score([part], PROBLEMS, [[">2"], [">4"]])


def test_an_error_about_the_reward_itself_stops_the_run() -> None:
    def broke(problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Cannot work at all."""
        raise MachineError("the budget is spent")

    with pytest.raises(MachineError, match="budget is spent"):
        score([reward(together=True)(broke)], PROBLEMS, [[">2"], [">4"]])
