"""The input of every section of a report."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.report.arm_style import Style, arm_styles
from experiments.report.formatting import listed, metric_name
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement


@dataclass(frozen=True)
class Context:
    """A study, its verdicts and its arms' styles; the judgement is None while there is nothing to compare."""

    study: StoredStudy
    judgement: Judgement | None
    styles: Mapping[str, Style]

    @classmethod
    def of(cls, study: StoredStudy, judgement: Judgement | None) -> "Context":
        """The context of a report on this study."""
        return cls(study, judgement, arm_styles(list(study.arms), study.baseline))

    @property
    def question(self) -> str:
        """The question as the study states it, or as its arms and metric imply it."""
        stated = self.study.record.get("question") or self.study.declaration.get("question")
        if stated:
            return str(stated)
        metric = metric_name(self.study.plan.course_metric)
        others = [arm for arm in self.study.arms if arm != self.study.baseline]
        if not others:
            return f"What {metric} does {self.study.baseline} reach?"
        if len(others) > 5:
            return f"Which of {len(others)} arms changes {metric} compared with {self.study.baseline}?"
        do = "Does" if len(others) == 1 else "Do"
        return f"{do} {listed(others)} change {metric} compared with {self.study.baseline}?"
