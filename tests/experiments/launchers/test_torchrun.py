"""A run on several processes, started and watched by its parent."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env

import core.parts.registry as registry
from core import GrpoLabError
from core.errors import MachineError
from core.loop.train import Interrupted
from experiments.launchers.process_tree import kill
from experiments.launchers.rank import _write_cause
from experiments.launchers.torchrun import _raise_first, run_in_processes
from experiments.study.configs import (
    CONFIGS,
    find_config,
    run_text,
)
from experiments.study.processes import SHIPPED, Processes, read_processes
from experiments.study.settings import Arm

ARM = Arm("grpo", ())


@pytest.fixture(autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder named like ours must not shadow it."""
    home = tmp_path_factory.mktemp("home")
    (home / "core").mkdir()
    (home / "core" / "__init__.py").write_text("raise ImportError('the wrong core')\n")
    monkeypatch.chdir(home)


@pytest.fixture
def text() -> str:
    bindings = ["train.steps = 4", "train.prompts = 4", "train.max_tokens = 24", "evaluation.questions = 2"]
    with registry.config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        return run_text()


def test_shipped_configurations_are_read() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == {"ddp", "fsdp2", "deepspeed_zero3"}
    assert read_processes(None, None) == Processes(1, {})
    assert read_processes(3, None) == Processes(3, {})
    assert read_processes(None, "ddp") == Processes(2, {})
    assert read_processes(4, "fsdp2") == Processes(4, {"FSDP_VERSION": "2", "ACCELERATE_USE_FSDP": "true"})
    zero = read_processes(None, "deepspeed_zero3")
    assert zero.environment == {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "False",
    }
    assert [str(read_processes(2, name)) for name in ("ddp", "fsdp2", "deepspeed_zero3")] == [
        "2",
        "2, sharded",
        "2, sharded by DeepSpeed",
    ]


def test_the_environment_is_that_of_accelerate_launch() -> None:
    """Names of variables are accelerate's own."""
    arguments = launch_command_parser().parse_args(
        ["--config_file", str(SHIPPED / "deepspeed_zero3.yaml"), "program.py"]
    )
    arguments, *_ = _validate_launch_command(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, theirs = prepare_deepspeed_cmd_env(arguments)
    for name, value in read_processes(None, "deepspeed_zero3").environment.items():
        assert theirs[name] == value.lower(), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("distributed_type: MULTI_NPU\nnum_processes: 2\n", "MULTI_NPU is not supported; data parallel"),
        ("distributed_type: FSDP\nnum_processes: 2\nmixed_precision: bf16\n", "precision is policy.dtype"),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n", "num_machines = 2"),
        ("distributed_type: NO\nnum_processes: 2\n", "distributed_type False is not supported"),
        ("distributed_type: MULTI_GPU\nno_such_key: 2\n", "cannot be read"),
        ("distributed_type: MULTI_GPU\nmixed_precision: 'no'\n", "num_processes must be at least 1"),
        (
            "distributed_type: MULTI_GPU\nmixed_precision: 'no'\nnum_processes: two\n",
            "num_processes must be at least 1",
        ),
        (
            "distributed_type: FSDP\nmixed_precision: 'no'\nfsdp_config:\n  fsdp_activation_checkpointing: true\n",
            "is policy.gradient_checkpointing here",
        ),
    ],
)
def test_what_is_not_supported_is_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("compute_environment: LOCAL_MACHINE\n" + content)
    with pytest.raises(GrpoLabError, match=message):
        read_processes(None, str(file))


