"""The command line: `grpolab COMMAND`."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from core.errors import GrpoLabError, describe_error
from core.parts.import_path import find_modules_in
from core.printable import printable
from experiments.cli.commands import COMMANDS
from experiments.launchers.choice import import_launcher
from experiments.launchers.launcher import LAUNCHERS
from experiments.setup import import_parts, quiet_libraries


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends with one readable message and exit code 2."""
    find_modules_in(os.getcwd())
    resumable = False
    try:
        import_launcher(arguments)
        options = _parse(arguments)
        resumable = options.command.resumable
        if options.command.needs_parts:
            _prepare_launcher(options)
            import_parts()
            quiet_libraries()
        return _run(options)
    except GrpoLabError as error:
        print(printable(f"grpolab: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file that cannot be read, a name that is too long, ...
        if error.filename is None:
            raise
        print(printable(f"grpolab: {error.filename}: {error.strerror}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command goes on from here" if resumable else ""
        print(f"stopped{hint}", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        from experiments.cli.unknown import refuse_unknown

        refuse_unknown(options, unknown)
    return options


def _prepare_launcher(options: argparse.Namespace) -> None:
    """Of a command that is to run studies, have the launcher begin what can go on beside its imports."""
    launcher = LAUNCHERS.get(getattr(options, "launcher", ""))
    if launcher is not None and not options.dry_run:
        launcher.prepare()


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.command.run(options)
    except SystemExit as error:  # or the command would seem to have succeeded
        raise GrpoLabError(
            f"a part of yours ended the program: {describe_error(error)}; raise an exception instead"
        ) from error
    return code


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(
        prog="grpolab",
        description="The research bench for critic-free RL of language models.",
        epilog=_grouped_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"grpolab {version('grpo-lab')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help="one of those below; each has --help")
    for command in COMMANDS:
        # without a help of its own: it is listed in the epilog, by group
        added = commands.add_parser(command.name, description=command.help, allow_abbrev=False)
        added.set_defaults(command=command, parser=parser, command_parser=added)
        command.add_options(added)
    return parser


def _grouped_commands() -> str:
    """Every command with its help, under the heading of its group, as wide as the terminal."""
    width = max(len(command.name) for command in COMMANDS) + 4
    lines = []
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines += ["", f"{group}:"]
        for each in COMMANDS:
            if each.group == group:
                first = f"  {each.name}".ljust(width)
                columns = max(shutil.get_terminal_size().columns - 2, width + 20)  # as argparse has them
                lines += textwrap.wrap(each.help, columns, initial_indent=first, subsequent_indent=" " * width)
    return "\n".join(lines[1:])


if __name__ == "__main__":
    sys.exit(main())
