"""One run as it lies on disk: read as it was written, or refused.

A file that cannot be read, or is not as the run wrote it, is an error that names the file, the line and the remedy; the
one exception is the last line of `metrics.jsonl` of a run that did not finish, which a killed process may have left
torn.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.errors import GrpoLabError
from core.store.files import parse_json
from core.store.integrity import (
    REMEDY,
    checksum_differs,
    find_damage,
    is_left_over,
)
from experiments.statistics.ability import adjusted, pass_by_question
from experiments.statistics.runs import Status

STATUSES: Final = ("finished", "running", "interrupted", "failed", "broken")
"""A manifest's `failed` is read as `broken` where the run failed for its code, settings, data or model."""
AXES: Final = ("steps", "sampled_tokens", "seconds")
"""What a budget may be counted in. Seconds are those of training: evaluations are not part of the method."""
SEED_FOLDER: Final = re.compile(r"seed=(\d+)")
ADJUSTED: Final = "adjusted_accuracy"
"""Accuracy less what chance made of the sampled answers: computed where their surprise is recorded."""
_BY_QUESTION: Final = ("greedy_accuracy", "pass_at_k")
_BY_ANSWER: Final = ("accuracy", "lenient_accuracy", "truncated")
_STEP_FILE: Final = re.compile(r"step=(\d+)\.json")


class StudyError(GrpoLabError):
    """A study's folder that cannot be read; the message names the file, the line and the remedy."""


class DamagedRunError(StudyError):
    """A run whose files are not as it wrote them."""


def is_share(metric: str) -> bool:
    """Whether `split/name` is a share of answers or questions, between 0 and 1."""
    name = metric.rpartition("/")[2]
    return name in (*_BY_ANSWER, *_BY_QUESTION, ADJUSTED) or "/shows/" in metric


@dataclass(frozen=True)
class StoredRun:
    """One arm at one seed, as found on disk.

    `metrics` holds one dict per rollout step in order of steps; `evals` one dict per evaluation and split, of which
    only the last keeps its `questions` (prompts and responses), because they are most of the bytes.
    """

    arm: str
    seed: int
    status: str  # one of STATUSES
    path: Path
    manifest: Mapping[str, Any] = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)
    evals: list[dict[str, Any]] = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether the run reached its budget."""
        return self.status == "finished"

    @property
    def trained_on_nothing(self) -> bool:
        """Whether it made steps and never trained on a token: no group passed its filter, say."""
        return bool(self.metrics) and all(row.get("trained_tokens") == 0 for row in self.metrics)

    @property
    def is_averaged(self) -> bool:
        """Whether a moving average of its weights was evaluated."""
        identity = self.manifest.get("identity")
        config = identity.get("config") if isinstance(identity, Mapping) else None
        return bool(re.search(r"^evaluation\.ema_lag = (?!None$)", str(config), re.MULTILINE))

    def hash(self, key: str) -> str:
        """The manifest's hash of `prompts`, `initial_weights` or `first_rollout`; empty before the run finished."""
        hashes = self.manifest.get("hashes")
        return str(hashes.get(key) or "") if isinstance(hashes, Mapping) else ""

    @property
    def outcome(self) -> Status:
        """Its status for the statistics, in which a failure is one of the method: of training itself.

        A broken run is pending: once its cause is mended, it is run again.
        """
        if self.status == "finished":
            return "finished"
        if self.status == "failed":
            return "lost" if self.manifest.get("failure") == "infrastructure" else "failed"
        return "pending"

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of `AXES` that the run recorded; seconds are missing from tables made before they were kept."""
        timed = all("seconds" in row for row in self.metrics)
        return AXES if timed else tuple(axis for axis in AXES if axis != "seconds")

    def spent(self, row: Mapping[str, Any], axis: str) -> float:
        """What had been spent when a row of metrics or an evaluation was recorded."""
        if axis == "seconds":
            return self._seconds[min(int(row["step"]), len(self._seconds) - 1)]
        return float(row["step"] if axis == "steps" else row["total_sampled_tokens"])

    @cached_property
    def _seconds(self) -> list[float]:
        """Seconds of training up to each step, from step 0 on."""
        steps = [
            sum(seconds for phase, seconds in (row.get("seconds") or {}).items() if phase != "evaluate")
            for row in self.metrics
        ]
        return [0.0, *np.cumsum(steps).tolist()]

    @property
    def steps(self) -> int:
        """Rollout steps that were recorded."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def sampled_tokens(self) -> int | None:
        """Tokens sampled in training so far, discarded groups and greedy baselines included."""
        return int(self.metrics[-1]["total_sampled_tokens"]) if self.metrics else None

    def samples(self, split: str, name: str, values: Sequence[float]) -> list[NDArray[np.float64]] | None:
        """By evaluation, [Q, K] by question and sample: what the values [N] of a summary's number are means of.

        K is 1 for numbers of a whole question. None where the evaluations do not record them, or record something else
        than the values.
        """
        tables = [row.get("numbers", {}).get(name) for row in self.evals if row["split"] == split]
        samples = [table for table in tables if table is not None]
        if len({len(table) for table in samples}) != 1 or not len(samples) == len(tables) == len(values):
            return None
        means = [table.mean() for table in samples]
        return samples if np.allclose(means, values, rtol=1e-5, atol=1e-6) else None

    def answer_counts(self, split: str, name: str, values: Sequence[float]) -> list[int] | None:
        """How many answers, each right or wrong, the values [N] of a summary's number are means of, by evaluation.

        Adjusted accuracy is less noisy than the mean of so many. None for what is no such mean, where an evaluation
        does not record them, and where no number of right answers gives the value.
        """
        tables = [row["correct"] for row in self.evals if row["split"] == split]
        if name in _BY_QUESTION:
            counts = [len(table) for table in tables]
        elif name in (*_BY_ANSWER, ADJUSTED) or name.startswith("shows/"):
            counts = [sum(map(len, table)) for table in tables]
        else:
            return None
        right = np.array(counts) * np.asarray(values, dtype=np.float64)
        fits = name == ADJUSTED or np.allclose(right, right.round(), atol=0.01, equal_nan=True)
        return counts if all(counts) and fits else None

    def answered_questions(self, split: str) -> int:
        """How many questions the last evaluation on `split` asked; 0 where there is none."""
        return next((len(row["correct"]) for row in reversed(self.evals) if row["split"] == split), 0)

    def answered_by_step(self, split: str) -> dict[int, int]:
        """How many questions every evaluation on `split` asked, by step."""
        return {row["step"]: len(row["correct"]) for row in self.evals if row["split"] == split}

    def families(self, split: str) -> tuple[str, ...] | None:
        """The family (template or source) of each question on `split`; None where the task names none."""
        named = tuple(str(question.get("family", "")) for question in self.questions(split))
        return named if all(named) and named else None

    def questions(self, split: str) -> list[dict[str, Any]]:
        """The questions of the last evaluation on `split`, with their responses; empty when there is none."""
        last = next((evaluation for evaluation in reversed(self.evals) if evaluation["split"] == split), None)
        return list(last.get("questions") or []) if last is not None else []


