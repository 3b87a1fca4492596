"""`grpolab check` as a user meets it."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from core import (
    OBJECTIVES,
    GrpoLabError,
)
from experiments.cli.check import add_options, run_check
from experiments.cli.main import main

GOOD = '''
from torch import Tensor
from core import Batch, advantage

@advantage
def {name}(batch: Batch, *, quantile: float = 0.5) -> Tensor:
    """Reward minus the median of its group."""
    return batch.rewards - batch.rewards.quantile(quantile, dim=1, keepdim=True)
'''
BAD = '''
from torch import Tensor
from core import Batch, objective

@objective
def {name}(logps: Tensor, advantages: Tensor) -> Tensor:
    """Centred over the step, which micro-batches split."""
    return -(advantages - advantages.mean(0)) * logps
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def check(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run_check(parser.parse_args(arguments))


def refusal(*arguments: str) -> str:
    with pytest.raises(GrpoLabError) as refused:
        check(*arguments)
    return str(refused.value)


def test_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_good_parts.py").write_text(GOOD.format(name="good_median"))
    assert check("my_good_parts.py") == 0
    out = capsys.readouterr().out
    assert "advantage good_median  my_good_parts.py:5" in out
    assert "✓ scaling the rewards: scales the advantages alike (degree 1)" in out
    assert "· sums to zero over a group: the sum is" in out
    assert out.splitlines()[-1] == "1 part, 0 failures"
    assert "\n  ✗" not in out
    # and once more, now that it has been imported
    assert check("my_good_parts.py", "--json") == 0


def test_a_file_with_a_broken_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deeper").mkdir()
    text = GOOD.format(name="other_median") + BAD.format(name="centred_loss")
    (folder / "deeper" / "my_bad_parts.py").write_text(text)
    assert check("deeper/my_bad_parts.py") == 1
    out = capsys.readouterr().out
    assert "objective centred_loss  deeper/my_bad_parts.py" in out
    assert "✗ micro-batches: at [0, 0]: " in out
    assert "→ couple rows in `prepare`" in out
    assert out.splitlines()[-2:] == ["✗ centred_loss: micro-batches", "2 parts, 1 failure"]
    assert check("deeper/my_bad_parts.py", "other_median") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 part, 0 failures"


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_json_parts.py").write_text(BAD.format(name="json_loss"))
    assert check("my_json_parts.py", "clip", "json_loss", "--json") == 1
    clip, mine = json.loads(capsys.readouterr().out)
    assert (clip["part"], clip["kind"], mine["part"]) == ("clip", "objective", "json_loss")
    assert mine["place"] == f"{folder / 'my_json_parts.py'}:5"
    by_name = {check_result["name"]: check_result for check_result in mine["checks"]}
    assert by_name["micro-batches"]["outcome"] == "does not hold"
    assert by_name["micro-batches"]["must"]
    assert by_name["micro-batches"]["remedy"]
    assert by_name["padding"] == {"name": "padding", "must": True, "outcome": "holds", "reason": "", "remedy": ""}
    assert not any(f["must"] and f["outcome"] == "does not hold" for f in clip["checks"])


def test_bindings_reach_the_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_bound_parts.py").write_text(GOOD.format(name="bound_median"))
    assert check("my_bound_parts.py", "-b", "bound_median.quantile = 1.0") == 0
    assert "· flipping the sign of the rewards" in capsys.readouterr().out
    with pytest.raises(GrpoLabError, match="had no effect"):
        check("my_bound_parts.py", "-b", "clip.eps_low = 0.1")
    (folder / "mine.gin").write_text("import my_bound_parts\nbound_median.quantile = 1.0\n")
    assert check("bound_median", "-c", "mine.gin") == 0
    assert "· flipping the sign of the rewards" in capsys.readouterr().out


TASK = '''
from core import REWARDS, Problem, task

class Doubles:
    rewards, suites, patterns = (REWARDS["math_answer"],), ("test",), {}

    def problem(self, split, seed, index):
        """Twice a number that no other split has."""
        number = 3 * index + ("train", "tune", "test").index(split)
        return Problem(f"Twice {number}?", str(2 * number), index)

@task
def doubles() -> Doubles:
    """Doubles."""
    return Doubles()
'''


def test_a_task_of_ones_own_and_one_of_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_task.py").write_text(TASK)
    assert check("my_task.py") == 0
    out = capsys.readouterr().out
    assert "✓ gives problems; same problem every time; splits apart; rewards can start;" in out
    assert "✓ a response with the gold answer: math_answer 1; written in \\boxed{...}" in out
    assert check("files") == 0
    assert "· nothing could be checked: files.path is not set: bind it, with -b or" in capsys.readouterr().out
    (folder / "sums.jsonl").write_text(
        "".join(json.dumps({"question": f"{n}+1?", "answer": n + 1}) + "\n" for n in range(60))
    )
    (folder / "mine.gin").write_text("include 'embedded.gin'\ntrain.task = @files()\nfiles.path = 'sums.jsonl'\n")
    rewards, plain = "train.rewards = [@think_answer, @math_answer]", "files.template = 'plain'"
    assert check("files", "-c", "mine.gin", "-b", rewards, "-b", plain) == 0
    assert "think_answer 1, math_answer 0; written in <answer>" in " ".join(capsys.readouterr().out.split())
    assert check("files", "-c", "mine.gin") == 1
    assert "the tokenizer of the model has no chat template" in " ".join(capsys.readouterr().out.split())


def test_the_file_of_a_whole_study_says_how_a_part_is_bound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("chain_sums", "-c", "demo") == 0
    assert "prompts fit the model" in " ".join(capsys.readouterr().out.split())


def test_parts_with_nothing_to_check_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("native") == 0
    assert "registered; nothing to check without a model" in capsys.readouterr().out


def test_a_shipped_file_is_not_imported_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = OBJECTIVES["clip"].place.rpartition(":")[0]
    assert check(file) == 0
    assert "objective clip" in capsys.readouterr().out


def test_mistakes(folder: Path) -> None:
    assert refusal("nowhere.py") == f"file not found: nowhere.py (looked from {folder})"
    assert "unknown part 'gropo': did you mean grpo" in refusal("gropo")

    (folder / "my_empty_file.py").write_text("x = 1\n")
    assert "my_empty_file.py registers no part; put a decorator over a function" in refusal("my_empty_file.py")

    (folder / "my_raising_file.py").write_text("x = 1\ny = x / 0\n")
    message = refusal("my_raising_file.py")
    assert "my_raising_file.py cannot be imported: ZeroDivisionError: division by zero (line 2)" in message

    (folder / "my_misspelt_file.py").write_text("def f(:\n")
    assert "SyntaxError" in refusal("my_misspelt_file.py")
    (folder / "my_exiting_file.py").write_text("import sys\nsys.exit(3)\n")
    assert "SystemExit: 3 (line 2)" in refusal("my_exiting_file.py")

    (folder / "json.py").write_text(GOOD.format(name="shadowed_median"))
    assert "the name 'json' is taken by the module at" in refusal("json.py")

    wrong = GOOD.format(name="wrong_signature").replace("batch: Batch", "rollout: Batch")
    (folder / "my_wrong_signature.py").write_text(wrong)
    assert "takes (rollout) but must take (batch)" in refusal("my_wrong_signature.py")


def test_a_part_that_ends_the_program_is_no_success(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_part_that_exits.py").write_text(
        GOOD.format(name="exits").replace("return batch", "raise SystemExit(0)  # batch")
    )
    assert main(["check", "my_part_that_exits.py"]) == 2
    message = (
        r"grpolab: a part of yours ended the program: SystemExit: 0 \(.*my_part_that_exits\.py:8, in exits: .*\); raise"
    )
    assert re.match(message, capsys.readouterr().err)


def test_a_file_may_be_named_more_than_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_repeated_parts.py").write_text(GOOD.format(name="repeated_median"))
    targets: Sequence[str] = ("my_repeated_parts.py", "./my_repeated_parts.py")
    assert check(*targets) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 part, 0 failures"
