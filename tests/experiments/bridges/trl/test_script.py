"""`grpolab-trl`: options, messages, and that a user's own `core` and `experiments` do not get in its way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from core.model.loading import EMBEDDED
from experiments.bridges.trl.main import main
from tests.experiments.bridges.trl.real import TASK

SCRIPT = Path(sys.executable).with_name("grpolab-trl")
OF_TRL = (
    *("--model_name_or_path", str(EMBEDDED), "--dataset_name", "questions", "--dtype", "float32"),
    *("--reward_funcs", "experiments.my_rewards.right", "--max_steps", "2", "--seed", "3"),
    *("--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"),
    *("--use_cpu", "True", "--bf16", "False", "--gradient_checkpointing", "False", "--report_to", "none"),
    *("--logging_steps", "1", "--disable_tqdm", "True"),
)
OWN = ("--variant", "grpo", "--import", "my_estimators", "--bind", "grpo.advantage = @median_baseline")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's repository whose packages are named like ours, and cannot be imported in their place."""
    for name in ("core", "experiments", "estimators", "variants"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    (tmp_path / "core" / "digits.py").write_text('def last(text):\n    return text.rstrip(".")[-1:]\n')
    (tmp_path / "experiments" / "my_rewards.py").write_text(
        "from core.digits import last\n\n\ndef right(completions, answer, **_):\n"
        "    return [float(last(c) == a) for c, a in zip(completions, answer)]\n"
    )
    (tmp_path / "my_estimators.py").write_text(
        "from torch import Tensor\nfrom core import Batch, advantage\n\n\n@advantage\n"
        "def median_baseline(batch: Batch) -> Tensor:\n"
        '    """Reward minus the median of its group."""\n'
        "    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)\n"
    )
    (tmp_path / "questions").mkdir()
    with (tmp_path / "questions" / "train.jsonl").open("w") as file:
        for index in range(64):
            problem = TASK.problem("train", 0, index)
            file.write(json.dumps({"prompt": problem.prompt, "answer": str(problem.answer)}) + "\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"),
        ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    ],
    ids=["accelerate", "torchrun"],
)
def test_a_project_that_has_a_core_and_experiments_of_its_own(launcher: tuple[str, ...], project: Path) -> None:
    command = [sys.executable, "-P", *launcher, str(SCRIPT), *OWN, "--", *OF_TRL, "--output_dir", "out"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((project / "out" / "grpolab.json").read_text())
    assert record["card"]["advantage"] == "median_baseline()"
    assert (record["variant"], record["seed"], record["keyed_noise"]) == ("grpo", 3, True)
    assert record["versions"]["trl"] == "1.16.0"
    state = json.loads((project / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [log["step"] for log in state["log_history"]] == [1, 2]


@pytest.mark.parametrize(
    ("own", "of_trl", "message"),
    [
        (("--variant", "grppo"), OF_TRL, "no variant 'grppo'; did you mean grpo"),
        (("--variant", "grpo", "--import", "no_such_module"), OF_TRL, "no module 'no_such_module'"),
        (("--variant", "grpo", "--bind", "grpo.kl_coeff = 1"), OF_TRL, "kl_coeff"),
        (("--variant", "grpo"), (*OF_TRL, "--los_type", "grpo"), "--los_type"),
        (("--variant", "grpo"), (*OF_TRL, "--loss_type", "grpo"), "loss_type = 'grpo' would not act"),
        (("--variant", "ppo"), OF_TRL, "cannot be trained inside TRL"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_mistake_is_one_message(
    own: tuple[str, ...],
    of_trl: tuple[str, ...],
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    monkeypatch.setattr("trl.GRPOTrainer", None)
    assert main([*own, "--", *of_trl, "--output_dir", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("grpolab-trl: ")
    assert message in error
    assert not (project / "out").exists()
