"""Runs and studies on disk as objects whose contents are pandas tables."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import GrpoLabError, near
from core.parts.arguments import checked
from core.store.files import parse_json
from core.store.integrity import REMEDY
from experiments.lab.frames import data_frame, html_or_text
from experiments.lab.verdicts import Verdicts
from experiments.report import write_figures, write_report, write_tables
from experiments.report.tables import no_verdict
from experiments.results.stored_run import SEED_FOLDER, StoredRun, StudyError, numbers, read_object, read_run
from experiments.results.stored_study import StoredStudy
from experiments.results.stored_study import load_study as read_study

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Run:
    """One arm at one seed, finished or not; `stored` is the record behind it."""

    stored: StoredRun

    @property
    def arm(self) -> str:
        """The arm's label; of a single run the name of its variant."""
        return self.stored.arm

    @property
    def seed(self) -> int:
        """The seed."""
        return self.stored.seed

    @property
    def status(self) -> str:
        """`finished`, `running`, `interrupted`, `failed` (in training) or `broken` (code, settings, data or model)."""
        return self.stored.status

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.stored.path

    @property
    def checkpoint(self) -> Path:
        """The trained model, as transformers (adapters: as peft) saves it; GrpoLabError while there is none."""
        folder = self.path / "checkpoint"
        if not self.stored.finished:
            raise GrpoLabError(f"{self.path}: the run is {self.status}, and has no trained model yet")
        return folder

    def metrics(self) -> "DataFrame":
        """A row for each step of training, nested names as `outer/inner`; docs/metrics.md explains each column."""
        return data_frame((numbers(row) for row in self.stored.metrics), ["step"])

    def evaluations(self) -> "DataFrame":
        """A row for each evaluation and suite: step, suite, tokens sampled so far, and the summary's numbers."""
        rows = (
            {"step": each["step"], "suite": each["split"], "total_sampled_tokens": each["total_sampled_tokens"]}
            | numbers(each["summary"])
            for each in self.stored.evals
        )
        return data_frame(rows, ["step", "suite", "total_sampled_tokens"])

    def questions(self) -> "DataFrame":
        """A row for each question of each suite's last evaluation: prompt, answer, and the share answered right."""
        return data_frame(self._questions(), ["suite", "question", "prompt", "answer", "accuracy", "greedy_correct"])

    def responses(self) -> "DataFrame":
        """A row for each response of the last evaluation of each suite; `sample` is -1 for the greedy one."""
        return data_frame(
            self._responses(), ["suite", "question", "sample", "prompt", "answer", "text", "correct", "length"]
        )

    def rollouts(self) -> "DataFrame":
        """A row for each training response that was kept: step, prompt, text, reward, advantage and length."""
        return data_frame(self._rollouts(), ["step", "group", "sample", "prompt", "answer", "text", "reward"])

    def configuration(self) -> dict[str, str]:
        """Every gin binding in force, as text: `{"train.steps": "300", ...}`."""
        return configuration_of(self.stored)

    def _suites(self) -> list[str]:
        return list(dict.fromkeys(each["split"] for each in self.stored.evals))

    def _questions(self) -> Iterator[dict[str, Any]]:
        for suite in self._suites():
            for place, each in enumerate(self.stored.questions(suite)):
                samples = [bool(sample.get("correct")) for sample in each.get("samples") or ()]
                yield {
                    **{k: v for k, v in each.items() if k not in ("index", "samples", "greedy", "prompt", "answer")},
                    "suite": suite,
                    "question": each.get("index", place),
                    "prompt": each.get("prompt"),
                    "answer": each.get("answer"),
                    "accuracy": sum(samples) / len(samples) if samples else None,
                    "greedy_correct": each["greedy"].get("correct") if each.get("greedy") else None,
                }

    def _responses(self) -> Iterator[dict[str, Any]]:
        for suite in self._suites():
            for place, each in enumerate(self.stored.questions(suite)):
                known = {
                    "suite": suite,
                    "question": each.get("index", place),
                    "prompt": each.get("prompt"),
                    "answer": each.get("answer"),
                }
                if each.get("greedy"):
                    yield {**known, "sample": -1, **each["greedy"]}
                for sample, response in enumerate(each.get("samples") or ()):
                    yield {**known, "sample": sample, **response}

    def _rollouts(self) -> Iterator[dict[str, Any]]:
        for file in sorted(self.path.glob("rollouts/step=*.json")):
            step = int(file.stem.removeprefix("step="))
            for group, each in enumerate(parse_json(file.read_bytes())):
                known = {"step": step, "group": group, "prompt": each.get("prompt"), "answer": each.get("answer")}
                for sample, response in enumerate(each.get("responses") or ()):
                    yield {**known, "sample": sample, **response}

    def __repr__(self) -> str:
        return f"<run of {self.arm}, seed {self.seed}: {self.status} after {self.stored.steps} steps, in {self.path}>"


