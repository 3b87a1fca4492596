"""Seconds per optimizer step on a real model, and the ratio to TRL per generated token, in one run.

    python -m experiments.maintenance.benchmarks.step_time --model FOLDER --peer PYTHON

Both sides: GRPO, the same questions and chat template, 8 x 8 responses of at most 64 tokens, bfloat16, learning rate
1e-5, the same number of threads; ours keeps float32 master weights. The first step of each is not counted. `--peer` is
the Python of an environment with trl and datasets; without it only ours is measured. The sides run one after the other.

Ours leaves responses without advantage (groups without spread, share printed as `no_spread`) out of the training pass,
which changes nothing in the gradient; the peer computes them.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from core import SETTINGS
from core.loop.train import run
from core.parts.contracts import reward, task
from core.parts.problems import Problem
from core.parts.registry import Part, config
from core.store.run_folder import RunStore
from experiments.setup import import_parts, quiet_libraries

PROMPTS: Final = 8
TRL: Final[dict[str, Any]] = {"plain": False, "pattern": None, "test": [], "samples": 2, "learning_rate": 1e-5}
"""Settings of `trl_step.py` where nothing else is said: messages, an answer that occurs anywhere, no evaluation."""


def questions() -> list[tuple[str, str]]:
    """Fixed sums with their answers."""
    rng = random.Random(0)
    pairs = [(rng.randint(1, 30), rng.randint(1, 30)) for _ in range(PROMPTS)]
    return [(f"What is {x} + {y}? Answer with just the number.", str(x + y)) for x, y in pairs]


@reward
def answer_occurs(problem: Problem, response: str) -> bool:
    """Whether the answer occurs in the response."""
    return problem.answer in response


class FixedQuestions:
    """The same questions in every step."""

    rewards: tuple[Part, ...] = (answer_occurs,)
    suites = ("test",)
    patterns: Mapping[str, str] = MappingProxyType({})

    def problem(self, split: str, seed: int, index: int) -> Problem:  # noqa: ARG002 - the contract's arguments
        """Question `index`, round and round."""
        question, answer = questions()[index % PROMPTS]
        return Problem([{"role": "user", "content": question}], answer, index)


@task
def benchmark_questions() -> FixedQuestions:
    """The questions that both sides are timed on."""
    return FixedQuestions()


def ours(options: argparse.Namespace) -> dict[str, float]:
    """Train for a few steps; the run's own clocks, evaluation left out."""
    import_parts()
    quiet_libraries()
    bindings = (
        "train.variant = @grpo()",
        "train.task = @benchmark_questions()",
        "train.generator = @native()",
        f"train.group_size = {options.group}",
        f"train.prompts = {PROMPTS}",
        f"train.steps = {options.steps}",
        f"train.max_tokens = {options.new_tokens}",
        f"train.threads = {options.threads}",
        f"train.micro_tokens = {options.micro_tokens}",
        f"policy.model = {options.model!r}",
        f"policy.dtype = '{options.dtype}'",
        "adamw.learning_rate = 1e-5",
        "evaluation.questions = 1",
        "evaluation.every = 1000",
    )
    with config(bindings=bindings):
        recipe = SETTINGS["train"]()

    cpu: list[float] = []

    def note(record: Mapping[str, Any]) -> None:  # noqa: ARG001 - what a watch is handed
        """Processor seconds so far."""
        cpu.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        run(recipe, 0, RunStore(Path(folder)), facts={"identity": {}}, watch=note)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()][1:]
    return {
        "seconds": sum(line["seconds"][p] for line in lines for p in ("sample", "fill", "update")) / len(lines),
        "cpu_seconds": (cpu[-2] - cpu[0]) / (len(cpu) - 2),  # the last step is followed by an evaluation
        "tokens": sum(line["sampled_tokens"] for line in lines) / len(lines),
        "no_spread": sum(line["no_spread"] for line in lines) / len(lines),
        "sample_seconds": sum(line["seconds"]["sample"] for line in lines) / len(lines),
        "update_seconds": sum(line["seconds"]["update"] for line in lines) / len(lines),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def theirs(options: argparse.Namespace) -> dict[str, float]:
    """The peer's figures, from its own environment."""
    sizes = {name: getattr(options, name) for name in ("steps", "group", "new_tokens", "threads")}
    settings = {"model": options.model, "dtype": options.dtype, "questions": questions(), "prompts": PROMPTS}
    text = json.dumps(TRL | settings | sizes)
    result = subprocess.run(trl_command(options.peer), input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def trl_command(python: str) -> list[str]:
    """The command that measures TRL in the environment of `python`; its settings are its input, as JSON."""
    return [python, str(Path(__file__).with_name("trl_step.py"))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a chat model")
    parser.add_argument("--peer", help="Python of an environment with trl and datasets")
    parser.add_argument("--dtype", default="bfloat16")
    for name, value in (("steps", 4), ("group", 8), ("new-tokens", 64), ("threads", 2), ("micro-tokens", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    sides = {"grpo-lab": ours(options)} | ({"trl": theirs(options)} if options.peer else {})
    for name, figures in sides.items():
        per_token = 1000 * figures["seconds"] / figures["tokens"]
        print(f"{name}: {per_token:.2f} ms per generated token;", {k: round(v, 2) for k, v in figures.items()})
    if options.peer:
        for name in ("seconds", "cpu_seconds"):
            one, other = (figures[name] / figures["tokens"] for figures in sides.values())
            print(f"ratio of {name} per generated token: {other / one:.2f}")


if __name__ == "__main__":
    main()
