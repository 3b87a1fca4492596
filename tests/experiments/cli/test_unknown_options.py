"""An option that a command does not take is refused with the command's usage and what was probably meant."""

from pathlib import Path

import pytest

from experiments.cli.commands import COMMANDS
from experiments.cli.main import main, make_parser

SAID = [
    ("compare -c plain.gin --seed 3", "unknown option --seed: did you mean --seeds?"),
    ("analyze x.csv --base grpo", "unknown option --base: did you mean --baseline?"),
    ("train --see 3", "unknown option --see: did you mean --seed?"),
    ("compare -c plain.gin --sedes 3", "unknown option --sedes: did you mean --seeds?"),
    ("compare -c plain.gin --steps 3", 'unknown option --steps: a setting is bound by -b "train.steps = 3"'),
    ("train --steps=3", 'unknown option --steps: a setting is bound by -b "train.steps = 3"'),
    ("train -steps 3", 'unknown option -steps: a setting is bound by -b "train.steps = 3"'),
    ("train --learning-rate 1e-4", '-b "adamw.learning_rate = 1e-4"'),
    ("train --model tiny", "-b \"policy.model = 'tiny'\""),
    ("train --train.variant @rloo()", '-b "train.variant = @rloo()"'),
    ("train --ratio_cap 3", '-b "capped_clip.ratio_cap = 3"'),
    ("compare --num_generations 4", "an option of TRL: here it is train.group_size; a setting is bound by -b"),
    ("analyze x.csv --beta 0.04", "an option of TRL: here it is grpo_trl.kl_coef; a setting is bound by -b"),
    ("analyze x.csv --steps 3", '-b "train.steps = 3", where runs are made: grpolab train, compare, ...'),
    ("train --zzzz", "unknown option --zzzz: grpolab train --help lists all"),
    ("train demo", "unrecognized arguments: demo: grpolab train --help says what goes where"),
]


@pytest.mark.parametrize(("line", "said"), SAID, ids=[line for line, _ in SAID])
def test_an_unknown_option_is_refused_with_what_was_meant(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    error, command = capsys.readouterr().err, line.split()[0]
    assert error.startswith(f"usage: grpolab {command} ")
    assert f"grpolab {command}: error: " in error
    assert said in error
    assert not list(tmp_path.iterdir())


def test_no_command_takes_an_abbreviation(capsys: pytest.CaptureFixture[str]) -> None:
    commands = next(action for action in make_parser()._actions if isinstance(action.choices, dict)).choices
    assert isinstance(commands, dict)
    assert sorted(commands) == sorted(command.name for command in COMMANDS)
    for parser in (make_parser(), *commands.values()):
        assert not parser.allow_abbrev, parser.prog
