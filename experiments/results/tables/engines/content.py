"""Logs as measurements: whose run each is, which of its numbers are asked for, and what had been spent."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from experiments.results.tables.engines.axes import Spent, axes_of
from experiments.results.tables.engines.configs import settings_of
from experiments.results.tables.engines.log import Line, Log, Settings
from experiments.results.tables.engines.pairing import pairing_notes, pairing_warnings
from experiments.results.tables.measurements import Content, Measurement
from experiments.results.tables.metrics import chosen, listed
from experiments.results.tables.names import Names
from experiments.results.tables.sheets import TableError

Run = tuple[str, int]


@dataclass(frozen=True)
class Named:
    """A log whose arm and seed are known."""

    log: Log
    arm: str
    seed: int
    settings: Settings
    prefix: str
    """Before the names of its metrics."""
    by_name: bool
    """Whether arm and seed were read from its name, and not from its configuration."""

    @property
    def metrics(self) -> dict[str, str]:
        """The names of its metrics, and what the log calls them."""
        return {f"{self.prefix}{name}": name for line in self.log.lines for name in line.values}


def content_of_logs(
    logs: Sequence[Log],
    names: Names,
    *,
    source: str,
    metric: str | None = None,
    every: bool = False,
    root: Path = Path(),
    hydra: Iterable[Path] = (),
    beside: Collection[str] = (),
) -> Content:
    """The measurements of the metric that is meant, or of every metric.

    `root` is what names of runs are read below, `hydra` the configurations that hydra wrote, `beside` the metrics of
    the tables that are read too.

    Raises TableError where a run's arm or seed cannot be told, and for two runs of one arm and seed.
    """
    hydra = [*hydra]
    runs = _short_arms([_identified(log, names, root, settings_of(log, hydra)) for log in _whole(logs)], names)
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    wanted = list(known) if every else [chosen(metric, [*known, *beside], source)[0]]
    notes = [note for run in runs for note in run.log.notes]
    content = Content([], notes, named=any(run.by_name for run in runs))
    gaps: dict[str, list[str]] = {}
    for (arm, seed), of in _by_run(runs).items():
        measured = [(name, _the_one(name, of, notes)) for name in wanted]
        if not any(one for _, one in measured):
            own = listed({name: None for each in of for name in each.metrics}) or "no numbers at all"
            said = f"{of[0].log.source}: arm {arm!r}, seed {seed} has no {wanted[0]!r}, only {own}"
            content.unmeasured[arm, seed] = said
            continue
        spent = _spent(of, notes, gaps)
        for name, one in measured:
            if one is not None:
                content.measurements.extend(_measurements(one, name, spent, notes))
        if stopped := _stopped(of):
            content.stopped[arm, seed] = stopped
    notes.extend(f"{_first_of(sources)}: {reason}." for reason, sources in gaps.items())
    notes[:] = [
        *dict.fromkeys([*notes, *_configured(runs), *pairing_notes([run.settings for run in runs if not run.log.told])])
    ]
    content.warnings.extend(pairing_warnings([(run.arm, run.seed, run.settings) for run in runs if not run.log.told]))
    return content


def _whole(logs: Iterable[Log]) -> list[Log]:
    """A log for each run, of all its parts; of snapshots the one that reached the last step."""
    parts: dict[tuple[str, Path, str], list[Log]] = {}
    for log in logs:
        parts.setdefault(log.key, []).append(log)
    return [_joined(of) for of in parts.values()]


def _joined(parts: Sequence[Log]) -> Log:
    if parts[0].snapshot:
        return max(parts, key=lambda log: log.progress or (0.0, 0.0))
    if len(parts) == 1:
        return parts[0]
    notes = tuple(note for part in parts for note in part.notes)
    return replace(parts[0], lines=[line for part in parts for line in part.lines], notes=notes)


def _identified(log: Log, names: Names, root: Path, settings: Settings) -> Named:
    """By the name where it marks a seed, else by the configuration, else by a last number.

    A title such as fluent-sun-3 has a number that is no seed: there the configuration comes first.
    """
    if log.told and settings.arm is not None and settings.seed is not None:
        return Named(log, settings.arm, settings.seed, settings, "", by_name=False)
    path = Path(os.path.relpath(log.run, root)).as_posix()
    path = log.run.absolute().name if path.startswith(".") else path
    tried = [log.title or path] if names.given else [*([log.title] if log.title else []), path]
    sure = next((name for name in tried if names.has_mark(name)), None)
    numbered = names.matches(tried[0]) and (log.title is None or settings.seed is None)
    if sure is None and not numbered and names.given is None and settings.seed is not None:
        arm = settings.arm or (path if log.title is None else None)
        if arm is not None:
            return Named(log, arm, settings.seed, settings, "", by_name=False)
    arm, seed, rest = names.read(sure or tried[0], log.source)
    return Named(log, arm, seed, settings, f"{rest}/" if log.below and rest else "", by_name=True)


def _short_arms(runs: Sequence[Named], names: Names) -> list[Named]:
    """Without the folders that the arms of all paths lie in, as a project's."""
    arms = {run.arm for run in runs if run.by_name and not run.log.title}
    if names.given or len(arms) < 2:
        return [*runs]
    folder = os.path.commonpath([os.path.dirname(arm) for arm in arms])
    cut = len(folder) + 1 if folder else 0
    return [replace(run, arm=run.arm[cut:]) if run.by_name and not run.log.title else run for run in runs]


