"""Live progress of a study: runs done, and step, reward, length and time left of the active ones."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.results.scored import Scores


class Progress:
    """A live table on a terminal; one line per finished run elsewhere."""

    def __init__(self, runs: int, done: int, console: Console, scores: Scores | None = None) -> None:
        """`scores` gives a run's first score and the one it is judged by; without it the last evaluation is shown."""
        self._console, self._scores = console, scores
        self._runs, self._finished = runs, done
        # in runs; active and resumed runs count as fractions
        self._total = float(runs - done)
        self._started = time.monotonic()
        self._active: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._tested: dict[tuple[str, int], Mapping[str, float]] = {}
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
            if self._runs == 1 and self._scores and (began := self._scores.start(arm, seed)):
                self.print(f"{arm} seed {seed}: {began}")
        self._active[arm, seed] = record
        if record.get("alarm") and (arm, seed) not in self._alarmed:
            self._alarmed.add((arm, seed))
            self.print(f"{arm} seed {seed}, step {record['step']}: {record['alarm']}")
        self._tested[arm, seed] = record.get("evaluation") or self._tested.get((arm, seed), {})

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
        for column in ("run", "", "step", "reward", "length", "last accuracy", "scored 0 because"):
            table.add_column(column)
        for (arm, seed), record in self._active.items():
            tested = ", ".join(f"{value:.3f}" for value in self._tested[arm, seed].values())
            table.add_row(
                f"{arm} seed {seed}",
                ProgressBar(total=1.0, completed=record["budget_share"], width=20),
                # about, where tokens or seconds end it
                f"{record['step']}/{round(record['step'] / record['budget_share'])}",
                "-" if record["reward"] is None else f"{record['reward']:.3f}",
                "-" if record["length"] is None else f"{record['length']:.1f}",
                tested,
                _causes(record),
            )
        return Group(table, Text(f"{self._finished} of {self._runs} runs done, {self._time_left()}", style="bold"))


def _causes(record: Mapping[str, Any]) -> str:
    """Why responses of the step scored 0, the commonest causes first."""
    counted = sorted(record.get("causes", {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{cause} {number}" for cause, number in counted[:2])
