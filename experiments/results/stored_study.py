"""Reads a study's folder: what was declared, what ran, and the one number each run is judged by.

Nothing here trains, tests, draws or repairs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import near
from core.loop.evaluation import reevaluated
from experiments.results.declaration import DEFAULTS, check_declaration
from experiments.results.history import looks_of, notes_of
from experiments.results.pairing import answered, pairing_notes, refuse_other_data, unlike_runs
from experiments.results.stored_run import (
    AXES,
    SEED_FOLDER,
    STATUSES,
    StoredRun,
    StudyError,
    entry,
    is_share,
    numbers,
    read_object,
    read_run,
    unreadable,
)
from experiments.statistics import SCALARS, Analysis, Curve, Judgement, Plan, Trajectory, judge, scores
from experiments.statistics.judgement import sequential_state
from experiments.statistics.predictions import Prediction
from experiments.statistics.runs import answers_of
from experiments.statistics.sequential import Sequential


@dataclass(frozen=True)
class Counts:
    """How many runs of an arm were planned, and what became of them."""

    planned: int
    finished: int
    failed: int
    running: int
    interrupted: int
    missing: int  # planned, but not on disk
    broken: int = 0  # because of code, settings, data or a model


@dataclass(frozen=True)
class StoredStudy:
    """A study as found on disk: the declaration, the arms in declared order, and the runs.

    `arms` maps an arm's label to what `study.json` records of it (`bindings`, `card`); `record` is that whole
    file. `ignored` names run folders that the declaration does not plan; they enter nothing.
    """

    path: Path
    name: str
    declaration: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    runs: tuple[StoredRun, ...]
    record: Mapping[str, Any] = field(repr=False)
    ignored: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return str(self.declaration["baseline"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The declared seeds, in declared order."""
        return tuple(self.declaration["seeds"])

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Every name that `curve` knows here: `reward`, `seconds/sample`, `test/accuracy`, ..."""
        names: dict[str, None] = {}
        for run in self.runs:
            for row in run.metrics[:1] + run.metrics[-1:]:
                names |= dict.fromkeys(numbers(row))
            for evaluation in run.evals:
                split = evaluation["split"]
                names |= dict.fromkeys(f"{split}/{key}" for key in numbers(evaluation["summary"]))
        return tuple(name for name in names if name != "step")

    def run(self, arm: str, seed: int) -> StoredRun | None:
        """The run of an arm at a seed, or None when there is none on disk."""
        return self._by_name.get((arm, seed))

    def curve(
        self, arm: str, seed: int, key: str, axis: str = "steps"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A run's values of `key` over `axis`, both `[N]`; a value that was not measured is NaN.

        `split/name` reads the evaluations (step 0 included), any other name the training metrics; `axis` is
        `steps` (rollout steps), `sampled_tokens` (all tokens sampled in training so far) or `seconds` (of training so
        far). A run that is not on disk gives two empty arrays; a key that no run of the study has is a StudyError.
        """
        if axis not in AXES:
            raise StudyError(f"no axis {axis!r}: curves are drawn over {', '.join(AXES[:-1])} or {AXES[-1]}")
        if arm not in self.arms:
            raise StudyError(f"no arm {arm!r} in study {self.name}; {near(arm, self.arms)}")
        if self.runs and key not in self.keys:
            raise StudyError(f"no run of study {self.name} recorded {key!r}; {near(key, self.keys)}")
        run = self.run(arm, seed)
        if run is None:
            return np.empty(0), np.empty(0)
        split, _, name = key.partition("/")
        if split in self._splits:
            evaluations = [row for row in run.evals if row["split"] == split]
            points = [(run.spent(row, axis), numbers(row["summary"]).get(name)) for row in evaluations]
        else:
            points = [(run.spent(row, axis), numbers(row).get(key)) for row in run.metrics]
        table = np.array([(x, math.nan if y is None else y) for x, y in points], dtype=np.float64).reshape(-1, 2)
        if self.plan.further and split == self._judged_suite and axis == self.plan.axis:
            # the step that reaches a budget of seconds ends beyond it, and this model is what the budget bought
            table[:, 0] = np.minimum(table[:, 0], float(self.declaration["budget"]))
        return table[:, 0], table[:, 1]

    def scalar(self, run: StoredRun, key: str) -> float:
        """A run's `key` reduced to one number by the declared scalar, at the declared budget and axis.

        NaN when `key` was never measured; points at which it was not measured are left out.
        """
        plan = self.plan
        x, y = self.curve(run.arm, run.seed, key, plan.axis)
        measured = ~np.isnan(y) & (x <= float(self.declaration["budget"]))
        if not measured.any():
            return math.nan
        return SCALARS[plan.scalar](x[measured].tolist(), y[measured].tolist(), float(self.declaration["budget"]))

    @cached_property
    def plan(self) -> Plan:
        """What was declared, as the statistics take it."""
        d = self.declaration
        declared, further = str(d["metric"]), int(d["reevaluate"] or 0)
        predictions = [Prediction.parse(text) for text in (d["claim"] or {}).get("predictions", ())]
        if further:
            predictions = [replace(each, metric=reevaluated(each.metric)) for each in predictions]
        return Plan(
            metric=reevaluated(declared) if further else declared,
            baseline=self.baseline,
            seeds=self.seeds,
            axis=str(d["axis"]),
            budget=float(d["budget"]),
            scalar=str(d["scalar"]),
            family=d["family"],
            alpha=float(d["alpha"]),
            margin=float(d["margin"]),
            failures=d["failures"],
            floor=float(d["floor"]),
            threshold=d["threshold"],
            questions=d["questions"],
            race=bool(d["race"]),
            looks=tuple((int(n), float(a)) for n, a in d["looks"]),
            largest=1.0 if is_share(str(d["metric"])) else math.inf,
            predictions=tuple(predictions),
            seen=looks_of(self.record),
            further=further,
            followed=declared if further else None,
        )

    @cached_property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """All planned runs, in declared order, as the statistics take them.

        A finished run with an evaluation that lacks the declared metric is a StudyError: leaving a point out would move
        its score.
        """
        plan, suite = self.plan, self._judged_suite
        metrics = [key for key in self.keys if key.split("/")[0] in (suite, plan.course_metric.split("/")[0])]
        planned = []
        for arm, seed in product(self.arms, self.seeds):
            run = self.run(arm, seed)
            if run is None:
                planned.append(Trajectory(arm, seed, "pending"))
                continue
            if run.finished:
                self._require_metric(run)
            curves = {}
            for key in metrics:
                split, name = key.split("/", 1)
                # a final model is what the declared budget bought, and cannot be had at equal amounts of another
                axes = (plan.axis,) if plan.further and split == suite else run.axes
                spent = {axis: self.curve(run.arm, run.seed, key, axis)[0].tolist() for axis in axes}
                if any(spent.values()):
                    values = self.curve(run.arm, run.seed, key)[1].tolist()
                    answers = (run.answer_counts(split, name, values), run.samples(split, name, values))
                    curves[key] = Curve(spent, values, *answers, 1.0 if is_share(key) else math.inf)
            cause = str(run.manifest.get("error") or "")
            status = run.outcome if self.is_answered(run) or not run.finished else "pending"
            planned.append(Trajectory(run.arm, run.seed, status, curves, cause, run.families(suite)))
        return tuple(planned)

    @property
    def _judged_suite(self) -> str:
        return self.plan.metric.split("/")[0]

    def is_answered(self, run: StoredRun) -> bool:
        """Whether a run's models have answered the further questions that are declared, if there are any."""
        plan, answered = self.plan, [*run.answered_by_step(self._judged_suite).values()]
        return not plan.further or answered == [plan.further] * self.models_asked

    @property
    def models_asked(self) -> int:
        """How many of a run's models answer the further questions: the last, or those of its last evaluations."""
        return int(self.declaration["reevaluate_models"] or 1)

    def answers(self) -> dict[tuple[str, int], float]:
        """How many independent answers, each right or wrong, a finished run's score rests on, where that is known."""
        plan = self.plan
        counted = [
            replace(run, curves={key: replace(curve, samples=None) for key, curve in run.curves.items()})
            for run in self.trajectories
        ]
        table = answers_of(plan, counted, plan.axis, plan.budget)
        return {(arm, seed): float(number) for arm, row in table.items() for seed, number in row.items()}

    @cached_property
    def broken(self) -> dict[str, str]:
        """The arms with a broken run, and its error: no score or verdict rests on what did not work."""
        runs = [run for run in self.runs if run.status == "broken"]
        return {
            run.arm: f"seed {run.seed}, {run.manifest.get('error') or 'no reason recorded'}" for run in reversed(runs)
        }

    def scores(self) -> dict[str, dict[int, float]]:
        """`{arm: {seed: score}}` as declared: metric, scalar, budget and failure policy; arms and seeds in order."""
        plan = self.plan
        try:
            table = scores(plan, self.trajectories, plan.axis, plan.budget, plan.failures)
        except ValueError as error:
            raise StudyError(f"{self.path}: {error}") from None
        return {arm: table.get(arm, {}) for arm in self.arms}

    def judge(self) -> Judgement | None:
        """Judge the runs as declared; None when there is nothing to compare, and while an arm is broken.

        Runs that are not finished yet are left out with their seeds, and failed ones are handled as declared: the notes
        of the analysis name both. Raises StudyError for runs that are no pair: other prompts, initial weights or first
        rollouts than the baseline's at the same seed, though the arm does not vary what they come from.
        """
        if self.broken:
            return None
        try:
            judgement = judge(self.plan, self.trajectories)
        except ValueError as error:
            raise StudyError(f"{self.path}: {error}") from None
        if judgement is None:
            return None
        refuse_other_data(self.runs, self.declaration["data"])
        notes = notes_of(self.record)
        varies = {arm: entries.get("varies", ()) for arm, entries in self.arms.items()}
        notes += pairing_notes(self.runs, self.baseline, varies)
        compared = judgement.analysis.comparisons
        notes += [answered(note, compared, self.runs) for note in judgement.analysis.notes]
        idle = self.trained_on_nothing()
        comparisons = tuple(replace(each, sentence=answered(each.sentence, compared, self.runs)) for each in compared)
        analysis = replace(judgement.analysis, notes=tuple(notes), comparisons=comparisons)
        return replace(judgement, analysis=analysis, warnings=(*idle, *judgement.warnings))

    def trained_on_nothing(self) -> list[str]:
        """A sentence for every arm with runs that never trained on a token: they are the model that they began with."""
        runs = [run for run in self.runs if run.finished and run.trained_on_nothing]
        seeds = {arm: [str(run.seed) for run in runs if run.arm == arm] for arm in self.arms}
        return [
            f"{arm} was trained on nothing at seed {', '.join(at)}: at every step the rewards within each group were "
            "equal, or the filter passed no group, so what is compared is the model that it began with."
            for arm, at in seeds.items()
            if at
        ]

    def sequential(self) -> Sequential:
        """Which arms a race, or a study with looks, runs at which seeds next."""
        try:
            return sequential_state(self.plan, self.trajectories)
        except ValueError as error:
            raise StudyError(f"{self.path}: {error}") from None

    def analyze(self) -> Analysis | None:
        """The verdicts of `judge` alone."""
        judgement = self.judge()
        return judgement.analysis if judgement else None

    def _require_metric(self, run: StoredRun) -> None:
        metric = self.plan.course_metric
        _, y = self.curve(run.arm, run.seed, metric)
        if len(y) and np.isfinite(y).all():
            return
        steps = [row["step"] for row in run.evals if f"{row['split']}/" == metric[: len(row["split"]) + 1]]
        where = f"at step {steps[int(np.argmin(np.isfinite(y)))]}" if len(y) else "at all"
        raise StudyError(
            f"{run.path}: finished, but without {metric!r}, the declared metric, {where}; "
            "remove the folder and run this seed again"
        )

    def unlike(self, key: str) -> dict[str, list[int]]:
        """Where the manifests' hash of `key` differs from the baseline's at the same seed: `{arm: seeds}`."""
        return unlike_runs(self.runs, self.baseline, key)

    def counts(self) -> dict[str, Counts]:
        """How many runs each arm has planned, finished, failed and so on."""
        counts: dict[str, Counts] = {}
        for arm in self.arms:
            statuses = [run.status for run in self.runs if run.arm == arm]
            by_status = {status: statuses.count(status) for status in STATUSES}
            counts[arm] = Counts(planned=len(self.seeds), missing=len(self.seeds) - len(statuses), **by_status)
        return counts

    @cached_property
    def _by_name(self) -> dict[tuple[str, int], StoredRun]:
        return {(run.arm, run.seed): run for run in self.runs}

    @cached_property
    def _splits(self) -> frozenset[str]:
        return frozenset(evaluation["split"] for run in self.runs for evaluation in run.evals)


