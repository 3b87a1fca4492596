"""The jobs of a study that may end early, one row of seeds after another, by the results so far."""

from collections.abc import Sequence
from pathlib import Path

from experiments.launchers.job import Job
from experiments.results.stored_study import load_study


class SequentialSchedule:
    """Called when all jobs handed out have ended: the jobs of the next rows, or none when the study has ended.

    A row is one seed in every arm that is still in the race. A run that failed in training has its declared score; one
    lost by the machine has none, so its row cannot count and the study stops there: the same command goes on from it.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self._folder = folder
        self._jobs = {(job.arm.label, job.seed): job for job in jobs}
        self._handed_out: set[tuple[str, int]] = set()

    def __call__(self) -> list[Job]:
        """The next jobs."""
        study = load_study(self._folder)
        state = study.sequential()
        if state.stop:
            return []
        keys = [(arm, seed) for seed in study.seeds[state.row : state.until] for arm in state.live]
        ran = {(t.arm, t.seed) for t in study.trajectories if t.status in ("finished", "failed")}
        left = [key for key in keys if key not in ran and key not in self._handed_out]
        self._handed_out.update(left)
        return [self._jobs[key] for key in left]
