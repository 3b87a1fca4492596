"""`grpolab bridge` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli.main import main

CARD = """\
remax inside verl: 3 exact, 0 approximate, 1 not possible

  exact         advantage greedy_baseline
  not possible  advantage greedy_baseline needs greedy_rewards  verl trains on every response that it samples
  exact         objective policy_gradient
  exact         aggregator token_mean

The prompts, their order, the sampler, the optimizer and evaluation stay the trainer's.
What is not possible is refused at start. Other parts can be bound in its place with -b.
"""


def test_the_card_says_what_is_not_possible_and_then_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", "verl", "remax"]) == 0
    assert capsys.readouterr().out == CARD


PARTS = """
from core import advantage

@advantage
def halved(batch):
    \"\"\"Half the reward.\"\"\"
    return batch.rewards / 2
"""


def shown(folder: Path, *arguments: str) -> list[str]:
    """What the command prints in a folder of the user's."""
    command = [sys.executable, "-P", "-m", "experiments.cli.main", "bridge", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_part_of_ones_own_and_the_command_that_trains_with_it(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(PARTS)
    given = ["grpo", "--import", "my_parts", "-b", "grpo.advantage = @halved", "-b", "grpo.kl_coef = 0.1"]
    of_trl, of_verl = shown(tmp_path, "trl", *given), shown(tmp_path, "verl", *given)
    assert of_trl[0] == "grpo inside TRL: 4 exact, 0 approximate, 0 not possible"
    assert of_trl[2] == of_verl[2] == "  exact  advantage halved"
    own = "--variant grpo --import my_parts --bind 'grpo.advantage = @halved' --bind 'grpo.kl_coef = 0.1' --"
    rest = "--model_name_or_path MODEL --dataset_name DATASET --reward_funcs REWARD"
    assert of_trl[-2:] == [
        f"  grpolab-trl {own} {rest}",
        f"  accelerate launch $(which grpolab-trl) {own} {rest}",
    ]
    assert of_verl[-1] == (
        "  grpolab-verl +actor_rollout_ref.grpolab.variant=grpo '+actor_rollout_ref.grpolab.import=[\"my_parts\"]' "
        '\'+actor_rollout_ref.grpolab.bind=["grpo.advantage = @halved","grpo.kl_coef = 0.1"]\' '
        "actor_rollout_ref.actor.use_kl_loss=True data.train_files=FILE data.val_files=FILE "
        "actor_rollout_ref.model.path=MODEL"
    )


def test_a_quote_in_a_binding_is_one_for_hydra_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", "verl", "grpo", "-b", 'grpo.kl_place = "loss"']) == 0
    assert r'bind=["grpo.kl_place = \"loss\""]' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verl", "dapoo"], "no variant 'dapoo'; did you mean dapo"),
        (["trl", "dapo", "-b", "dapo.eps_hi = 0.3"], "known: advantage, aggregator"),
        (["trl", "dapo", "-b", "rloo.kl_coef = 0.3"], "the binding 'rloo.kl_coef' had no effect"),
        (["trl", "dapo", "--import", "no_such_parts"], "no module 'no_such_parts'"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_page_shows_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", "verl", "dapo"]) == 0
    card = capsys.readouterr().out.split("\n\nThe prompts")[0]
    assert f"```text\n{card}\n```" in (Path(__file__).parents[3] / "docs" / "engines.md").read_text("utf-8")
