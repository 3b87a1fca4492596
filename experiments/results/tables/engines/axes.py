"""What had been spent at each step, by a run's own log: tokens and seconds.

Some libraries log the total so far, others what a step took; that is added up.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final, Literal, NamedTuple, TypeAlias

from experiments.results.tables.engines.log import Line

How: TypeAlias = Literal["total", "step", "mean"]
"""The total so far; what one step took, logged at every step; or the mean over the steps since the last that was."""

_NAMES: Final[Mapping[str, tuple[tuple[str, How], ...]]] = {
    "tokens": (
        ("num_tokens", "total"),  # TRL
        ("train/num_tokens", "total"),  # TRL, to its trackers
        ("progress/total_tokens", "total"),  # prime-rl
        ("perf/total_num_tokens", "step"),  # verl
        ("train/total_num_tokens", "step"),  # NeMo-RL
    ),
    "seconds": (
        ("timing_s/step", "step"),  # verl
        ("time/step", "step"),  # prime-rl
        ("timing/train/total_step_time", "step"),  # NeMo-RL
        ("step_time", "mean"),  # TRL
        ("train/step_time", "mean"),
        ("_runtime", "total"),  # W&B, since the start of the run
    ),
}
"""By axis what is logged of it, and how; the first that is there counts."""


class Spent(NamedTuple):
    """What had been spent after each of the steps that were logged, in ascending order."""

    name: str
    how: How
    steps: Sequence[float]
    amounts: Sequence[float]

    def at(self, step: float) -> float | None:
        """After any step, between two that were logged in proportion; None before the first and beyond the last."""
        place = bisect_left(self.steps, step)
        if place == len(self.steps) or (place == 0 and self.steps[0] != step):
            return None
        if self.steps[place] == step:
            return self.amounts[place]
        share = (step - self.steps[place - 1]) / (self.steps[place] - self.steps[place - 1])
        return self.amounts[place - 1] + share * (self.amounts[place] - self.amounts[place - 1])


def axes_of(lines: Sequence[Line]) -> tuple[dict[str, Spent], list[str]]:
    """What was spent by axis, and for each that cannot be known the reason."""
    found: dict[str, Spent] = {}
    reasons = []
    for axis, names in _NAMES.items():
        for name, how in names:
            logged = sorted({line.step: line.values[name] for line in lines if line.values.get(name, -1) >= 0}.items())
            if not logged:
                continue
            steps, amounts = [step for step, _ in logged], [amount for _, amount in logged]
            if how == "step" and (gap := _gap(steps)) is not None:
                reasons.append(f"{axis} are not known, since {name!r} of step {gap:g} is not in the log")
            elif how == "total" and any(after < before for before, after in pairwise(amounts)):
                reasons.append(f"{axis} are not known, since {name!r} falls within the run")
            else:
                found[axis] = _spent(name, how, steps, amounts)
            break
    return found, reasons


def _spent(name: str, how: How, steps: list[float], amounts: list[float]) -> Spent:
    if how == "mean":
        amounts = [
            amount * (step - before) for before, step, amount in zip([0.0, *steps], steps, amounts, strict=False)
        ]
    if how != "total":
        amounts = list(accumulate(amounts))
    if steps[0] > 0:
        steps, amounts = [0.0, *steps], [0.0, *amounts]
    return Spent(name, how, steps, amounts)


def _gap(steps: Sequence[float]) -> float | None:
    """The first step that is missing, counted from 0 or 1; None where there is none."""
    first = 0 if steps[0] == 0 else 1
    return next((float(wanted) for wanted, step in enumerate(steps, start=first) if step != wanted), None)