@dataclass(frozen=True, eq=False)
class Study:
    """Arms x seeds, as found on disk; `stored` is the record behind it.

    `study["grpo", 0]` is one run; iterating gives every run that has begun, in declared order.
    """

    stored: StoredStudy

    def __iter__(self) -> Iterator[Run]:
        return iter([Run(run) for run in self.stored.runs])

    def __len__(self) -> int:
        return len(self.stored.runs)

    def __getitem__(self, key: tuple[str, int]) -> Run:
        """The run of an arm at a seed; GrpoLabError where there is none."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise GrpoLabError(f"a run is study[ARM, SEED], and no study[{key!r}]")
        arm, seed = key
        run = self.stored.run(arm, seed)
        if run is None:
            known = f"seeds {', '.join(map(str, self.seeds))}" if arm in self.stored.arms else near(str(arm), self.arms)
            raise GrpoLabError(f"no run of {arm!r} at seed {seed!r} in {self.path}: {known}")
        return Run(run)

    @property
    def name(self) -> str:
        """As declared."""
        return self.stored.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.stored.path

    @property
    def arms(self) -> list[str]:
        """The labels, in declared order."""
        return list(self.stored.arms)

    @property
    def seeds(self) -> list[int]:
        """The declared seeds."""
        return list(self.stored.seeds)

    def judge(self) -> Verdicts:
        """The verdicts, as declared; GrpoLabError while there is nothing to compare, or an arm is broken."""
        judgement = self.stored.judge()
        if judgement is None:
            raise GrpoLabError(no_verdict(self.stored))
        return Verdicts(judgement, f"{self.name}: {judgement.plan.measured}")

    @checked()
    def report(self, path: Path | str | None = None) -> Path:
        """Write the HTML report, to `report.html` in the study's folder unless a path is given; returns the path."""
        return write_report(self.stored, self.stored.judge(), Path(path) if path else self.path / "report.html")

    def export(self) -> list[Path]:
        """Write report, tables (Markdown, LaTeX, CSV) and figures into the study's folder; returns the paths."""
        judgement = self.stored.judge()
        tables = write_tables(self.stored, judgement, self.path / "tables")
        page = self.report()
        return [*tables, *write_figures(self.stored, page.read_text("utf-8"), self.path / "figures"), page]

    def scores(self) -> "DataFrame":
        """A row for each planned run: arm, seed, status, and the score that the verdicts rest on (or none)."""
        scores = self.stored.scores()
        rows = []
        for arm in self.arms:
            for seed in self.seeds:
                run = self.stored.run(arm, seed)
                status = run.status if run else "missing"
                rows.append({"arm": arm, "seed": seed, "status": status, "score": scores[arm].get(seed)})
        return data_frame(rows, ["arm", "seed", "status", "score"])

    @checked()
    def curves(self, metric: str | None = None, axis: str = "steps") -> "DataFrame":
        """A row for each run and point: arm, seed, the axis (`steps`, `sampled_tokens`, `seconds`) and the metric.

        `metric` is `SUITE/NAME` of the evaluations or a column of the training metrics; the declared one by default.
        """
        key = metric or self.stored.plan.course_metric
        rows = []
        for run in self.stored.runs:
            x, y = self.stored.curve(run.arm, run.seed, key, axis)
            rows += [
                {"arm": run.arm, "seed": run.seed, axis: a, key: b} for a, b in zip(x.tolist(), y.tolist(), strict=True)
            ]
        return data_frame(rows, ["arm", "seed", axis, key])

    def metrics(self) -> "DataFrame":
        """Every run's training metrics, one below the other."""
        return self._of_all(lambda run: (numbers(row) for row in run.stored.metrics), ["step"])

    def questions(self) -> "DataFrame":
        """Every run's questions, one below the other."""
        return self._of_all(Run._questions, ["suite", "question", "prompt", "answer", "accuracy", "greedy_correct"])

    def responses(self) -> "DataFrame":
        """Every run's responses to test questions, one below the other."""
        return self._of_all(Run._responses, ["suite", "question", "sample", "prompt", "answer", "text", "correct"])

    def configuration(self) -> "DataFrame":
        """A row for each gin binding, a column for each arm; missing where an arm has no such binding."""
        first = {arm: next((run for run in self.stored.runs if run.arm == arm), None) for arm in self.arms}
        bound = {arm: configuration_of(run) for arm, run in first.items() if run is not None}
        names = sorted({name for each in bound.values() for name in each})
        rows = [{"binding": name, **{arm: each.get(name) for arm, each in bound.items()}} for name in names]
        return data_frame(rows, ["binding", *bound]).set_index("binding")

    def _of_all(self, rows_of: Any, columns: Iterable[str]) -> "DataFrame":
        rows = ({"arm": run.arm, "seed": run.seed, **row} for run in self for row in rows_of(run))
        return data_frame(rows, ["arm", "seed", *columns])

    def _repr_html_(self) -> str | None:
        """For notebooks: the verdicts, or how far the runs have come."""
        if self.stored.judge() is not None:
            return self.judge()._repr_html_()
        return html_or_text(lambda: f"<b>{escape(self.name)}</b>{self.scores().to_html(index=False)}")

    def __repr__(self) -> str:
        finished = sum(run.finished for run in self.stored.runs)
        planned = len(self.arms) * len(self.seeds)
        return f"<study {self.name}: {finished} of {planned} runs finished, in {self.path}>"


