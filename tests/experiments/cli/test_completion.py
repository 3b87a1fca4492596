"""Completion in shells: the script of bash is run, those of others are read."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.cli.commands import COMMANDS
from experiments.cli.completion import SCRIPTS, bash_script, read_parser
from experiments.cli.main import main, make_parser

NAMES = [command.name for command in COMMANDS]
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def complete(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words after `grpolab`."""
    quoted = " ".join(f"'{word}'" for word in ("grpolab", *words))
    script = f"{bash_script(read_parser(make_parser()))}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words)}\n"
    script += '_grpolab\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    shell = ["bash", "--norc", "--noprofile", "-u"]
    done = subprocess.run([*shell, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.split()


@bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), [*NAMES, "--help", "--version"]),
        (("re",), ["report", "reward-model"]),
        (("--v",), ["--version"]),
        (("compare", "--see"), ["--seeds"]),
        (("compare", "-c", "demo", "--dr"), ["--dry-run"]),
        (("train", "--see"), ["--seed"]),
        (("analyze", "--scalar", ""), ["final", "auc"]),
        (("analyze", "x.csv", "--family", "a"), ["all"]),
        (("compare", "--launcher", "s"), ["slurm"]),
        (("compare", "--accelerate", "f"), ["fsdp2"]),
        (("train", "-c", "dem"), ["demo"]),
        (("train", "--config", "claims/k"), ["claims/kl_place", "claims/kl_place_2"]),
        (("train", "-c", "mi"), ["mine.gin"]),
        (("train", "-c", "demo", "--name", ""), []),
        (("report", ""), []),  # a folder: the shell's own completion takes over
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes_commands_options_and_values(tmp_path: Path, words: tuple[str, ...], offered: list[str]) -> None:
    (tmp_path / "mine.gin").touch()
    (tmp_path / "mixed.txt").touch()
    assert complete(tmp_path, *words) == offered


@bash
def test_every_option_of_every_command_is_offered(tmp_path: Path) -> None:
    (commands,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    assert list(commands.choices) == NAMES
    for name, parser in commands.choices.items():
        options = [option for action in parser._actions for option in action.option_strings]
        assert complete(tmp_path, name, "-") == options


def test_an_option_means_the_same_in_all_commands() -> None:
    """So that a shell may look at the option alone."""
    meanings: dict[str, set[tuple[bool, tuple[str, ...]]]] = {}
    for command in read_parser(make_parser()):
        for option in command.options:
            for name in option.names:
                meanings.setdefault(name, set()).add((option.takes_value, option.values))
    assert {name: each for name, each in meanings.items() if len(each) > 1} == {}


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_every_shell_has_a_script_with_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script.startswith(("# completion of grpolab in", "#compdef grpolab\n"))
    assert all(name in script for name in (*NAMES, "claims/kl_place", "slurm"))
    assert "'t " not in script, "an apostrophe would end a description"
    if program := shutil.which(shell):
        done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err


# help


def test_help_has_every_command_in_its_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "positional arguments:",
        "options:",
        "compare and judge:",
        "understand:",
        "train:",
        "data and feedback:",
        "the machine and the shell:",
    ]
    at = {line.split()[0]: place for place, line in enumerate(lines) if line.startswith("  ") and line[2] != " "}
    assert [name for name in at if name in NAMES] == NAMES
    assert lines.index("compare and judge:") < at["compare"] < at["watch"] < lines.index("understand:") < at["lens"]
