"""Pairs: the better against the worse, an annotator who is wrong as often as declared, and files of other people's."""

import json
from pathlib import Path
from typing import Any

import pytest

import experiments.feedback.preferences
from core import GrpoLabError
from core.environments.datasets.pairs import Pair, read_pairs
from core.environments.tasks.chain_sums import final_digit
from core.parts.problems import Problem
from experiments.cli.main import main

SMALL = ["preferences", "-c", "embedded", "--prompts", "24", "-b", "train.max_tokens = 30", "--out"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of an annotator who is always right."""
    path = tmp_path_factory.mktemp("pairs") / "true.jsonl"
    assert main([*SMALL, str(path)]) == 0
    return path


def test_pairs_are_the_better_against_the_worse(true: Path) -> None:
    pairs = lines(true)
    assert 8 <= len(pairs) < 24
    for pair in pairs:
        problem = Problem(pair["prompt"], pair["answer"], 0)
        assert final_digit(problem, pair["chosen"]).value == pair["gold_chosen"] == 1
        assert final_digit(problem, pair["rejected"]).value == pair["gold_rejected"] == 0
        assert not pair["flipped"]


def test_an_annotator_who_errs_errs_as_often_as_declared_and_a_better_one_on_fewer_of_the_same(
    true: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[float, set[str]] = {}
    for accuracy in (0.0, 0.4, 0.7):
        path = tmp_path / f"{accuracy}.jsonl"
        assert main([*SMALL, str(path), "--annotator-accuracy", str(accuracy)]) == 0
        pairs = lines(path)
        wrong[accuracy] = {pair["prompt"] for pair in pairs if pair["flipped"]}
        summary = f"{len(pairs)} pairs, {len(wrong[accuracy])} of them labelled wrongly; {24 - len(pairs)} of 24 groups"
        assert summary in " ".join(capsys.readouterr().out.split())
        swapped = {
            "chosen": "rejected",
            "rejected": "chosen",
            "gold_chosen": "gold_rejected",
            "gold_rejected": "gold_chosen",
        }
        for pair, right in zip(pairs, lines(true), strict=True):
            names = swapped if pair["flipped"] else {}
            assert {names.get(n, n): v for n, v in pair.items() if n != "flipped"} == {
                n: v for n, v in right.items() if n != "flipped"
            }
    assert len(wrong[0.0]) == len(lines(true))
    assert wrong[0.7] < wrong[0.4] < wrong[0.0]


def test_the_same_again_for_a_seed_and_nothing_half_written(
    true: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, other = tmp_path / "again.jsonl", tmp_path / "other.jsonl"
    assert main([*SMALL, str(again)]) == 0
    assert again.read_bytes() == true.read_bytes()
    assert main([*SMALL, str(other), "--seed", "1"]) == 0
    assert not {pair["prompt"] for pair in lines(other)} & {pair["prompt"] for pair in lines(true)}

    def fails(*_: Any) -> Any:
        raise GrpoLabError("out of patience")

    monkeypatch.setattr(experiments.feedback.preferences, "score", fails)
    assert main([*SMALL, str(again)]) == 2
    assert again.read_bytes() == true.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--samples", "1"], "--samples = 1: must be a whole number from 2 up"),
        (["--annotator-accuracy", "90"], "--annotator-accuracy = 90.0: must be a number from 0 to 1"),
    ):
        assert main([*SMALL, str(tmp_path / "no.jsonl"), *options]) == 2
        assert message in capsys.readouterr().err
    episodes = ["preferences", "-c", "lookups", "--out", str(tmp_path / "no.jsonl")]
    assert main(episodes) == 2
    assert (
        "train.task is played with the environment 'lookup_table': give a task without one" in capsys.readouterr().err
    )
    # a response of one token gives no answer: nothing is better than anything
    assert main([*SMALL, str(tmp_path / "no.jsonl"), "-b", "train.max_tokens = 1"]) == 2
    assert "in none of the 24 groups one response was better" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_answers_are_given_where_they_are_enough_to_judge_by(true: Path, tmp_path: Path) -> None:
    """Who is a knight is judged by more than the text of the answer: such pairs are trained on unjudged."""
    path = tmp_path / "pairs.jsonl"
    islanders = ["-b", "train.task = @islanders()", "-b", "policy.model = 'islanders'", "-b", "train.max_tokens = 64"]
    assert main(["preferences", *islanders, "--prompts", "8", "--out", str(path)]) == 0
    assert all("answer" in pair for pair in lines(true))
    assert not any("answer" in pair for pair in lines(path))


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def test_files_of_others_are_read(tmp_path: Path) -> None:
    question, yes, no = turn("user", "1+1=?"), turn("assistant", "2"), turn("assistant", "3")
    path = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
        {"prompt": [question], "chosen": [yes], "rejected": [no]},
        {"chosen": [question, yes], "rejected": [question, no]},
        {"prompt": "1+1=?", "chosen": [question, yes], "rejected": [question, no]},
        {"prompt": "1+1=", "chosen": "2", "rejected": "3", "gold_chosen": 1, "gold_rejected": 0.5, "anything": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pairs(str(path)) == [
        Pair("1+1=", "2", "3"),
        *[Pair([question], "2", "3")] * 3,
        Pair("1+1=", "2", "3", gold=(1.0, 0.5)),
    ]
    path.write_text(json.dumps(rows[0] | {"margin": 2}) + "\n")
    assert read_pairs(str(path)) == [Pair("1+1=", "2", "3", margin=2)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1+1=", "chosen": "2"}, "line 2: no field 'rejected'"),
        ({"chosen": "2", "rejected": "3"}, "line 2: no field 'prompt'"),
        ({"prompt": "1+1=", "chosen": "2", "rejected": "3", "margin": "much"}, "'margin'.* must be finite numbers"),
        (
            {"prompt": "1+1=", "chosen": "2", "rejected": "3", "margin": 1},
            "line 1: no field 'margin', but .*line 2 has one",
        ),
        (
            {"chosen": [turn("user", "a"), turn("assistant", "b")], "rejected": [turn("user", "c")] * 2},
            "line 2: the conversations 'chosen' and 'rejected' differ before their last message",
        ),
    ],
)
def test_a_row_that_is_no_pair_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ({"prompt": "1+1=", "chosen": "2", "rejected": "3"}, row)))
    with pytest.raises(GrpoLabError, match=message):
        read_pairs(str(path))