def test_a_typo_names_what_is_shipped() -> None:
    with pytest.raises(GrpoLabError, match=r"--accelerate fsdp: no such file.*did you mean fsdp2"):
        read_processes(None, "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("shipped", ["fsdp2", "deepspeed_zero3"])
def test_steps_are_reported_and_a_stop_is_obeyed(
    shipped: str, text: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Interrupted after two steps, as it is really started, then gone on with, sharded."""
    if shipped == "deepspeed_zero3":
        pytest.importorskip("deepspeed")
    steps: list[int] = []

    def watch(record: Mapping[str, Any]) -> None:
        steps.append(record["step"])
        if steps == [1, 2]:
            raise Interrupted

    processes = read_processes(2, shipped)
    with pytest.raises(Interrupted):
        run_in_processes(text, ARM, 0, str(tmp_path), processes, watch)
    assert steps == [1, 2]
    if shipped == "fsdp2":
        request.getfixturevalue("forks")
    with pytest.raises(GrpoLabError, match=r"its processes changed .*'2, sharded.*'.*'2'"):
        run_in_processes(text, ARM, 0, str(tmp_path), read_processes(2, "ddp"), watch)
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "interrupted"
    run_in_processes(text, ARM, 0, str(tmp_path), processes, watch)
    assert steps == [1, 2, 3, 4]
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "finished"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


BREAKS = '''
import os

from core import objective


@objective
def breaks_on_the_second(logps, advantages):
    """A policy gradient that one process cannot compute."""
    if os.environ.get("RANK") == "1":
        raise ZeroDivisionError("out of order")
    return -logps * advantages
'''


@pytest.mark.slow
def test_the_first_cause_is_reported(forks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the broken connection that the other process then sees."""
    (tmp_path / "breaks.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    bindings = [
        "import breaks",
        "train.steps = 2",
        "train.prompts = 4",
        "evaluation.questions = 2",
        "grpo.objective = @breaks_on_the_second",
    ]
    with registry.config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    with pytest.raises(GrpoLabError, match=r"process 1: (.|\n)*ZeroDivisionError: out of order"):
        run_in_processes(text, ARM, 0, str(tmp_path / "run"), Processes(2), lambda _: None)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "ZeroDivisionError: out of order" in manifest["error"]
    assert "breaks.py:11, in breaks_on_the_second" in manifest["error"]
    assert manifest["failure"] == "code"


@pytest.mark.slow
def test_a_mistake_in_the_recipe_is_one_message(forks: None, tmp_path: Path) -> None:
    bindings = ["train.steps = 2", "train.prompts = 4", "policy.model = 'no/such/model/here'"]
    with registry.config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    with pytest.raises(GrpoLabError, match=r"process \d: policy.model = 'no/such/model/here': there is no such folder"):
        run_in_processes(text, ARM, 0, str(tmp_path), Processes(2), lambda _: None)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "no such folder" in manifest["error"]


DIES = """
import os

from core import objective


@objective
def dies_on_the_second(logps, advantages):
    '''A policy gradient that one process does not survive.'''
    if os.environ.get("RANK") == "1":
        os.kill(os.getpid(), 9)
    return -logps * advantages
"""


@pytest.mark.slow
def test_a_process_that_was_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves no cause itself; the other one's, a broken connection, would count against the method."""
    (tmp_path / "dies.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    bindings = [
        "import dies",
        "train.steps = 2",
        "train.prompts = 4",
        "train.max_tokens = 16",
        "evaluation.questions = 2",
        "grpo.objective = @dies_on_the_second",
    ]
    with registry.config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    with pytest.raises(MachineError, match="process 1 was ended by signal 9"):
        run_in_processes(text, ARM, 0, str(tmp_path / "run"), Processes(2), lambda _: None)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["failure"] == "infrastructure"


def test_a_cause_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun ends the others as soon as one has failed."""

    class EndedError(BaseException):
        pass

    def ended(*_: Any) -> None:
        raise EndedError

    _write_cause(tmp_path, 1, GrpoLabError("the first"))
    for place in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(place, ended)
            with pytest.raises(EndedError):
                _write_cause(tmp_path, 0, GrpoLabError("the second"))
    with pytest.raises(GrpoLabError, match="process 1: the first"):
        _raise_first(tmp_path, str(tmp_path / "run"), 1, "")


def test_a_process_is_killed_with_all_that_descend_from_it() -> None:
    """In whatever session they are."""
    child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
    child += "start_new_session=True); print(p.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
        kill(process.pid)
        assert process.wait() == -9
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE or grandchild.wait(10) is None