def load_study(path: Path | str) -> StoredStudy:
    """Read the study in folder `path`; a StudyError names what is missing or broken, and what to do."""
    try:
        return _load_study(Path(path))
    except OSError as error:
        raise StudyError(unreadable(error)) from None


def _load_study(path: Path) -> StoredStudy:
    file = path / "study.json"
    if not path.is_dir():
        raise StudyError(f"{path}: no such folder{_studies_in(path.parent)}")
    if not file.is_file():
        raise StudyError(f"{path}: no study.json here, so this is not a study's folder{_studies_in(path)}")
    remedy = "the file is written once, before the first run; restore it, or start the study anew"
    record = read_object(file, remedy)
    declaration = {**DEFAULTS, **entry(record, "declaration", dict, file, remedy)}
    arms = entry(record, "arms", dict, file, remedy)
    check_declaration(record, declaration, arms, file, remedy)
    runs: list[StoredRun] = []
    for arm in arms:
        for seed in declaration["seeds"]:
            run = read_run(path / arm / f"seed={seed}", arm, int(seed))
            runs += [run] if run is not None else []
    study = StoredStudy(
        path=path,
        name=str(record.get("name") or path.resolve().name),
        declaration=declaration,
        arms=arms,
        runs=tuple(runs),
        record=record,
        ignored=_unplanned(path, arms, declaration["seeds"]),
    )
    try:
        _ = study.plan
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StudyError(f"{file}: what it declares cannot be: {error}; {remedy}") from None
    return study


def _unplanned(path: Path, arms: Mapping[str, Any], seeds: list[int]) -> tuple[str, ...]:
    planned = {path / arm / f"seed={seed}" for arm in arms for seed in seeds}
    folders = (manifest.parent for manifest in sorted(path.glob("*/seed=*/manifest.json")))
    return tuple(
        str(folder.relative_to(path))
        for folder in folders
        if folder not in planned and SEED_FOLDER.fullmatch(folder.name)
    )


def _studies_in(folder: Path) -> str:
    """The end of a message: the studies that `folder` does hold."""
    names = sorted(file.parent.name for file in folder.glob("*/study.json"))
    return f"; studies in {folder}: {', '.join(names)}" if names else ""