def read_run(folder: Path, arm: str, seed: int) -> StoredRun | None:
    """The run in `folder`, or None when it has not begun; raises DamagedRunError, and StudyError for another's run."""
    try:
        run = _read_run(folder, arm, seed)
    except PermissionError as error:  # no damage: the run may be as it was
        raise StudyError(unreadable(error)) from None
    except OSError as error:
        raise DamagedRunError(f"{error.filename}: {error.strerror}; {REMEDY}") from None
    except StudyError as error:
        raise DamagedRunError(str(error)) from None
    if run and (run.manifest.get("arm", arm), run.manifest.get("seed", seed)) != (arm, seed):
        raise StudyError(
            f"{folder / 'manifest.json'}: this is the manifest of arm {run.manifest.get('arm')!r}, seed "
            f"{run.manifest.get('seed')!r}, in another run's folder; move it back, or remove the folder and run this "
            "seed again"
        )
    return run


def _read_run(folder: Path, arm: str, seed: int) -> StoredRun | None:
    file = folder / "manifest.json"
    files, folders = (file, folder / "metrics.jsonl"), (folder, folder / "eval")
    for place in (*files, *folders):
        if os.path.lexists(place) and not (place.is_dir() if place in folders else place.is_file()):
            kind = "folder" if place in folders else "file"
            raise StudyError(f"{place}: no {kind}, but something else or a broken link is there; {REMEDY}")
    for place in (folder / "eval", *(folder / "eval").glob("*/")):
        if place.is_dir():
            os.listdir(place)  # raises where the folder may not be read, which glob would skip
    if not file.is_file():
        if any(folder.glob("metrics.jsonl")) or any(folder.glob("eval/**/step=*.json")):
            raise StudyError(f"{folder}: results without a manifest.json; {REMEDY}")
        return None
    manifest = read_object(file, REMEDY)
    status = manifest.get("status")
    if status not in STATUSES:
        raise StudyError(f"{file}: status {status!r} is not one of {', '.join(STATUSES)}; {REMEDY}")
    if checksum_differs(manifest):
        raise StudyError(f"{file}: altered; {REMEDY}")
    if status == "finished" and "files" in manifest and (damage := find_damage(folder, manifest["files"])):
        raise StudyError(f"{damage}; {REMEDY}")
    metrics = _read_lines(folder / "metrics.jsonl", torn_tail=status != "finished", remedy=REMEDY)
    evals = _read_evaluations(folder, manifest.get("files") or {}, REMEDY)
    if status == "finished" and not evals:
        raise StudyError(f"{folder}: the run is finished but has no evaluation in eval/; {REMEDY}")
    status = "broken" if status == "failed" and manifest.get("failure") == "code" else status
    return StoredRun(arm, seed, status, folder, manifest, metrics, evals)


