"""What became of the planned runs of every arm, and what that says of the method."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.statistics.exploratory import binomial_interval, collapse_rate_upper
from experiments.statistics.runs import Curve, Plan, Trajectory, arms_of
from experiments.statistics.samples import Interval
from experiments.statistics.scalars import collapsed
from experiments.statistics.verdict import Analysis


@dataclass(frozen=True)
class Outcomes:
    """What became of an arm's planned runs, and how often the method itself went wrong.

    `imputed` of the failed runs entered the verdict with their declared score. `collapsed` are finished runs whose
    score fell below that of the base model after having been better. `failure_rate` is the exact 95 % interval of the
    share of runs that fail or collapse, of those that came to an end.
    """

    arm: str
    planned: int
    finished: int
    failed: int
    lost: int
    pending: int
    imputed: int
    collapsed: int
    causes: tuple[str, ...]
    failure_rate: Interval | None


def outcomes(plan: Plan, runs: Sequence[Trajectory], arm: str, budget: float, analysis: Analysis) -> Outcomes:
    """Count an arm's runs; `analysis` tells which seeds entered the verdict."""
    own = [run for run in runs if run.arm == arm]
    by_status = {status: [r for r in own if r.status == status] for status in ("finished", "failed", "lost", "pending")}
    fell = sum(_fell(plan, run.curves[plan.metric], budget) for run in by_status["finished"])
    ended = len(by_status["finished"]) + len(by_status["failed"])
    judged = plan.failures == "worst" and arm in {each.arm for each in analysis.arms}
    return Outcomes(
        arm=arm,
        planned=len(plan.seeds),
        finished=len(by_status["finished"]),
        failed=len(by_status["failed"]),
        lost=len(by_status["lost"]),
        pending=len(plan.seeds) - ended - len(by_status["lost"]),
        imputed=sum(run.seed in analysis.seeds for run in by_status["failed"]) if judged else 0,
        collapsed=fell,
        causes=tuple(dict.fromkeys(run.cause for run in own if run.cause)),
        failure_rate=binomial_interval(fell + len(by_status["failed"]), ended) if ended else None,
    )


def _fell(plan: Plan, curve: Curve, budget: float) -> bool:
    """Whether a finished run collapsed; without an evaluation before training nobody can tell."""
    spent = curve.spent[plan.axis]
    return spent[0] == 0 and collapsed(spent, curve.values, budget, plan.margin, plan.higher_is_better)


def pending_notes(plan: Plan, runs: Sequence[Trajectory], analysis: Analysis) -> list[str]:
    """That an analysis is interim, and which arms it leaves out."""
    arms = arms_of(runs)
    judged = {each.arm for each in analysis.arms}
    notes = [f"{arm} has no finished run: it is compared with nothing." for arm in arms if arm not in judged]
    waiting = len(plan.seeds) - len(analysis.seeds)
    if waiting and sum(r.status == "pending" for r in runs) + len(arms) * len(plan.seeds) > len(runs):
        notes.append(
            f"Interim: {len(analysis.seeds)} of the {len(plan.seeds)} declared seeds are finished in every arm. A "
            "verdict at this point is provisional, and stopping here because of it would invalidate the test."
        )
    return notes


def failure_notes(plan: Plan, found: Sequence[Outcomes]) -> list[str]:
    """How often runs failed, and what a clean record at this n can and cannot exclude."""
    notes = []
    for each in found:
        if each.failed or each.collapsed:
            assert each.failure_rate is not None
            how = "kept with their declared score" if plan.failures == "worst" else "left out, with their seeds"
            low, high = each.failure_rate
            ended = each.finished + each.failed
            notes.append(
                f"{each.arm}: {each.failed} of {ended} runs failed ({how}) and {each.collapsed} collapsed; the "
                f"95 % interval of the rate is {100 * low:.0f} % to {100 * high:.0f} %."
            )
    clean = {each.arm: each.finished for each in found if each.finished and not each.failed and not each.collapsed}
    if clean:
        n = min(clean.values())
        who = "in any arm" if len(clean) == len(found) else f"in {', '.join(clean)}"
        notes.append(
            f"No failure {who}: {n} seed{'s' * (n > 1)} without one are compatible with a failure rate of up to "
            f"{100 * collapse_rate_upper(n):.0f} % (95 %): no test at this n sees a rare collapse."
        )
    return notes
