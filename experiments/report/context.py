"""The input of every section of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report.arm_style import Style, arm_styles
from experiments.report.formatting import Unit, listed, measured_unit, metric_name, unit
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement


@dataclass(frozen=True)
class Judged:
    """Verdicts, of a study or of runs trained elsewhere, and the arms' styles."""

    judgement: Judgement | None
    styles: Mapping[str, Style]

    @property
    def measure(self) -> Unit:
        """How values of the metric are written: in points where it is known to be a share, else as they were given."""
        assert self.judgement is not None
        return measured_unit(self.judgement)


@dataclass(frozen=True)
class Context(Judged):
    """A study, its verdicts and its arms' styles; the judgement is None while there is nothing to compare."""

    study: StoredStudy

    @classmethod
    def of(cls, study: StoredStudy, judgement: Judgement | None) -> "Context":
        """The context of a report on this study."""
        return cls(judgement, arm_styles(list(study.arms), study.baseline), study)

    @property
    def measure(self) -> Unit:
        """How values of the metric are written: a study knows its own."""
        return unit(self.study.plan.metric)

    @property
    def question(self) -> str:
        """The question as the study states it, or as its arms and metric imply it."""
        stated = self.study.record.get("question") or self.study.declaration.get("question")
        if stated:
            return str(stated)
        return question_of(self.study.plan.course_metric, list(self.study.arms), self.study.baseline)


def question_of(metric: str, arms: Sequence[str], baseline: str) -> str:
    """The question that arms and a metric imply."""
    name = metric_name(metric)
    others = [arm for arm in arms if arm != baseline]
    if not others:
        return f"What {name} does {baseline} reach?"
    if len(others) > 5:
        return f"Which of {len(others)} arms changes {name} compared with {baseline}?"
    do = "Does" if len(others) == 1 else "Do"
    return f"{do} {listed(others)} change {name} compared with {baseline}?"