def _by_run(runs: Iterable[Named]) -> dict[Run, list[Named]]:
    found: dict[Run, list[Named]] = {}
    for run in runs:
        found.setdefault((run.arm, run.seed), []).append(run)
    return found


def _the_one(metric: str, of: Sequence[Named], notes: list[str]) -> Named | None:
    """The log that a run's metric is read from: of several kinds the first; TableError for two of a kind."""
    having = [run for run in of if metric in run.metrics]
    if not having:
        return None
    first, *others = having
    for other in others:
        if other.log.kind == first.log.kind:
            raise TableError(
                f"{other.log.source}: arm {first.arm!r}, seed {first.seed} again, as in {first.log.source}; give each "
                "run a name of its own, or name the files of one of them only"
            )
        notes.append(f"{first.arm}, seed {first.seed}: read from {first.log.source}, not from {other.log.source}.")
    return first


def _spent(of: Sequence[Named], notes: list[str], gaps: dict[str, list[str]]) -> dict[str, Spent]:
    """What a run had spent, by whichever of its logs says so; `gaps` takes the logs by why an axis is not known."""
    for run in of:
        spent, reasons = axes_of(run.log.lines)
        for reason in reasons:
            gaps.setdefault(reason, []).append(run.log.source)
        if spent:
            notes.extend(_said(axis, each) for axis, each in spent.items())
            return spent
    return {}


def _first_of(sources: Sequence[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"


def _said(axis: str, spent: Spent) -> str:
    added = "as logged, since the start" if spent.how == "total" else "added up over the steps"
    return f"The axis {axis} is {spent.name!r}, {added}{'; prompts are counted in' if axis == 'tokens' else ''}."


def _measurements(run: Named, metric: str, spent: Mapping[str, Spent], notes: list[str]) -> list[Measurement]:
    """A run's values of a metric by step; of two of one step the later."""
    log, own = run.log, run.metrics[metric]
    having = [line for line in log.lines if own in line.values]
    points: dict[float, Line] = {line.step: line for line in having}
    if len(points) < len(having):
        notes.append(
            f"{log.source}: {len(having) - len(points)} values of {metric} are of a step that was logged again, as by "
            "a run that was resumed; the later counts."
        )
    steps = sorted(points)
    axes = {"steps": steps}
    for axis, each in spent.items():
        amounts = [amount for step in steps if (amount := each.at(step)) is not None]
        if len(amounts) == len(steps) and all(before < after for before, after in pairwise(amounts)):
            axes[axis] = amounts
        else:
            notes.append(f"{log.source}: {axis} are not known at every step of {metric}, so that axis is left out.")
    return [
        Measurement(
            run.arm,
            run.seed,
            metric,
            {axis: amounts[place] for axis, amounts in axes.items()},
            points[step].values[own],
            None,
            log.source,
            points[step].number,
            points[step].answers,
            log.unit,
        )
        for place, step in enumerate(steps)
    ]


def _stopped(of: Sequence[Named]) -> str:
    """What is to be said of a run that did not reach the step that was planned."""
    for run in of:
        if run.log.progress is not None and run.log.progress[0] < run.log.progress[1]:
            reached, planned = run.log.progress
            return (
                f"{run.arm}, seed {run.seed} broke off at step {reached:g} of {planned:g} ({run.log.source}): what the "
                f"others did after that counts in no run. If the method failed there, say so in a CSV file beside it: "
                f"the header arm,seed,step,value,status and the line {run.arm},{run.seed},,,failed (or lost, if the "
                "machine failed)."
            )
    return ""


def _configured(runs: Iterable[Named]) -> list[str]:
    """Whose arm and seed are from configurations."""
    read = [run for run in runs if not run.by_name and not run.log.told]
    return [
        f"{run.arm}, seed {run.seed}: read from {run.settings.source}, since the name does not say it." for run in read
    ]
