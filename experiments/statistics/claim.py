"""The outcome of a study's predictions, once its runs have ended."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments.statistics.answers import Answers
from experiments.statistics.declared import removed_seeds, too_many_removed
from experiments.statistics.predictions import ClaimVerdict, assess
from experiments.statistics.runs import Plan, Trajectory, answers_of, arms_of, scores


def judge_claim(plan: Plan, runs: Sequence[Trajectory], budget: float) -> tuple[ClaimVerdict | None, list[str]]:
    """The outcome of the predictions once all planned runs have ended, or notes on why there is none yet."""
    planned = {(arm, seed) for arm in arms_of(runs) for seed in plan.seeds}
    ended = {(run.arm, run.seed) for run in runs if run.status != "pending"}
    if not plan.predictions:
        return None, []
    if planned != ended:
        return None, ["What was predicted is judged when all planned runs have ended."]
    if too_many_removed(plan, removed_seeds(runs, plan.failures)):
        return None, ["What was predicted is not judged before the runs that are missing are made up."]

    def scores_of(metric: str) -> Mapping[str, Mapping[int, float]]:
        if metric == plan.metric:
            return scores(plan, runs, plan.axis, budget, plan.failures)
        # no score is declared for failed runs on other metrics, and a metric may be undefined at some evaluations,
        # or in a whole run (the length of wrong responses, where none is wrong)
        with_metric = [
            replace(run, curves={metric: run.curves[metric].measured}) for run in runs if metric in run.curves
        ]
        measured = [run for run in with_metric if run.curves[metric].values]
        left_out.update({(run.arm, run.seed) for run in runs} - {(run.arm, run.seed) for run in measured})
        left_out.update((run.arm, run.seed) for run in measured if run.status == "failed")
        return scores(replace(plan, metric=metric), measured, plan.axis, budget, "intersect")

    def metric_answers(metric: str) -> Answers:
        measured = [
            replace(run, curves={metric: curve.measured})
            for run in runs
            if (curve := run.curves.get(metric)) is not None and curve.measured.values
        ]
        return answers_of(replace(plan, metric=metric), measured, plan.axis, budget)

    left_out: set[tuple[str, int]] = set()
    try:
        claim = assess(plan.predictions, scores_of, plan.alpha, metric_answers)
    except ValueError as error:
        return None, [f"What was predicted cannot be judged: {error}."]
    notes = [] if claim else ["What was predicted is not judged: a prediction has fewer than 3 seeds to go by."]
    if left_out:
        runs_left = ", ".join(f"{arm} seed {seed}" for arm, seed in sorted(left_out))
        notes.append(f"Predictions on other metrics leave out the seeds of runs without a value: {runs_left}.")
    return claim, notes