def _read_lines(file: Path, *, torn_tail: bool, remedy: str) -> list[dict[str, Any]]:
    """The rows of a metrics file, one per step; with `torn_tail` an unreadable last line is left out."""
    if not file.is_file():
        return []
    lines = file.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    rows: dict[int, dict[str, Any]] = {}
    last = -1
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            step = int(row["step"])
            int(row["total_sampled_tokens"])
        except (ValueError, TypeError, KeyError) as error:
            if torn_tail and number == len(lines):
                break
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise StudyError(f"{file}, line {number}: not a step's metrics ({what}); {remedy}") from None
        # a resumed run replays the steps since its last checkpoint: the later rows count
        if step <= last:
            rows = {earlier: kept for earlier, kept in rows.items() if earlier < step}
        rows[step] = row
        last = step
    return list(rows.values())


def _read_evaluations(folder: Path, recorded: Mapping[str, str], remedy: str) -> list[dict[str, Any]]:
    """A run's evaluations in order of steps, those of all splits together; the last of each keeps its questions."""
    matches = ((_STEP_FILE.fullmatch(file.name), file) for file in folder.glob("eval/**/step=*.json"))
    files = sorted((int(match[1]), file) for match, file in matches if match)
    files = [(step, file) for step, file in files if not is_left_over(str(file.relative_to(folder)), recorded)]
    evaluations: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    asked: dict[str, int] = {}  # samples a question of each split's first evaluation: later ones may have more
    for _, file in files:
        evaluation = read_object(file, remedy)
        for key, kind in (("step", int), ("split", str), ("total_sampled_tokens", int), ("summary", dict)):
            entry(evaluation, key, kind, file, remedy)
        if evaluation["split"] in last:
            last[evaluation["split"]].pop("questions", None)
        last[evaluation["split"]] = evaluation
        evaluation["correct"] = [
            [bool(sample.get("correct")) for sample in question.get("samples", ())]
            for question in evaluation.get("questions") or ()
        ]
        k = asked.setdefault(evaluation["split"], max(map(len, evaluation["correct"]), default=0))
        evaluation["numbers"] = _numbers(evaluation.get("questions") or (), k)
        if ADJUSTED in evaluation["numbers"]:
            evaluation["summary"][ADJUSTED] = float(evaluation["numbers"][ADJUSTED].mean())
        evaluations.append(evaluation)
    return evaluations


def _numbers(questions: Sequence[Mapping[str, Any]], k: int) -> dict[str, NDArray[np.float64]]:
    """Numbers of the summary that are means over answers, [Q, K] each; none where questions differ in samples.

    `k` is that of pass@k.
    """
    samples = [question.get("samples") or () for question in questions]
    if len({len(each) for each in samples}) != 1 or not samples[0]:
        return {}
    correct = np.array([[bool(s.get("correct")) for s in each] for each in samples], dtype=np.float64)
    tables = {"accuracy": correct}
    if k <= correct.shape[1]:
        tables["pass_at_k"] = pass_by_question(correct)[:, k - 1 : k]
    if all("greedy" in question for question in questions):
        tables["greedy_accuracy"] = np.array([[bool(q["greedy"].get("correct"))] for q in questions], dtype=np.float64)
    if all("length" in s for each in samples for s in each):
        tables["length"] = np.array([[s["length"] for s in each] for each in samples], dtype=np.float64)
    if min(correct.shape) > 1 and all("surprise" in s for each in samples for s in each):
        tables[ADJUSTED] = adjusted(correct, [[s["surprise"] for s in each] for each in samples])
    return tables


def read_object(file: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `file`."""
    try:
        value = parse_json(file.read_bytes())
    except PermissionError:  # no damage: the caller names the remedy
        raise
    except OSError as error:
        raise StudyError(f"{file}: {error.strerror}; {remedy}") from None
    except json.JSONDecodeError as error:
        raise StudyError(f"{file}, line {error.lineno}: not valid JSON ({error.msg}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{file}: not UTF-8 text ({error.reason}); {remedy}") from None
    except ValueError as error:
        raise StudyError(f"{file}: not valid JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise StudyError(f"{file}: a JSON object was expected, not {type(value).__name__}; {remedy}")
    return value


def unreadable(error: OSError) -> str:
    """The message for a file or folder that may not be read."""
    return f"{error.filename}: may not be read ({error.strerror}); give yourself the right to, nothing is lost"


def entry(record: Mapping[str, Any], key: str, kind: type, file: Path, remedy: str) -> Any:
    """`record[key]`, which must be there and be a `kind`."""
    if not isinstance(record.get(key), kind):
        raise StudyError(f"{file}: {key!r} is missing or not a {kind.__name__}; {remedy}")
    return record[key]


def numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """The numbers of a row by name, nested ones as `outer/inner`; what was not measured is None."""
    flat: dict[str, float | None] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= numbers(value, f"{prefix}{key}/")
        elif value is None or isinstance(value, (int, float)):
            flat[prefix + key] = value
    return flat
