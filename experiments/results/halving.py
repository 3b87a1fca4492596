"""What would halve the interval of a finished study, by the noise and the seconds that its own runs show."""

import math
import statistics
from collections.abc import Sequence

from core.store.integrity import CHECKPOINT, KEPT_MODELS, REEVALUATED
from experiments.results.stored_run import StoredRun
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement
from experiments.statistics.allocation import Allocation, Cost, Halving, NoiseModel
from experiments.statistics.rule import T_SEEDS
from experiments.statistics.runs import samples_behind


def halving(study: StoredStudy, judgement: Judgement) -> Halving | None:
    """What it would take; None where the study may end early or rests on further questions, and where noise, samples
    or seconds are not known.

    Noise is the mean over the comparisons; seconds are those of the runs, on the machine that they ran on.
    """
    plan, seeds = judgement.plan, len(judgement.analysis.seeds)
    finished = [run for run in study.trajectories if run.status == "finished"]
    behind = {samples_behind(plan, run) for run in finished}
    if plan.sequential or plan.further or plan.scalar != "final" or seeds < T_SEEDS or len(behind) != 1:
        return None
    known, components = behind.pop(), list(judgement.variances.values())
    if known is None or not components:
        return None
    samples, evaluations = known
    if plan.questions == "fixed":
        components = [each.on_these_questions for each in components]
    noise = NoiseModel.mean([NoiseModel.of(each, seeds, samples) for each in components])
    cost = cost_of([run for run in study.runs if run.finished], plan.metric.split("/")[0], samples)
    if cost is None or not noise.within:
        return None
    return Halving(noise, cost, Allocation(seeds, round(samples)), 1 - plan.alpha, evaluations)


def further_questions(study: StoredStudy, judgement: Judgement) -> tuple[int, int] | None:
    """How many further questions (`compare.reevaluate`) are to halve the interval, about, and how many models to ask.

    Or they make questions and answers a fifth of its variance, where less would be left to seeds alone; a multiple of
    the questions that evaluations ask. The models are those of the last evaluations as far as all runs have kept them
    (`compare.reevaluate_models`). None where noise or seconds are not known, as for `halving`, or no model was kept.
    """
    found = halving(study, judgement)
    if found is None:
        return None
    S, suite, models = found.now.seeds, judgement.plan.metric.split("/")[0], models_kept(study)
    if models == 0:
        return None
    first = next(row["correct"] for row in study.runs[0].evals if row["split"] == suite)
    asked, samples = len(first), models * len(first[0])  # as often as evaluations along the way ask, each model
    components = judgement.variances.values()
    seeds = statistics.fmean(S * each.seed for each in components)
    sampling = found.now.samples / samples
    answers = statistics.fmean(S * asked * (each.seed_question + each.sampling * sampling) for each in components)
    enough = NoiseModel(seeds, answers).samples_for(found.half_width, S, found.level)
    enough = min(enough, 4 * answers / seeds if seeds else math.inf)
    return None if math.isinf(enough) else (asked * max(1, math.ceil(enough / asked)), models)


def models_kept(study: StoredStudy) -> int:
    """How many models every finished run has to ask: its final one, and those of the evaluations before.

    Where a moving average of the weights was evaluated, the final one is not what was.
    """
    return min(len(_kept_steps(run)) for run in study.runs if run.finished)


def _kept_steps(run: StoredRun) -> set[int]:
    kept = {int(file.stem.partition("=")[2]) for file in (run.path / CHECKPOINT / KEPT_MODELS).glob("step=*")}
    return kept if run.is_averaged else {*kept, run.steps}


def cost_of(runs: Sequence[StoredRun], suite: str, samples: float) -> Cost | None:
    """What a seed of all arms costs, in seconds, where scores rest on so many samples a question of `suite`.

    None where no run says how long its evaluations took.
    """
    response = seconds_of_response(runs)
    questions = {run.answered_questions(suite) for run in runs}
    if not response or len(questions) != 1:
        return None
    arms = {arm: [_seconds(run) for run in runs if run.arm == arm] for arm in {run.arm: None for run in runs}}
    sample = len(arms) * questions.pop() * response
    run = sum(map(statistics.fmean, arms.values())) - samples * sample
    return Cost(run, sample) if run > 0 and sample > 0 else None


def seconds_of_response(runs: Sequence[StoredRun]) -> float:
    """Mean seconds of one response to a test question, sampled or greedy, in training; 0 where it is not known."""
    seconds = sum((row.get("seconds") or {}).get("evaluate", 0.0) for run in runs for row in run.metrics)
    # the evaluation before training is not timed by itself
    timed = (row for run in runs for row in run.evals if row["step"] > 0 and not row["split"].endswith(REEVALUATED))
    responses = sum(len(row["correct"]) + sum(map(len, row["correct"])) for row in timed)
    return float(seconds / responses) if responses else 0.0


def _seconds(run: StoredRun) -> float:
    """What a run took, evaluations included."""
    recorded = run.manifest.get("seconds")
    if isinstance(recorded, int | float):
        return float(recorded)
    return float(sum(sum((row.get("seconds") or {}).values()) for row in run.metrics))
