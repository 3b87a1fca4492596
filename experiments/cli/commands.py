"""Every command: its name, what it is for, its options, and the function that carries it out.

That function is imported when the command runs: the command line is read without torch, whose import takes seconds.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from experiments.cli import arguments, bridge, check, doctor, lens, lens_options, memory

Run: TypeAlias = Callable[[argparse.Namespace], int]
AddOptions: TypeAlias = Callable[[argparse.ArgumentParser], None]

COMPARE: Final = "compare and judge"
UNDERSTAND: Final = "understand"
TRAIN: Final = "train"
FEEDBACK: Final = "data and feedback"
SHELL: Final = "the machine and the shell"


@dataclass(frozen=True)
class Command:
    """What `grpolab NAME` does."""

    name: str
    group: str
    """What it is for, a heading of `--help`."""
    add_options: AddOptions
    run: Run
    """Carries it out; returns the exit code."""
    resumable: bool
    """Whether the same command goes on where it was stopped."""
    needs_parts: bool
    """Whether it is carried out with all parts imported, which takes seconds."""

    @property
    def help(self) -> str:
        """One sentence."""
        return self.run.__doc__ or ""


COMMANDS: Final[list[Command]] = []
"""In the order of `--help`."""


def command(
    name: str, group: str, add_options: AddOptions, *, resumable: bool = False, needs_parts: bool = True
) -> Callable[[Run], Run]:
    """Make a function the command of this name; its docstring is the help."""

    def add(run: Run) -> Run:
        COMMANDS.append(Command(name, group, add_options, run, resumable, needs_parts))
        return run

    return add


@command("compare", COMPARE, arguments.compare_options, resumable=True)
def compare(options: argparse.Namespace) -> int:
    """Run arms x seeds and end with the verdicts."""
    from experiments.cli.compare import run_compare

    return run_compare(options)


@command("ablate", COMPARE, arguments.compare_options, resumable=True)
def ablate(options: argparse.Namespace) -> int:
    """Make arms of axes and a design (ablate.*), run them and end with the verdicts."""
    from experiments.cli.compare import run_ablate

    return run_ablate(options)


@command("tune", COMPARE, arguments.tune_options, resumable=True)
def tune(options: argparse.Namespace) -> int:
    """Try learning rates for every arm of a study, on seeds and questions of their own."""
    from experiments.cli.tune import run_tune

    return run_tune(options)


@command("analyze", COMPARE, arguments.analyze_options)
def analyze(options: argparse.Namespace) -> int:
    """Verdicts of a study that has been run, of another trainer's logs, or of anybody's tables."""
    from experiments.cli.analyze import run_analyze

    return run_analyze(options)


@command("report", COMPARE, arguments.report_options)
def report(options: argparse.Namespace) -> int:
    """Write a study's report, one HTML file, its tables and its figures."""
    from experiments.cli.conclude import run_report

    return run_report(options)


@command("watch", COMPARE, arguments.watch_options)
def watch(options: argparse.Namespace) -> int:
    """Watch a study while it runs, here and as a local page."""
    from experiments.report.watch import run_watch

    return run_watch(options)


@command("list", UNDERSTAND, arguments.list_options)
def list_parts(options: argparse.Namespace) -> int:
    """List every registered part by kind, and the shipped configs."""
    from experiments.cli.describe import run_list

    return run_list(options)


@command("describe", UNDERSTAND, arguments.describe_options)
def describe(options: argparse.Namespace) -> int:
    """Formula, source, axis card and parameters."""
    from experiments.cli.describe import run_describe

    return run_describe(options)


@command("check", UNDERSTAND, check.add_options)
def check_parts(options: argparse.Namespace) -> int:
    """Check parts against the contract of their kind."""
    return check.run_check(options)


@command("lens", UNDERSTAND, lens_options.add_options)
def measure_gradient(options: argparse.Namespace) -> int:
    """Measure the gradient itself: bias, variance, cost."""
    return lens.run_lens(options)


@command("memory", UNDERSTAND, memory.add_options)
def forecast_memory(options: argparse.Namespace) -> int:
    """Forecast the memory of a run, by purpose, before it is started."""
    return memory.run_memory(options)


@command("bridge", UNDERSTAND, bridge.add_options, needs_parts=False)
def describe_bridge(options: argparse.Namespace) -> int:
    """What of a variant holds inside TRL or verl, part by part, and the command that trains it there."""
    return bridge.run_bridge(options)


@command("train", TRAIN, arguments.train_options, resumable=True)
def train(options: argparse.Namespace) -> int:
    """Train one run."""
    from experiments.cli.train import run_train

    return run_train(options)


@command("sft", TRAIN, arguments.sft_options, resumable=True)
def sft(options: argparse.Namespace) -> int:
    """Fine-tune one run on worked solutions (default config: sft)."""
    from experiments.cli.train import run_sft

    return run_sft(options)


@command("make-base", TRAIN, arguments.make_base_options)
def make_base(options: argparse.Namespace) -> int:
    """Pretrain an embedded base model anew (minutes on one core)."""
    from experiments.cli.make_base import run_make_base

    return run_make_base(options)


@command("pass-rates", FEEDBACK, arguments.pass_rates_options)
def pass_rates(options: argparse.Namespace) -> int:
    """Measure how often the model passes each training question of files.path."""
    from experiments.feedback.pass_rates import run_pass_rates

    return run_pass_rates(options)


@command("judge", FEEDBACK, arguments.judge_options)
def judge(options: argparse.Namespace) -> int:
    """Measure how far the judge of train.rewards agrees with gold verdicts."""
    from experiments.feedback.judge_agreement import run_judge

    return run_judge(options)


@command("preferences", FEEDBACK, arguments.preferences_options)
def preferences(options: argparse.Namespace) -> int:
    """Make pairs of responses, labelled by an annotator of known accuracy."""
    from experiments.feedback.preferences import run_preferences

    return run_preferences(options)


@command("reward-model", FEEDBACK, arguments.reward_model_options, resumable=True)
def reward_model(options: argparse.Namespace) -> int:
    """Train a reward model on pairs of responses (reward_model_training.*)."""
    from experiments.feedback.reward_model import run_reward_model

    return run_reward_model(options)


@command("doctor", SHELL, doctor.add_options, needs_parts=False)
def examine_machine(options: argparse.Namespace) -> int:
    """What this machine has and what works on it, by checks that take minutes, with a remedy for what does not."""
    return doctor.run_doctor(options)


@command("completion", SHELL, arguments.completion_options, needs_parts=False)
def completion(options: argparse.Namespace) -> int:
    """Print a script that completes commands and options in bash, zsh or fish."""
    from experiments.cli.completion import run_completion

    return run_completion(options)
