"""What is broken shows in one tiny step before anything is run or written, and nothing else is changed by that step."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
import torch

from core.device import VARIABLE, forget_decision
from core.model.policy import load_policy
from core.parts.registry import config, config_text
from experiments.cli.main import main
from experiments.launchers.job import Job, run_and_report
from experiments.launchers.rehearsal import BrokenRecipeError, rehearse
from experiments.study.configs import (
    CONFIGS,
    build,
)
from experiments.study.settings import Arm

PARTS: Final = '''
from core import advantage, filter, objective, reward


@advantage
def of_a_wrong_shape(batch):
    """The mean."""
    return batch.rewards.mean(dim=1)


@advantage(needs=("greedy_rewards",))
def of_an_own_field(batch):
    """Divides by nothing."""
    return batch.rewards / (0 * batch.groups // 0)


@objective
def misspelt(logps, advantages):
    """Names a tensor that is not there."""
    return -logps * advantage_of_row


@filter
def of_no_mask(batch):
    """Lets through what is no mask."""
    return batch.rewards


@reward
def raises(problem, response):
    """Looks for a gold answer under a wrong name."""
    return float(response == problem.data["gold"])


@reward
def text(problem, response):
    """A number as text."""
    return "1.0"


@reward
def nothing(problem, response):
    """Forgets to return."""


@reward
def several(problem, response):
    """A list."""
    return [1.0]


@reward
def half(problem, response):
    """Never reaches 1."""
    return 0.5 if response == problem.answer else 0.0


@advantage
def drawing(batch):
    """Draws from every global generator, and sets the number of threads."""
    import random

    import numpy as np
    import torch

    torch.set_num_threads(2)
    noise = torch.rand(batch.rewards.shape) + random.random() + np.random.rand()
    return batch.rewards - batch.rewards.mean(dim=1, keepdim=True) + 0 * noise
'''
STUDY: Final = """
import rehearsed_parts
include 'embedded.gin'
policy.model = '{model}'
train.steps = 6
train.prompts = 2
train.group_size = 2
train.max_tokens = 6
evaluation.every = 2
evaluation.questions = 2
compare.name = 'study'
compare.seeds = 2
"""


@pytest.fixture
def home(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with parts of one's own and a study, from which commands are given."""
    (tmp_path / "rehearsed_parts.py").write_text(PARTS)
    (tmp_path / "study.gin").write_text(STUDY.format(model=tiny_folder))
    shutil.copytree(tiny_folder, tmp_path / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("rehearsed_parts", None)


def recipes(**arms: str) -> dict[str, Any]:
    built = {}
    for label, binding in arms.items():
        with config(["study.gin"], binding.splitlines(), include_from=[CONFIGS]):
            built[label] = build("train")
    return built


BROKEN: Final = {
    "grpo.advantage = @of_a_wrong_shape": "advantages: advantage 'of_a_wrong_shape' (FILE:5) returned [2]: ",
    "grpo.advantage = @of_an_own_field": "ZeroDivisionError: integer division or modulo by zero (FILE:14, in ",
    "grpo.objective = @misspelt": "update: NameError: name 'advantage_of_row' is not defined (FILE:20, in misspelt: ",
    "train.variant = @dapo()\ndapo.filter = @of_no_mask": "filter 'of_no_mask' (FILE:23) returned [2, 2], but must",
    "train.rewards = [@raises]": "grading: reward 'raises' (FILE:29) raised on the response ",
    "train.rewards = [@text]": "a reward must return a number, a bool or a Score, not '1.0'",
    "train.rewards = [@nothing]": "a reward must return a number, a bool or a Score, not None",
    "train.rewards = [@several]": "a reward must return a number, a bool or a Score, not [1.0]",
    "policy.model = './no_weights'": "loading the model: policy.model = './no_weights'",
}


@pytest.mark.parametrize("binding", BROKEN)
def test_a_broken_arm_is_reported_with_its_place_before_anything_is_run_or_written(
    home: Path, binding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = f"compare.arms = {{'whole': [], 'mine': {binding.splitlines()!r}}}"
    before = sorted(home.rglob("*"))
    for dry in ([], ["--dry-run"]):
        assert main(["compare", "-c", "study.gin", "-b", arms, *dry]) == 2
        error = capsys.readouterr().err
        assert error.startswith("grpolab: arm 'mine' is broken: one tiny step fails in ")
        assert BROKEN[binding].replace("FILE", str(home / "rehearsed_parts.py")) in error
        assert "Nothing was run. Mend it and give the same command again" in error
    assert [path for path in sorted(home.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize("command", [["train"], ["tune", "--rates", "1e-4,1e-3"]])
def test_so_it_is_with_every_command_that_trains(
    home: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    of_study = [] if command == ["train"] else ["-b", "compare.arms = {'grpo': [], 'rloo': 'train.variant = @rloo()'}"]
    assert main([*command, "-c", "study.gin", *of_study, "-b", "train.rewards = [@raises]"]) == 2
    assert "is broken: one tiny step fails in grading: reward 'raises'" in capsys.readouterr().err
    assert not (home / "runs").exists()


def drawn() -> tuple[Any, ...]:
    """The state of every global generator, and the number of threads."""
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), torch.get_num_threads()


def test_arms_of_every_kind_can_take_it_and_nothing_else_is_changed(home: Path) -> None:
    """Filters and learning find something to go by, though so few tokens are never right."""
    whole = recipes(
        grpo="grpo.kl_coef = 0.1",
        dapo="train.variant = @dapo()",
        remax="train.variant = @remax()",
        ppo="train.variant = @ppo()",
        minibatches="train.minibatches = 2",
        mine="grpo.advantage = @drawing",
        sft="train.source = @worked_solutions()\ntrain.variant = @sft()\ntrain.group_size = 1\ntrain.max_tokens = 40",
    )
    before = drawn()
    rehearsed = rehearse(whole)
    assert (rehearsed.taken, dict(rehearsed.left_out)) == (len(whole), {})
    assert str(rehearsed).startswith("one tiny step of each of 7 arms works (")
    assert drawn() == before


def test_the_weights_that_arms_share_are_read_once_and_not_moved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    loaded = []

    def load(*given: Any) -> Any:
        loaded.append(load_policy(*given))
        return loaded[-1]

    monkeypatch.setattr("experiments.launchers.rehearsal.load_policy", load)
    rehearse(recipes(grpo="", rloo="train.variant = @rloo()"))
    assert len(loaded) == 1
    fresh = load_policy(recipes(grpo="")["grpo"].policy)
    for ours, theirs in zip(loaded[0].model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("split", ["train", "test"])
def test_roles_that_the_template_does_not_know_are_refused_before_the_study(home: Path, split: str) -> None:
    for file, sign in (("train", "+"), ("test", "-")):
        asked = [[{"role": "user", "content": f"{n}{sign}1="}] for n in range(40)]
        asked[33].insert(0, {"role": "developer" if file == split else "user", "content": "1"})
        lines = (json.dumps({"prompt": messages, "answer": "0"}) + "\n" for messages in asked)
        (home / f"{file}.jsonl").write_text("".join(lines))
    paths = {name: str(home / f"{name}.jsonl") for name in ("train", "test")}
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    bindings = f"train.task = @files()\nevaluation.questions = 40\nfiles.path = {paths!r}\npolicy.chat_template = "
    place = (
        rf"{split}.jsonl, line 34: the chat template of the model leaves out message 1 of 2, of the role 'developer'"
    )
    with pytest.raises(BrokenRecipeError, match=rf"fails in data: .*{place}"):
        rehearse(recipes(grpo=bindings + repr(template)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_that_the_context_has_no_room_for_are_refused_before_the_study(home: Path, split: str) -> None:
    """A file's all, and those of tests in any case: of 64 tokens 6 are for the response."""
    for file, question in (("train", "{n}+1="), ("test", "{n}-1=")):
        rows = [question.format(n=n) for n in range(40)] + [f"{n}" + "+1" * 30 for n in range(2 * (file == split))]
        lines = (json.dumps({"question": row, "answer": "0"}) + "\n" for row in rows)
        (home / f"{file}.jsonl").write_text("".join(lines))
    paths = {name: str(home / f"{name}.jsonl") for name in ("train", "test")}
    bindings = f"train.task = @files()\nfiles.template = 'plain'\nevaluation.questions = 42\nfiles.path = {paths!r}"
    which = "2 of 42 test questions of 'test'" if split == "test" else r"\d of \d+ training questions"
    with pytest.raises(
        BrokenRecipeError, match=rf"fails in data: {which} do not fit\. The prompt '.\+1\+1.* has 61 tok"
    ):
        rehearse(recipes(files=bindings))


def test_a_step_for_a_larger_machine_is_left_to_the_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it comes first, and a broken arm ends at it."""
    with monkeypatch.context() as patch:
        patch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1))
        rehearsed = rehearse(recipes(grpo=""))
    assert rehearsed.taken == 0
    assert str(rehearsed).startswith(
        "no tiny step of grpo here, which takes 0.0 GiB where 0.0 are free: what is broken shows"
    )
    with config(["study.gin"], ["grpo.advantage = @of_a_wrong_shape"], include_from=[CONFIGS]):
        text = config_text()
    job = Job(Arm("mine", ()), 0, text, str(home / "run"), rehearsed=False)
    outcome, message = run_and_report(job, lambda _: None)
    assert outcome == "broken"
    assert "one tiny step fails in advantages: advantage 'of_a_wrong_shape'" in str(message)
    assert not (home / "run").exists()


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with an accelerator that runs cannot use, and that gives torch no account of its memory."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError("getMemoryInfo is not implemented for this allocator yet.")

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse)
    monkeypatch.setattr(torch.accelerator, "empty_cache", refuse)
    with forget_decision():
        yield


def test_an_accelerator_that_runs_cannot_use_is_left_alone_and_a_line_says_so(
    mac: None, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "-c", "demo", "--seeds", "3", "--dry-run", "--no-probe"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("runs compute on the CPU: mps lacks what they need") == 1
    assert "one tiny step of each of 5 arms works" in printed
    assert "for want of the GPU" in str(rehearse(recipes(grpo=""), on_accelerators=True))


def test_runs_meant_for_a_gpu_are_not_tried_without_one(home: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    rehearsed = rehearse(recipes(grpo=""), on_accelerators=True)
    assert (
        str(rehearsed)
        == "no tiny step of grpo here, for want of the GPU that runs ask for: what is broken shows in their runs"
    )
