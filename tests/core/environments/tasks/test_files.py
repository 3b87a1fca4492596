"""Questions from files: layouts by columns, splits that cannot overlap, and messages that name the place."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from core import GrpoLabError
from core.environments.rewards.countdown import countdown
from core.environments.tasks.files import R1_ZERO, files
from core.environments.tasks.layouts import read
from core.environments.tasks.splits import SPLITS, tenth


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plain(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(start, start + n)]


def questions_of(task: Any, split: str, n: int, seed: int = 0) -> list[str]:
    return [task.problem(split, seed, i).prompt[-1]["content"] for i in range(n)]


ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 1,004"},
    "math": {"problem": "Halve one.", "level": "Level 1", "solution": "It is $\\boxed{1}$, or \\boxed{\\frac{1}{2}}."},
    "countdown": {"nums": [3, 5, 7], "target": 22},
    "mbpp": {
        "task_id": 1,
        "text": "Add.",
        "code": "def add(a, b): return a + b",
        "test_setup_code": "",
        "test_list": ["assert add(1, 2) == 3"],
    },
    "plain": {"problem": "Three and four?", "answer": 7},
}


def test_layouts_are_recognised_by_their_columns(tmp_path: Path) -> None:
    questions = {name: read(write(tmp_path / f"{name}.jsonl", [row]))[0] for name, row in ROWS.items()}
    assert (questions["gsm8k"].text, questions["gsm8k"].answer) == ("Two and two?", "1004")
    assert (questions["math"].text, questions["math"].answer) == ("Halve one.", "\\frac{1}{2}")
    assert questions["countdown"].data == {"numbers": [3, 5, 7], "target": 22}
    assert "3, 5, 7" in questions["countdown"].text
    assert "22" in questions["countdown"].text
    assert questions["mbpp"].data == {"tests": ["assert add(1, 2) == 3"]}
    assert "assert add(1, 2) == 3" in questions["mbpp"].text
    assert "return a + b" not in questions["mbpp"].text
    assert (questions["plain"].text, questions["plain"].answer) == ("Three and four?", "7")
    assert questions["plain"].place == f"{tmp_path / 'plain.jsonl'}, line 1"


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", [{"input": "One?", "gold": "1", "question": "no"}])
    (question,) = read(path, columns={"question": "input", "answer": "gold"})
    assert (question.text, question.answer) == ("One?", "1")
    with pytest.raises(GrpoLabError, match=r"no column 'inptu' \(files.columns, question\): did you mean input"):
        read(path, columns={"question": "inptu", "answer": "gold"})
    with pytest.raises(GrpoLabError, match=r"the part 'qestion': did you mean question"):
        read(path, columns={"qestion": "input", "answer": "gold"})


def test_splits_are_by_hash_and_streams_go_through_every_question_once(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", plain(200))
    made = files(path=path)
    assert made.suites == ("test",)
    sizes = {split: len(made.questions[split]) for split in SPLITS}
    assert sum(sizes.values()) == 200
    parts = {split: set(questions_of(made, split, n)) for split, n in sizes.items()}
    assert {split: len(part) for split, part in parts.items()} == sizes
    assert all(tenth(question) in SPLITS[split] for split, part in parts.items() for question in part)
    n = sizes["train"]
    assert sorted(questions_of(made, "train", 2 * n)[n:]) == sorted(parts["train"])
    assert questions_of(made, "train", 2 * n)[n:] != questions_of(made, "train", n)
    assert questions_of(made, "train", 9, seed=1) != questions_of(made, "train", 9)
    # a pure function of split, seed and index, also in a task made anew
    assert files(path=path).problem("train", 5, 300) == made.problem("train", 5, 300)
    # the place in the file plays no part in the split
    reversed_path = write(tmp_path / "reversed.jsonl", plain(200)[::-1])
    assert {q.text for q in files(path=reversed_path).questions["test"]} == parts["test"]
    with pytest.raises(GrpoLabError, match="no split 'dev'; it has: train, tune, test"):
        made.problem("dev", 0, 0)


def test_given_splits_must_not_overlap(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", plain(60)), write(tmp_path / "test.jsonl", plain(20, 60))
    made = files(path={"train": train, "test": test, "hard": write(tmp_path / "hard.jsonl", plain(5, 90))})
    assert made.suites == ("test", "hard")
    assert len(made.questions["test"]) == 20
    assert len(made.questions["train"]) + len(made.questions["tune"]) == 60
    assert {tenth(q.text) for q in made.questions["tune"]} == set(SPLITS["tune"])
    # the same words with other blanks are the same question
    same = write(tmp_path / "same.jsonl", [*plain(3, 70), {"question": "What  is 7 + 1?", "answer": 8}])
    with pytest.raises(
        GrpoLabError, match=r"'train' and 'test' overlap: .*train.jsonl, line 8 and .*same.jsonl, line 4"
    ):
        files(path={"train": train, "test": same})
    with pytest.raises(GrpoLabError, match="give 'train' and at least one test split"):
        files(path={"train": train})


def test_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", plain(60))
    chat = files(path=path, system="Be brief.", turns=[("user", "What is 1 + 1?"), ("assistant", "2")])
    prompt: Any = chat.problem("train", 0, 0).prompt
    assert [turn["role"] for turn in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[0]["content"] == "Be brief."
    bare = str(files(path=path, template="plain").problem("train", 0, 0).prompt)
    assert bare == prompt[-1]["content"]
    zero = files(path=path, template="r1_zero")
    assert zero.problem("train", 0, 0).prompt == R1_ZERO.replace("{question}", bare)
    assert str(zero.problem("train", 0, 0).prompt).endswith(f"User: {bare}. Assistant:")
    # the template asks for tags, so the verifier demands them
    assert zero.rewards[0].set_values == {"form": "answer_tag"}
    assert chat.rewards[0].set_values == {}
    with pytest.raises(GrpoLabError, match="did you mean r1_zero"):
        files(path=path, template="r1zero")
    with pytest.raises(GrpoLabError, match="no place for a system prompt"):
        files(path=path, template="plain", system="Be brief.")


def test_each_layout_has_its_judge(tmp_path: Path) -> None:
    rows = {
        "countdown": [{"nums": [i, 1], "target": i + 1} for i in range(60)],
        "mbpp": [{**ROWS["mbpp"], "text": f"Add {i}."} for i in range(60)],
        "plain": plain(60),
    }
    judges = {name: files(path=write(tmp_path / f"{name}.jsonl", r)).rewards[0].name for name, r in rows.items()}
    assert judges == {"countdown": "countdown", "mbpp": "code_tests", "plain": "math_answer"}
    problem = files(path=str(tmp_path / "countdown.jsonl")).problem("train", 0, 0)
    n = problem.data["numbers"][0]
    assert countdown(problem, f"<answer>1 + {n}</answer>").correct


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"question": "a", "answer": "1"}', "{question: 1}"], "line 2: not JSON"),
        (['{"question": "a", "answer": "1", "answer": "2"}'], "line 1: not JSON: the name 'answer' appears twice"),
        (
            ['{"question": "a", "answer": "1", "extra": {"b": 1, "c": 2, "b": 3}}'],
            "line 1: not JSON: the name 'b' appears twice",
        ),
        (['{"question": "a", "answer": "1"}', "", "[1]"], "line 3: a JSON object was expected, not list"),
        (
            ['{"question": "a", "answer": "1"}', '{"question": "b", "anwser": "1"}'],
            "line 2: no column 'answer': did you mean anwser",
        ),
        (
            ['{"question": "a", "answer": "#### 1"}', '{"question": "b", "answer": "2"}'],
            "line 2: column 'answer' has no final answer after ####",
        ),
        (['{"question": "", "answer": "1"}'], "line 1: column 'question' is '', not text"),
        (['{"question": "a", "answer": null}'], "line 1: column 'answer' is None"),
        (['{"problem": "a", "solution": "\\\\boxed{1"}'], r"line 1: column 'solution' has no complete \\boxed"),
        (['{"nums": "1 2", "target": 3}'], "line 1: column 'nums' is '1 2', not a list of whole numbers"),
        (['{"nums": [1, 2], "target": "3"}'], "line 1: column 'target' is '3', not a whole number"),
        (['{"text": "a", "test_list": "assert f(1)"}'], "line 1: column 'test_list' is"),
        (['{"foo": 1, "bar": 2}'], "columns foo, bar, which fit no layout"),
        (['{"question": "a", "answer": "1"}', '{"question": " a", "answer": "2"}'], "line 2 asks what .*line 1 asks"),
        ([], "has no questions"),
        (['{"question": "a", "answer": NaN}'], "line 1: column 'answer' is nan, neither text nor a finite number"),
        (['{"question": "a", "answer": 1e999}'], "line 1: column 'answer' is inf, neither text nor a finite number"),
        (['{"question": "a", "answer": true}'], "line 1: column 'answer' is True, neither"),
        (['{"nums": [1, true], "target": 3}'], "line 1: column 'nums' is .*, not a list of whole numbers"),
        (['{"nums": [1], "target": true}'], "line 1: column 'target' is True, not a whole number"),
        (['{"question": "a", "answer": "1"}', '{"a": ' + "[" * 100_000], "line 2: not JSON: nested too deeply"),
        (['{"question": "\\ud83d", "answer": "1"}'], "line 1: not UTF-8: .*surrogates not allowed"),
        (['{"text": "a", "test_list": ["assert f(1) == 1", "assert f("]}'], r"line 1: column 'test_list': .*\[1\] = '"),
        (['{"text": "a", "test_list": ["print(1)"]}'], "line 1: column 'test_list': .*mend the test or remove the row"),
        (['{"problem": "a", "solution": "", "answer": NaN}'], "line 1: column 'answer' is nan"),
        (['{"problem": "a", "solution": "5"}'], r"has no complete .*: add one, or a column 'answer'"),
        (['{"prompt": [{"role": "user"}], "answer": "1"}'], "line 1: column 'prompt' is .*not a list of messages"),
        (['{"prompt": [{"role": "user", "content": [{"type": "text"}]}], "answer": "1"}'], "not a list of messages"),
        (
            ['{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "answer": "1"}'],
            "line 1: column 'prompt' must end with a message of the user: its roles are user, assistant",
        ),
        (['{"messages": [{"role": "user", "content": "a"}]}'], "line 1: there is no column 'answer', and no"),
        (['{"messages": [], "answer": "1"}'], "line 1: column 'messages' is \\[\\], not a list of messages"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(GrpoLabError, match=message):
        read(str(path))


def test_missing_files_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "sums.jsonl", plain(60))
    with pytest.raises(GrpoLabError, match=r"no file .*sum.jsonl: did you mean sums.jsonl"):
        read(str(tmp_path / "sum.jsonl"))
    (tmp_path / "sums.txt").write_text("")
    with pytest.raises(GrpoLabError, match=r"must end in .jsonl or .parquet"):
        read(str(tmp_path / "sums.txt"))
    with pytest.raises(GrpoLabError, match=r"files.layout = 'gsm8': did you mean gsm8k"):
        read(path, layout="gsm8")
    (tmp_path / "sums.parquet").write_text("")
    for module in ("pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GrpoLabError, match="needs pyarrow: pip install"):
        read(str(tmp_path / "sums.parquet"))
    with pytest.raises(GrpoLabError, match="needs the package datasets"):
        read("datasets:openai/gsm8k,main:train")


def test_datasets_are_asked_for_by_id_config_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, Any]]:
        requests.append((name, config, split))
        return [{"question": "a", "answer": "b #### 1"}]

    package = ModuleType("datasets")
    package.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", package)
    assert read("datasets:openai/gsm8k,main:test")[0].place == "datasets:openai/gsm8k,main:test, row 0"
    assert read("datasets:my/set")[0].answer == "1"
    assert requests == [("openai/gsm8k", "main", "test"), ("my/set", None, "train")]


def test_parquet_reads_as_jsonl_does(tmp_path: Path) -> None:
    for name, row in ROWS.items():
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        (one,) = read(str(tmp_path / f"{name}.parquet"))
        (other,) = read(write(tmp_path / f"{name}.jsonl", [row]))
        assert (one.text, one.answer, one.data) == (other.text, other.answer, other.data)
        assert one.place.endswith(f"{name}.parquet, row 0")


def test_pass_rates_keep_the_middle_of_the_training_questions(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", plain(100))
    whole = files(path=path)
    trained = [q.text for q in whole.questions["train"]]
    rates = [{"question": text, "pass_rate": i % 5 / 4} for i, text in enumerate(trained)]
    measured = write(tmp_path / "rates.jsonl", rates)
    kept = files(path=path, pass_rates=measured, between=(0.25, 0.75))
    assert [q.text for q in kept.questions["train"]] == [t for i, t in enumerate(trained) if i % 5 in (1, 2, 3)]
    # what is measured on stays whole
    assert kept.questions["test"] == whole.questions["test"]
    with pytest.raises(GrpoLabError, match=r"has no pass rate for the training question of .*, line"):
        files(path=path, pass_rates=write(tmp_path / "few.jsonl", rates[:-1]), between=(0.25, 0.75))
    with pytest.raises(GrpoLabError, match="keeps none of"):
        files(path=path, pass_rates=measured, between=(0.3, 0.4))
    with pytest.raises(GrpoLabError, match="no effect without"):
        files(path=path, between=(0.3, 0.4))
    with pytest.raises(GrpoLabError, match="0 <= low <= high <= 1"):
        files(path=path, pass_rates=measured, between=(0.4, 0.3))
    with pytest.raises(GrpoLabError, match="line 1: a question and its pass_rate"):
        files(path=path, pass_rates=write(tmp_path / "odd.jsonl", [{"question": "a", "pass_rate": 2}]))


def test_a_curriculum_goes_from_easy_to_hard_once(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(60)]
    path = write(tmp_path / "data.jsonl", rows)
    rates = {row["question"]: n % 8 / 8 for n, row in enumerate(rows)}
    measured = write(tmp_path / "rates.jsonl", [{"question": q, "pass_rate": r} for q, r in rates.items()])
    made = files(path=path, pass_rates=measured, curriculum=True)
    n = len(made.questions["train"])
    drawn = [[rates[made.problem("train", seed, i).data["question"]] for i in range(2 * n)] for seed in (0, 1)]
    assert drawn[0][:n] == sorted(drawn[0][:n], reverse=True)
    assert drawn[0][:n] == drawn[1][:n]
    assert drawn[0][n:] != sorted(drawn[0][n:], reverse=True)
    assert sorted(drawn[0][n:]) == sorted(drawn[0][:n])
    with pytest.raises(GrpoLabError, match=r"files\.curriculum has no effect without files\.pass_rates"):
        files(path=path, curriculum=True)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "a", "answer": "1"}\n{"question": "caf\xe9", "answer": "1"}\n')
    with pytest.raises(GrpoLabError, match=r"latin.jsonl, line 2: not UTF-8: .*0xe9"):
        read(str(path))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(GrpoLabError, match="cannot be read as Parquet"):
        read(str(path.rename(tmp_path / "latin.parquet")))


# --- the answer's column ---------------------------------------------------------------------------------------------


def test_the_column_of_answers_goes_before_the_solutions_last_box(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"problem": "One?", "solution": "So \\boxed{ 1 }.", "answer": "$1$"},
        {"problem": "Two?", "solution": "So \\boxed{3}.", "answer": "2"},
        {"problem": "Three?", "solution": "", "answer": 3},
        {"problem": "Four?", "solution": "So \\boxed{4}.", "answer": None},
    ]
    path = write(tmp_path / "math.jsonl", rows)
    warning = r"in 1 of 4 rows the answer column differs .* \(first in .*, line 2: '2', not '3'\)"
    with pytest.warns(UserWarning, match=warning):
        questions = read(path)
    assert [question.answer for question in questions] == ["$1$", "2", "3", "4"]
    assert [question.solution for question in questions] == ["So \\boxed{ 1 }.", "So \\boxed{3}.", "", "So \\boxed{4}."]
    renamed = [{"p": row["problem"], "s": row["solution"], "a": row["answer"]} for row in rows]
    path = write(tmp_path / "renamed.jsonl", renamed[2:])
    named = read(path, columns={"problem": "p", "solution": "s", "answer": "a"})
    assert [question.answer for question in named] == ["3", "4"]


# --- conversations ---------------------------------------------------------------------------------------------------

ASKS = {"role": "user", "content": "Two and two?"}
REPLIES = {"role": "assistant", "content": "4"}
AGAIN = {"role": "user", "content": "And one more?"}


def test_questions_may_be_lists_of_messages_as_in_trl(tmp_path: Path) -> None:
    rows = [{"prompt": [ASKS], "answer": 4}, {"prompt": [ASKS, REPLIES, AGAIN], "answer": 5}]
    rows += [{"prompt": [{"role": "user", "content": f"What is {i}?"}], "answer": i} for i in range(60)]
    alone, talk, *_ = read(path := write(tmp_path / "talks.jsonl", rows))
    # one message is the question that its text would be
    assert (alone.text, talk.text) == ("Two and two?", "user: Two and two?\nassistant: 4\nuser: And one more?")
    made = files(path=path, system="Be brief.")
    prompts = {
        problem.answer: problem.prompt
        for split, questions in made.questions.items()
        for problem in (made.problem(split, 0, i) for i in range(len(questions)))
        if problem.data["question"] in (alone.text, talk.text)
    }
    system = {"role": "system", "content": "Be brief."}
    assert prompts == {"4": [system, ASKS], "5": [system, ASKS, REPLIES, AGAIN]}
    with pytest.raises(GrpoLabError, match=r"line 2 is a conversation of 3 messages, for which .* has no place"):
        files(path=path, template="plain")
    own = write(tmp_path / "own.jsonl", [{"prompt": [system, ASKS], "answer": 4}, *rows[2:]])
    with pytest.raises(GrpoLabError, match=r"line 1 has a system prompt of its own: leave files\.system out"):
        files(path=own, system="Be brief.")
    assert files(path=own).suites == ("test",)


def test_what_the_assistant_says_last_is_the_worked_solution(tmp_path: Path) -> None:
    reply = {"role": "assistant", "content": "2 + 2 = \\boxed{4}"}
    rows: list[dict[str, Any]] = [
        {"messages": [ASKS, reply]},
        {"messages": [AGAIN, REPLIES], "answer": "5"},
        {"messages": [{**ASKS, "content": "?"}], "answer": "6"},
    ]
    questions = read(write(tmp_path / "talks.jsonl", rows))
    assert [(q.text, q.answer, q.solution) for q in questions] == [
        ("Two and two?", "4", "2 + 2 = \\boxed{4}"),
        ("And one more?", "5", "4"),
        ("?", "6", ""),
    ]


TALK_WITH_A_TOOL: list[dict[str, Any]] = [
    {"role": "system", "content": "Calculate."},
    ASKS,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2, "b": 2}}}],
    },
    {"role": "tool", "name": "add", "content": "4"},
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tools_that_were_called_are_handed_to_the_template(kind: str, tmp_path: Path) -> None:
    rows = [{"prompt": TALK_WITH_A_TOOL, "answer": "4"}]
    rows += [{"prompt": [{"role": "user", "content": f"What is {i}?"}], "answer": str(i)} for i in range(60)]
    path = tmp_path / f"talks.{kind}"
    if kind == "jsonl":
        write(path, rows)
    else:  # which gives every message a tool_calls and a name, null where there is none
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    called, *_ = read(str(path))
    calls = TALK_WITH_A_TOOL[2]["tool_calls"]
    assert list(called.messages) == [*TALK_WITH_A_TOOL[:2], {**TALK_WITH_A_TOOL[2], "content": ""}, TALK_WITH_A_TOOL[3]]
    assert called.text.splitlines()[2] == f"assistant:  {json.dumps(calls, sort_keys=True)}"
    made = files(path=str(path))
    prompts = [made.problem(s, 0, i).prompt for s, asked in made.questions.items() for i in range(len(asked))]
    assert list(called.messages) in prompts
    # the place that messages name, which is no part of the problem
    problem = made.problem("train", 0, 0)
    assert re.fullmatch(rf"{re.escape(str(path))}, (line|row) \d+", problem.place)
    assert problem == replace(problem, place="")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ASKS, "4"], r"message 2 is '4', no object"),
        ([{"content": "?"}], r"message 1 has the role None, which is no name"),
        (
            [ASKS, {"role": "assistant", "content": None}],
            r"message 2 \(assistant\) has the content None, which is no text",
        ),
        ([ASKS, {"role": "tool", "content": 4}], r"message 2 \(tool\) has the content 4, which is no text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "?"}]}],
            r"message 1 \(user\) has its content in parts",
        ),
        ([ASKS, {**REPLIES, "tool_calls": "add"}], r"message 2 \(assistant\) has tool_calls that are no list"),
        ([ASKS, REPLIES, {**REPLIES}], r"must end with a message of the user"),
        ([], r"there is none"),
    ],
)
def test_a_message_that_is_none_is_named_by_its_number(messages: list[Any], message: str, tmp_path: Path) -> None:
    rows = [{"prompt": [ASKS], "answer": 4}, {"prompt": messages, "answer": 5}]
    with pytest.raises(GrpoLabError, match=rf"talks.jsonl, line 2: column 'prompt' .*{message}"):
        read(write(tmp_path / "talks.jsonl", rows))


def test_tools_on_offer_are_no_part_of_messages(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": [ASKS], "answer": 4, "tools": []}
    assert len(read(write(tmp_path / "talks.jsonl", [row]))) == 1
    with pytest.raises(GrpoLabError, match=r"line 1: column 'tools' is \[{'type'.* the system message and take"):
        read(write(tmp_path / "talks.jsonl", [row | {"tools": [{"type": "function"}]}]))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", plain(60))
    bare = str(files(path=path, template="plain").problem("train", 0, 0).prompt)
    assert files(path=path, template="Q: {question}\nA:").problem("train", 0, 0).prompt == f"Q: {bare}\nA:"
    made = files(path=path, template=(("system", "Reason."), ("user", "{question} Box it.")))
    assert made.problem("train", 0, 0).prompt == [
        {"role": "system", "content": "Reason."},
        {"role": "user", "content": f"{bare} Box it."},
    ]
    assert made.rewards[0].set_values == {}
    for settings, message in (
        ({"template": "Q: A:"}, r"files.template = 'Q: A:': .*a template of your own, with \{question\}"),
        ({"template": (("user", "A?"),)}, "this one has no place for it; or a template of your own"),
        ({"template": (("user",),)}, r"files\.template = .* must be text in quotes or a list of tuples"),
        ({"turns": ("user", "1?")}, r"files\.turns = .* must be a list of tuples"),
        ({"template": "{question}", "system": "S"}, "has no place for a system prompt or turns"),
    ):
        with pytest.raises(GrpoLabError, match=message):
            files(path=path, **settings)
