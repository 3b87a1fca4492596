"""`grpolab completion`: scripts for shells, made from the parser, so that they know every command and option."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.launchers.launcher import LAUNCHERS

CONFIGS: Final = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Option:
    """An option: all its spellings, whether a value follows, the values that are known, its help."""

    names: tuple[str, ...]
    takes_value: bool
    values: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Completed:
    """What may follow a command's name."""

    name: str
    help: str
    options: tuple[Option, ...]
    takes_arguments: bool
    words: tuple[str, ...]
    """The arguments that are known; files are completed where there are none."""


def run_completion(options: argparse.Namespace) -> int:
    """`grpolab completion`."""
    print(SCRIPTS[options.shell](read_parser(options.parser)))
    return 0


def read_parser(parser: argparse.ArgumentParser) -> list[Completed]:
    """The commands of a parser, with their options. An option's name means the same in all of them."""
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return [_read_command(name, each) for name, each in commands.choices.items()]


def _read_command(name: str, parser: argparse.ArgumentParser) -> Completed:
    options = [
        Option(tuple(each.option_strings), each.nargs != 0, _values(each), each.help or "")
        for each in parser._actions
        if each.option_strings
    ]
    arguments = [each for each in parser._actions if not each.option_strings]
    words = [str(word) for each in arguments for word in each.choices or ()]
    return Completed(name, parser.description or "", tuple(options), bool(arguments), tuple(words))


def _values(action: argparse.Action) -> tuple[str, ...]:
    """The values of an option that are known: its choices, shipped files, launchers."""
    if action.dest == "config":
        return tuple(sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.gin")))
    if action.dest == "accelerate":
        return tuple(sorted(path.stem for path in (CONFIGS / "accelerate").glob("*.yaml")))
    return tuple(map(str, LAUNCHERS if action.dest == "launcher" else action.choices or ()))


def _valued(commands: Iterable[Completed]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Options that take a value, of all commands, with the values that are known."""
    return {each.names: each.values for command in commands for each in command.options if each.takes_value}


def _spellings(command: Completed) -> list[str]:
    return [name for option in command.options for name in option.names]


def _quoted(text: str) -> str:
    """A description in single quotes, without what a shell would read in it."""
    return "'" + text.replace("'", "’").replace("\\", "").replace("%%", "%") + "'"


def bash_script(commands: list[Completed]) -> str:
    """A script for bash, to be sourced or put into a folder of completions."""
    values = [
        f'    {"|".join(names)}) value=yes; words="{" ".join(known)}" ;;' for names, known in _valued(commands).items()
    ]
    cases = []
    for each in commands:
        options, words = " ".join(_spellings(each)), " ".join(each.words)
        cases.append(
            f'    {each.name}) options="{options}"; arguments="{words if each.takes_arguments else options}" ;;'
        )
    names = " ".join(each.name for each in commands)
    return BASH.format(names=names, values="\n".join(values), cases="\n".join(cases))


BASH: Final = """\
# completion of grpolab in bash: source <(grpolab completion bash)
_grpolab() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}"
  local words= options= arguments= value=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "{names} --help --version" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$before" in
{values}
  esac
  if [[ -z $value ]]; then
    if [[ $current == -* ]]; then words="$options"; else words="$arguments"; fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $before == -c || $before == --config ]]; then
    COMPREPLY+=($(compgen -f -X '!*.gin' -- "$current"))
  fi
}}
complete -o bashdefault -o default -F _grpolab grpolab"""


def zsh_script(commands: list[Completed]) -> str:
    """A script for zsh, to be sourced after compinit or put into a folder of `fpath` as `_grpolab`."""
    values = []
    for names, known in _valued(commands).items():
        adding = f"compadd -- {' '.join(known)}; " if known else "_files; "
        adding += "_files -g '*.gin'; " if "--config" in names else ""
        values.append(f"    {'|'.join(names)}) {adding}return ;;")
    cases = []
    for each in commands:
        options = " ".join(_quoted(f"{name}:{option.help}") for option in each.options for name in option.names)
        words = " ".join(each.words if each.takes_arguments else _spellings(each))
        cases.append(f"    {each.name}) options=({options}); arguments=({words}) ;;")
    described = " ".join(_quoted(f"{each.name}:{each.help}") for each in commands)
    return ZSH.format(names=described, values="\n".join(values), cases="\n".join(cases))


ZSH: Final = """\
#compdef grpolab
# completion of grpolab in zsh: source <(grpolab completion zsh), after compinit
_grpolab() {{
  local -a commands options arguments
  if ((CURRENT == 2)); then
    commands=({names})
    _describe command commands
    return
  fi
  case $words[CURRENT-1] in
{values}
  esac
  case $words[2] in
{cases}
  esac
  if [[ $words[CURRENT] == -* ]]; then
    _describe option options
  elif (($#arguments)); then
    compadd -a arguments
  else
    _files
  fi
}}
compdef _grpolab grpolab"""


def fish_script(commands: list[Completed]) -> str:
    """A script for fish, to be sourced or put into its folder of completions."""
    lines = ["# completion of grpolab in fish: grpolab completion fish | source"]
    for command in commands:
        first = f"complete -c grpolab -n __fish_use_subcommand -f -a {command.name}"
        lines.append(f"{first} -d {_quoted(command.help)}")
        here = f"complete -c grpolab -n '__fish_seen_subcommand_from {command.name}'"
        if command.words or not command.takes_arguments:
            lines.append(f"{here} -f" + (f" -a '{' '.join(command.words)}'" if command.words else ""))
        for option in command.options:
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            exclusive = option.values and "--config" not in option.names  # no file is meant
            value = " -x" if exclusive else " -r" if option.takes_value else ""
            values = f" -a '{' '.join(option.values)}'" if option.values else ""
            lines.append(f"{here} {spelled}{value}{values} -d {_quoted(option.help)}")
    return "\n".join(lines)


SCRIPTS: Final = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
