"""The answer to a report's title in one sentence: verdicts with levels beside differences, sampled and greedy."""

from collections.abc import Mapping, Sequence
from typing import Final

from experiments.report.formatting import (
    counted,
    difference_text,
    listed,
    measured_unit,
    metric_name,
    unit,
    value_text,
)
from experiments.report.sentences import plain_sentence
from experiments.report.tables import Row, arm_rows, compared_means, counterpart
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Comparison, Judgement
from experiments.statistics.records import Verdict

NAMED: Final = 3
"""Arms of one verdict that the sentence names; the others are counted."""
_AMONG_OTHERS: Final[Mapping[Verdict, str]] = {
    "better": "better with",
    "worse": "worse with",
    "equivalent": "equivalent with",
    "inconclusive": "undecided with",
    "untestable": "untested with",
}


def answer(study: StoredStudy, judgement: Judgement | None) -> str:
    """The sentence, as plain text; empty while nothing can be said."""
    if judgement is None or not judgement.analysis.comparisons:
        return _one_arm(study) if len(study.arms) == 1 else ""
    return answer_in(judgement, arm_rows(study, judgement))


def answer_in(judgement: Judgement, rows: Sequence[Row]) -> str:
    """The sentence on verdicts; `rows` of arms say what lies beside them, such as greedy accuracy."""
    analysis = judgement.analysis
    provisional = "Interim: " if any(note.startswith("Interim") for note in analysis.notes) else ""
    if len(analysis.comparisons) == 1:
        return f"{provisional}{sentence_with_levels(analysis.comparisons[0], rows, judgement)}."
    return provisional + _grouped(rows, judgement)


def sentence_with_levels(each: Comparison, rows: Sequence[Row], judgement: Judgement) -> str:
    """A comparison's plain sentence, then what its difference lies between, sampled and greedy."""
    metric, beside = metric_name(judgement.analysis.metric), _beside(each, rows, judgement)
    return f"{plain_sentence(each, judgement)}; {metric} {_levels(each, judgement)}{f'; {beside}' if beside else ''}"


def _levels(each: Comparison, judgement: Judgement) -> str:
    """Both means: `56.0 % against 52.0 %`."""
    measure, (arm, base) = measured_unit(judgement), compared_means(judgement, each)
    return f"{value_text(arm, measure)} against {value_text(base, measure)}"


def _beside(each: Comparison, rows: Sequence[Row], judgement: Judgement) -> str:
    """The counterpart's difference; with its levels, where these are means over the same seeds."""
    pair = (each.arm, each.baseline)
    found = next((row for row in judgement.beside if (row.arm, row.baseline) == pair), None)
    if found is None:
        return ""
    measure, how = unit(found.metric), "greedy" if "greedy" in found.metric else "sampled"
    arm, base = (next((row.beside for row in rows if row.arm == name), None) for name in pair)
    difference = difference_text(found.other, measure)
    if arm is None or base is None or abs(arm - base - found.other) > 1e-9:
        return f"{how} {difference}"
    if value_text(arm, measure) == value_text(base, measure):
        return f"{how} {value_text(arm, measure)} in both"
    return f"{how} {value_text(arm, measure)} against {value_text(base, measure)}, {difference}"


def _grouped(rows: Sequence[Row], judgement: Judgement) -> str:
    """Arms by verdict, each with its levels and difference."""
    analysis = judgement.analysis
    baselines = {each.baseline for each in analysis.comparisons}
    metric, measure = metric_name(analysis.metric), measured_unit(judgement)
    subject = f"Compared with {next(iter(baselines))}, {metric}" if len(baselines) == 1 else metric.capitalize()
    groups = []
    for verdict, words in _AMONG_OTHERS.items():
        of = [each for each in analysis.comparisons if each.verdict == verdict]
        named = []
        for each in of[:NAMED]:
            beside = _beside(each, rows, judgement)
            name = each.arm if len(baselines) == 1 else f"{each.arm} against {each.baseline}"
            difference = difference_text(each.effect.mean_difference, measure, analysis.margin)
            numbers = f"{_levels(each, judgement)}, {f'{difference} {measure.difference}'.strip()}"
            named.append(f"{name} ({numbers}{f'; {beside}' if beside else ''})")
        rest = [f"{len(of) - NAMED} more"] if len(of) > NAMED else []
        groups += [f"{words} {listed([*named, *rest])}"] if of else []
    return f"{subject} is {'; '.join(groups)}."


def _one_arm(study: StoredStudy) -> str:
    """The mean of a study of one arm."""
    (row,) = arm_rows(study, None)
    if row.mean is None:
        return ""
    measure = unit(study.plan.metric)
    beside = f"; {metric_name(counterpart(study))} {value_text(row.beside, measure)}" if row.beside is not None else ""
    return f"{row.arm} reaches {value_text(row.mean, measure)} (mean of {counted(len(row.scores), 'seed')}){beside}."
