"""`grpolab-verl` as a user meets it: without verl, and in a folder that has packages of the same names as ours."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SCRIPT = "import sys; from experiments.bridges.verl.main import main; sys.argv[0] = 'grpolab-verl'; main()"
FORKS = """
import json, os, sys
import experiments.bridges.verl.command
from experiments.bridges.verl.main import main

for number, arguments in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(f"{number}.said", os.O_CREAT | os.O_WRONLY), 2)
        sys.argv[:] = ["grpolab-verl", *arguments]
        main()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""The same for several lists of arguments: verl's imports take longer than all else, and are made once."""
MISTAKES = {
    (): "grpolab-verl: no variant: give +actor_rollout_ref.grpolab.variant=NAME",
    ("+actor_rollout_ref.grpolab.variant=dapoo",): "grpolab-verl: no variant 'dapoo'; did you mean dapo",
    ("+actor_rollout_ref.grpolab.variant=remax",): (
        "variant 'remax' cannot be trained inside verl: advantage greedy_baseline needs greedy_rewards"
    ),
}


def give(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The folder's own `core` and `experiments` end a program that finds them."""
    for name in ("core", "experiments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')")
    command = [sys.executable, "-P", "-W", "ignore", "-c", script, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def test_the_console_script_is_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["grpolab-verl"] == "experiments.bridges.verl.main:main"


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_it_says_how_to_get_there(tmp_path: Path) -> None:
    done = give(tmp_path, SCRIPT)
    assert done.returncode == 2
    assert "verl is not installed here" in done.stderr
    assert "pip install --no-deps grpo-lab" in done.stderr


@pytest.mark.skipif(find_spec("transfer_queue") is None, reason="verl is not installed")
def test_a_mistake_is_one_message_whatever_the_folder_holds(tmp_path: Path) -> None:
    done = give(tmp_path, FORKS, json.dumps([*MISTAKES]))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["2"] * len(MISTAKES)
    for number, message in enumerate(MISTAKES.values()):
        said = (tmp_path / f"{number}.said").read_text()
        assert message in said
        assert "Traceback" not in said
