"""`grpolab-verl` as a user meets it: without verl, and in a folder that has packages of the same names as ours."""

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SCRIPT = "import sys; from experiments.bridges.verl.main import main; sys.argv[0] = 'grpolab-verl'; main()"


def give(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and what was said; the folder's own `core` and `experiments` end a program that finds them."""
    for name in ("core", "experiments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')")
    command = [sys.executable, "-P", "-W", "ignore", "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return done.returncode, done.stderr


def test_the_console_script_is_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["grpolab-verl"] == "experiments.bridges.verl.main:main"


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_it_says_how_to_get_there(tmp_path: Path) -> None:
    code, said = give(tmp_path)
    assert code == 2
    assert "verl is not installed here" in said
    assert "pip install --no-deps grpo-lab" in said


@pytest.mark.skipif(find_spec("transfer_queue") is None, reason="verl is not installed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "grpolab-verl: no variant: give +actor_rollout_ref.grpolab.variant=NAME"),
        (["+actor_rollout_ref.grpolab.variant=dapoo"], "grpolab-verl: no variant 'dapoo'; did you mean dapo"),
        (
            ["+actor_rollout_ref.grpolab.variant=remax"],
            "variant 'remax' cannot be trained inside verl: advantage greedy_baseline needs greedy_rewards",
        ),
    ],
)
def test_a_mistake_is_one_message_whatever_the_folder_holds(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, said = give(tmp_path, *arguments)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
