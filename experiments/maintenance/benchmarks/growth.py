"""Processor time of training against steps, seeds, prompts, samples a prompt and tokens, on the embedded model.

    python -m experiments.maintenance.benchmarks.growth [--figure docs/growth.svg] [--only tokens]

One of the five varies, the others stay as `BASE` says. By steps, seconds of a whole run; by seeds, of a whole command,
`grpolab compare` with two arms for six steps, and all its descendants; else of a step after the first, evaluation
apart. But for the command every response runs to the limit, so that the work is known. One thread; the median of a few
rounds.

Prints Markdown: the seconds, the largest deviation from a line and the exponent. The line is a + b n with the least
squares of the relative deviations (a + b n - t) / t; a is what does not grow. The exponent p is that of the nearest
a + b n^p.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import optimize

from core.generation.base import Generation, Request
from core.generation.native import Native
from core.loop.train import run
from core.model.policy import Policy
from core.parts.contracts import generator, reward
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.maintenance.benchmarks.long_responses import NO_END
from experiments.maintenance.benchmarks.whole_runs import ARMS, compare_command, spent
from experiments.plots.style import STYLE
from experiments.report.arm_style import MUTED, TONES
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import CONFIGS, build

BASE: Final = {"steps": 6, "prompts": 16, "samples": 8, "tokens": 56}
SIZES: Final[dict[str, tuple[int, ...]]] = {
    "steps": (5, 10, 20, 40),
    "seeds": (1, 2, 4, 8),
    "prompts": (4, 8, 16, 32, 64),
    "samples": (4, 8, 16, 32, 64),
    "tokens": (28, 56, 112, 168, 224),
}
NAMES: Final = {
    "steps": "steps of a run",
    "seeds": "seeds of a study of two arms",
    "prompts": "prompts a step",
    "samples": "samples a prompt",
    "tokens": "tokens a response",
}
BINDINGS: Final = {
    "steps": "train.steps",
    "prompts": "train.prompts",
    "samples": "train.group_size",
    "tokens": "train.max_tokens",
}
QUIET: Final = (
    "train.generator = @unending()",
    "train.rewards = [@growth_reward]",
    "train.threads = 1",
    "evaluation.every = 1000",
    "evaluation.questions = 1",
    "evaluation.split = 'test'",
)

SHORT: Final = ("train.steps = 6", "evaluation.every = 2", "evaluation.questions = 16")
"""Runs of a study, which are evaluated three times at least."""


@reward
def growth_reward(problem: Problem, response: str) -> float:  # noqa: ARG001 - the contract's arguments
    """The share of the digit 1, which differs within every group: every response is trained on."""
    return response.count("1") / max(1, len(response))


@dataclass(frozen=True)
class Unending:
    """The native generator, of a policy that nothing ends."""

    exact = True

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Responses that all run to the limit."""
        ends, policy.end_tokens = policy.end_tokens, NO_END
        try:
            return Native(0.75).generate(policy, requests)
        finally:
            policy.end_tokens = ends


@generator
def unending() -> Unending:
    """Responses of a known length, for measuring what a step takes."""
    return Unending()


@dataclass(frozen=True)
class Growth:
    """Seconds t at sizes n, and the line a + b n through them."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    def fitted(self, exponent: float = 1.0) -> NDArray[np.float64]:
        """a + b n^exponent at every size: a and b, not negative, by least squares of the deviations relative to t."""
        n, t = np.array(self.sizes, dtype=np.float64), np.array(self.seconds)
        terms = np.stack([np.ones_like(t), n**exponent], axis=1)
        return np.asarray(terms @ optimize.nnls(terms / t[:, None], np.ones_like(t))[0])

    @property
    def deviation(self) -> float:
        """The largest of |a + b n - t| / t."""
        return float(np.abs(self.fitted() / self.seconds - 1).max())

    @property
    def exponent(self) -> float:
        """That with which a + b n^exponent comes nearest."""

        def squares(exponent: float) -> float:
            return float(((self.fitted(exponent) / self.seconds - 1) ** 2).sum())

        return float(optimize.minimize_scalar(squares, bounds=(0.3, 3.0), method="bounded").x)


def clock(**sizes: int) -> list[float]:
    """Processor seconds of this process before a run of these sizes, after each of its steps, and after its end."""
    sizes = BASE | sizes
    bindings = [f"{name} = {sizes[axis]}" for axis, name in BINDINGS.items()]
    with config([CONFIGS / "embedded.gin"], [*bindings, *QUIET]):
        recipe = build("train")
    times = [time.process_time()]

    def note(_: Mapping[str, Any]) -> None:
        """When a step ended."""
        times.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        run(recipe, 0, RunStore(Path(folder)), facts={"identity": {}}, watch=note)
    return [*times, time.process_time()]


def of_a_run(steps: int) -> float:
    """Processor seconds of a whole run."""
    times = clock(steps=steps)
    return times[-1] - times[0]


def of_a_step(**sizes: int) -> float:
    """Processor seconds of a step, the mean of those between the first and the last, which an evaluation follows."""
    _, first, *_, before_last, _, _ = clock(**sizes)
    return (before_last - first) / (BASE["steps"] - 2)


def of_a_study(seeds: int) -> float:
    """Processor seconds of a command that runs two arms with so many seeds, for a few steps."""
    with tempfile.TemporaryDirectory() as out:
        return float(spent(compare_command(out, seeds, ARMS, *SHORT))[0][0])


WHOLE: Final = {"steps": of_a_run, "seeds": of_a_study}


def measured(names: Sequence[str], rounds: int) -> dict[str, Growth]:
    """Every series, by the median of so many rounds."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for name in names:
            for size in SIZES[name]:
                taken = WHOLE[name](size) if name in WHOLE else of_a_step(**{name: size})
                seconds.setdefault((name, size), []).append(taken)
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    return {name: Growth(SIZES[name], tuple(medians[name, size] for size in SIZES[name])) for name in names}


def rows(series: Mapping[str, Growth]) -> Iterator[str]:
    """A table with a row for each series."""
    yield "| | CPU seconds at | largest deviation from a line | exponent |"
    yield "|---|---|--:|--:|"
    for name, growth in series.items():
        points = ", ".join(f"{n}: {t:.3g}" for n, t in zip(growth.sizes, growth.seconds, strict=True))
        yield f"| {NAMES[name]} | {points} | {100 * growth.deviation:.0f} % | {growth.exponent:.2f} |"


def draw(series: Mapping[str, Growth], file: Path) -> None:
    """Seconds against size and the line through them, a panel each."""
    with rc_context(STYLE | {"svg.hashsalt": "grpolab"}):
        figure = Figure(figsize=(2.1 * len(series), 2.2), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for ax, (name, growth) in zip(panels, series.items(), strict=True):
            ax.plot(growth.sizes, growth.fitted(), color=MUTED, linewidth=1)
            ax.plot(growth.sizes, growth.seconds, "o", color=TONES[1][0], markersize=4)
            most = growth.sizes[-1]
            ax.set(xlabel=NAMES[name], xlim=(0, None), ylim=(0, None), xticks=[0, most // 2, most])
        panels[0].set_ylabel("CPU seconds")
        figure.savefig(file, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME", help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="an SVG file to be drawn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    import_parts()
    quiet_libraries()
    of_a_step()  # what is done once in a process
    series = measured(options.only, options.rounds)
    print("\n".join(rows(series)))
    if options.figure:
        draw(series, options.figure)


if __name__ == "__main__":
    main()
