"""Live progress of a study: runs done, and step, reward, accuracy, length and time left of the active ones."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.results.scored import Scores

BARS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 8
"""Characters of a curve."""


class Progress:
    """A live table on a terminal; elsewhere a line per finished run, and some evaluations on the way.

    Of a run alone there is a line whenever another tenth of its budget is spent, of several a quarter.
    """

    def __init__(self, runs: int, done: int, console: Console, scores: Scores | None = None) -> None:
        """`scores` gives a run's first score and the one it is judged by; without it the last evaluation is shown."""
        self._console, self._scores = console, scores
        self._runs, self._finished = runs, done
        # in runs; active and resumed runs count as fractions
        self._total = float(runs - done)
        self._started = time.monotonic()
        self._active: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._tested: dict[tuple[str, int], Mapping[str, float]] = {}
        self._rewards: dict[tuple[str, int], list[float]] = {}
        self._accuracies: dict[tuple[str, int], list[float]] = {}
        self._shown_at: dict[tuple[str, int], float] = {}
        self._began_at: dict[tuple[str, int], float] = {}
        self._alarmed: set[tuple[str, int]] = set()
        self._ended = 0.0
        self._live = Live(self, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, arm: str, seed: int, record: Mapping[str, Any]) -> None:
        """A run has made a step."""
        if (arm, seed) not in self._began_at:
            began_at = record["budget_share"] * (record["step"] - 1) / record["step"]
            self._began_at[arm, seed] = began_at
            self._total -= began_at
            self._shown_at[arm, seed] = record["budget_share"]
            if self._runs == 1 and self._scores and (began := self._scores.start(arm, seed)):
                self.print(f"{arm} seed {seed}: {began}")
        self._active[arm, seed] = record
        if record.get("alarm") and (arm, seed) not in self._alarmed:
            self._alarmed.add((arm, seed))
            self.print(f"{arm} seed {seed}, step {record['step']}: {record['alarm']}")
        self._tested[arm, seed] = record.get("evaluation") or self._tested.get((arm, seed), {})
        if record["reward"] is not None:
            self._rewards.setdefault((arm, seed), []).append(record["reward"])
        if record.get("evaluation"):
            self._accuracies.setdefault((arm, seed), []).append(next(iter(record["evaluation"].values())))
            self._show_evaluation(arm, seed, record)

    def _show_evaluation(self, arm: str, seed: int, record: Mapping[str, Any]) -> None:
        """Where there is no table, a line for an evaluation, if enough has been done since the last."""
        share = record["budget_share"]
        if self._live or share >= 1 or share - self._shown_at[arm, seed] < (0.1 if self._runs == 1 else 0.25) - 1e-9:
            return
        self._shown_at[arm, seed] = share
        reward = "" if record["reward"] is None else f"reward {record['reward']:.3f}, "
        tested = ", ".join(f"{suite} accuracy {value:.3f}" for suite, value in record["evaluation"].items())
        self.print(f"{arm} seed {seed}, step {_steps(record)}: {reward}{tested}  {self._time_left()}")

    def end(self, arm: str, seed: int, outcome: str) -> None:
        """A run has ended."""
        record = self._active.pop((arm, seed), None)
        began_at = self._began_at.get((arm, seed), 0.0)
        ended_at = 1.0 if outcome == "finished" else record["budget_share"] if record else began_at
        self._ended += ended_at - began_at
        self._total -= 1.0 - ended_at
        if outcome == "finished":
            self._finished += 1
            tested = self._scores.end(arm, seed) if self._scores else ""
            last = self._tested.get((arm, seed), {}).items()
            tested = tested or "  ".join(f"{suite} {value:.3f}" for suite, value in last)
            left = "" if self._live else f"  {self._time_left()}"
            self.print(f"[{self._finished}/{self._runs}] {arm} seed {seed}: {tested}{left}")
        else:
            self.print(f"{arm} seed {seed}: {outcome}")

    def print(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(Text(line))

    def _time_left(self) -> str:
        progress = self._ended + sum(
            record["budget_share"] - self._began_at[key] for key, record in self._active.items()
        )
        if progress <= 0:
            return "time left: measuring"
        left = (time.monotonic() - self._started) / progress * max(0, self._total - progress)
        return f"time left {int(left) // 60}:{int(left) % 60:02d}"

    def __rich__(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("run", "", "step", "reward", "accuracy", "length"):
            table.add_column(column, no_wrap=True)
        table.add_column(_cut("scored 0 because"))  # the one that gives way
        for (arm, seed), record in self._active.items():
            reward = "-" if record["reward"] is None else f"{record['reward']:.3f}"
            tested = ", ".join(f"{value:.3f}" for value in self._tested[arm, seed].values())
            table.add_row(
                f"{arm} seed {seed}",
                ProgressBar(total=1.0, completed=record["budget_share"], width=WIDTH),
                _steps(record),
                f"{curve(self._rewards.get((arm, seed), ()))} {reward}".strip(),
                f"{curve(self._accuracies.get((arm, seed), ()))} {tested}".strip(),
                "-" if record["length"] is None else f"{record['length']:.1f}",
                _cut(_causes(record)),
            )
        return Group(table, Text(f"{self._finished} of {self._runs} runs done, {self._time_left()}", style="bold"))


def _steps(record: Mapping[str, Any]) -> str:
    """The step, and about how many there will be, where tokens or seconds end the run."""
    return f"{record['step']}/{round(record['step'] / record['budget_share'])}"


def curve(values: Sequence[float]) -> str:
    """The course of a run so far in at most `WIDTH` characters, from its least (▁) to its largest value (█)."""
    size = -(-len(values) // WIDTH) or 1
    means = [sum(part) / len(part) for at in range(0, len(values), size) if (part := values[at : at + size])]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if high - low <= 1e-12:
        return BARS[0] * len(means)
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)


def _cut(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _causes(record: Mapping[str, Any]) -> str:
    """Why responses of the step scored 0, the commonest causes first."""
    counted = sorted(record.get("causes", {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{cause} {number}" for cause, number in counted[:2])
