"""What became of the planned runs of every arm, and what that says of the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.statistics.rates import binomial_interval, collapse_rate_upper, mcnemar
from experiments.statistics.records import Analysis
from experiments.statistics.runs import Plan, Trajectory, arms_of
from experiments.statistics.samples import Interval
from experiments.statistics.stability import Course, Kind, courses


@dataclass(frozen=True)
class Outcomes:
    """What became of an arm's planned runs, and how often the method itself failed.

    `imputed` of the failed runs entered the verdict with their declared score. `collapsed`, `declined` and `dipped`
    are finished runs whose score did so; `untold` ones have no evaluation before training, or none after it, so that
    this is not known. `failure_rate` is the exact 95 % interval of the share of ended runs that fail or collapse.
    """

    arm: str
    planned: int
    finished: int
    failed: int
    lost: int
    pending: int
    imputed: int
    collapsed: int
    declined: int
    dipped: int
    untold: int
    causes: tuple[str, ...]
    failure_rate: Interval | None
    courses: Mapping[int, Course | None]
    """Of every finished run, by seed."""

    @property
    def trouble(self) -> str:
        """How many of its ended runs failed or collapsed because of the method; empty if none did."""
        if not self.failed:
            return f"{self.collapsed} of {self.finished} collapsed" if self.collapsed else ""
        also = f", {self.collapsed} collapsed" if self.collapsed else ""
        return f"{self.failed} of {self.finished + self.failed} failed{also}"

    @property
    def told(self) -> frozenset[int]:
        """The seeds of finished runs of which it is known whether they fell."""
        return frozenset(seed for seed, each in self.courses.items() if each is not None)

    @property
    def fell(self) -> frozenset[int]:
        """The seeds of runs that had lost over half of what they had gained at some evaluation: collapsed or dipped."""
        return frozenset([*self.seeds("collapsed"), *self.seeds("dipped")])

    def fell_unlike(self, other: "Outcomes") -> float:
        """Exact McNemar p of both arms' runs falling equally often, paired by seed."""
        both = self.told & other.told
        return mcnemar(len(both & (self.fell - other.fell)), len(both & (other.fell - self.fell)))

    def seeds(self, kind: Kind) -> list[int]:
        """The seeds at which a run took this course."""
        return [seed for seed, each in self.courses.items() if each is not None and each.kind == kind]


def outcomes(
    plan: Plan, runs: Sequence[Trajectory], budget: float, analysis: Analysis | None = None
) -> tuple[Outcomes, ...]:
    """Count the runs of every arm; `analysis`, if given, has the seeds that entered the verdict."""
    run_courses = courses(plan, runs, budget)
    return tuple(_of_arm(plan, runs, arm, run_courses, analysis) for arm in arms_of(runs))


def _of_arm(
    plan: Plan,
    runs: Sequence[Trajectory],
    arm: str,
    run_courses: Mapping[tuple[str, int], Course | None],
    analysis: Analysis | None,
) -> Outcomes:
    own = [run for run in runs if run.arm == arm]
    by_status = {status: [r for r in own if r.status == status] for status in ("finished", "failed", "lost", "pending")}
    by_seed = {seed: run_courses[arm, seed] for seed in plan.seeds if (arm, seed) in run_courses}
    kinds = [each.kind if each is not None else "untold" for each in by_seed.values()]
    ended = len(by_status["finished"]) + len(by_status["failed"])
    judged = analysis is not None and plan.failures == "worst" and arm in {each.arm for each in analysis.arms}
    entered = analysis.seeds if analysis is not None and judged else ()
    return Outcomes(
        arm=arm,
        planned=len(plan.seeds),
        finished=len(by_status["finished"]),
        failed=len(by_status["failed"]),
        lost=len(by_status["lost"]),
        pending=len(plan.seeds) - ended - len(by_status["lost"]),
        imputed=sum(run.seed in entered for run in by_status["failed"]),
        collapsed=kinds.count("collapsed"),
        declined=kinds.count("declined"),
        dipped=kinds.count("dipped"),
        untold=kinds.count("untold"),
        causes=tuple(dict.fromkeys(run.cause for run in own if run.cause)),
        failure_rate=binomial_interval(kinds.count("collapsed") + len(by_status["failed"]), ended) if ended else None,
        courses=by_seed,
    )