@checked()
def load_study(path: Path | str) -> Study:
    """Read the study in a folder; GrpoLabError where there is none, or where its files are not as they were written."""
    return Study(read_study(path))


@checked()
def load_run(path: Path | str) -> Run:
    """Read the run in a folder such as `runs/demo/grpo/seed=0`; GrpoLabError where there is none."""
    folder = Path(path)
    match = SEED_FOLDER.fullmatch(folder.resolve().name)
    if match is None or not (folder / "manifest.json").is_file():
        raise StudyError(f"{folder}: no run is there; give a run's folder, e.g. runs/demo/grpo/seed=0")
    manifest = read_object(folder / "manifest.json", REMEDY)
    run = read_run(folder, str(manifest.get("arm", folder.resolve().parent.name)), int(match[1]))
    if run is None:
        raise StudyError(f"{folder}: no run is there; give a run's folder, e.g. runs/demo/grpo/seed=0")
    return Run(run)


_BINDING = re.compile(r"^([\w./%]+) *= *(.*)$", re.DOTALL)


def configuration_of(run: StoredRun) -> dict[str, str]:
    """The bindings that a run's manifest records, by name: gin text, statement by statement."""
    identity = run.manifest.get("identity")
    text = str(identity.get("config", "")) if isinstance(identity, Mapping) else ""
    statements: list[str] = []
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and statements:  # gin breaks what is long
            statements[-1] += f" {line.strip()}"
        else:
            statements.append(line.rstrip())
    bound: dict[str, str] = {}
    for statement in statements:
        match = _BINDING.match(statement.replace("\\ ", " "))
        if match:
            bound[match[1]] = match[2].strip()
    return bound
