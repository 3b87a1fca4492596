"""Runs the jobs of a study on a launcher until all have ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.launchers.job import Failures, Job, Launch
from experiments.launchers.progress import Progress
from experiments.launchers.reevaluation import reevaluate_models
from experiments.launchers.sequential import SequentialSchedule
from experiments.results.scored import Scores
from experiments.study.study import Study
from experiments.terminal import Console


@dataclass(frozen=True)
class Plan:
    """A declared study and its runs, checked and ready to be launched, at most `workers` at a time."""

    study: Study
    folder: Path
    jobs: Sequence[Job]
    launch: Launch
    workers: int


def run_jobs(plan: Plan, console: Console) -> Failures:
    """Run the unfinished jobs, then put further questions to the final models; shows and returns the failures.

    Raises `BrokenArmError` and `KeyboardInterrupt` as `Launch` does, with all runs stopped.
    """
    study, jobs = plan.study, plan.jobs
    left = [job for job in jobs if not job.store.is_finished]
    rows = SequentialSchedule(plan.folder, jobs) if study.settings.may_end_early else None
    declared = study.declaration
    scores = Scores(plan.folder, declared["metric"], declared["scalar"], declared["axis"], declared["budget"])
    with Progress(len(jobs), len(jobs) - len(left), console, scores) as progress:
        if rows:
            failures = plan.launch(rows(), plan.workers, progress, more=rows)
        else:
            failures = plan.launch(left, plan.workers, progress) if left else {}
    for (arm, seed), message in failures.items():
        console.print(f"\n{arm} seed {seed} failed: {message}", style="red", highlight=False, markup=False)
    if study.settings.reevaluate:
        reevaluate_models(study, jobs, console)
    return failures