def pending_notes(plan: Plan, runs: Sequence[Trajectory], analysis: Analysis) -> list[str]:
    """Whether an analysis is interim, and which arms it leaves out."""
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


def collapse_warnings(plan: Plan, arms: Sequence[Outcomes]) -> list[str]:
    """Which runs lost more than half of what they had gained: an arm's mean hides it."""
    warnings = []
    for each in arms:
        seeds = each.seeds("collapsed")
        if not seeds:
            continue
        first = each.courses[seeds[0]]
        assert first is not None
        below = [seed for seed in seeds if _is_below_start(plan, each.courses[seed])]
        many = len(seeds) > 1
        at = (
            ""
            if not below
            else ", below where it began"
            if not many
            else f", {'all' if len(below) == len(seeds) else len(below)} of them below where they began"
        )
        warnings.append(
            f"{each.arm}: {len(seeds)} of {each.finished} finished runs collapsed ({_seeds(seeds)}), ending with less "
            f"than half of what {'they' if many else 'it'} had gained{at}. "
            f"Seed {seeds[0]} went from {first.start:.3g} to {first.peak:.3g} at {first.peak_at:g} "
            f"{plan.axis.replace('_', ' ')} and ended at {first.end:.3g}."
        )
    return warnings


def failure_notes(plan: Plan, arms: Sequence[Outcomes]) -> list[str]:
    """How often runs failed, and what a clean record at this n can and cannot exclude."""
    notes = []
    for each in arms:
        if each.failed or each.collapsed:
            assert each.failure_rate is not None
            how = "kept with their declared score" if plan.failures == "worst" else "left out, with their seeds"
            low, high = each.failure_rate
            ended = each.finished + each.failed
            notes.append(
                f"{each.arm}: {each.failed} of {ended} runs failed{f' ({how})' if each.failed else ''} and "
                f"{each.collapsed} collapsed; the 95 % interval of the rate is {100 * low:.0f} % to {100 * high:.0f} %."
            )
        changes = [
            f"{len(seeds)} {words[len(seeds) > 1]} ({_seeds(seeds)})"
            for kind, words in _KIND_WORDS.items()
            if (seeds := each.seeds(kind))
        ]
        if changes:
            notes.append(f"{each.arm}: of {each.finished} finished runs {' and '.join(changes)}.")
    clean = {each.arm: each.finished for each in arms if each.finished and not each.failed and not each.collapsed}
    if clean:
        n = min(clean.values())
        who = "in any arm" if len(clean) == len(arms) else f"in {', '.join(clean)}"
        what = "run failed" if any(each.untold for each in arms if each.arm in clean) else "failure"
        clear = f"{n} seeds without one are" if n > 1 else "1 seed without one is"
        notes.append(
            f"No {what} {who}: {clear} compatible with a failure rate of up to "
            f"{100 * collapse_rate_upper(n):.0f} % (95 %): no test at this n sees a rare collapse."
        )
    fallen = [
        course for each in arms for course in each.courses.values() if course is not None and course.kind != "steady"
    ]
    if any(course.answers is None for course in fallen):
        notes.append(
            "How many answers an evaluation rests on is not known here: its noise is estimated from the "
            "spread of successive evaluations of all runs, which learning makes larger."
        )
    unknown = {each.arm: each.untold for each in arms if each.untold}
    if unknown:
        notes.append(
            f"Whether runs collapsed is not known of {', '.join(f'{n} of {arm}' for arm, n in unknown.items())}: that "
            "takes an evaluation before training and one after it."
        )
    return notes


_KIND_WORDS: Mapping[Kind, tuple[str, str]] = {
    "declined": (
        "declined, ending with less than nine tenths of what it had gained",
        "declined, ending with less than nine tenths of what they had gained",
    ),
    "dipped": ("dipped below half of its gain and came back", "dipped below half of their gain and came back"),
}
"""Of one run, and of several."""


def _is_below_start(plan: Plan, each: Course | None) -> bool:
    assert each is not None
    return each.end < each.start if plan.higher_is_better else each.end > each.start


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
