"""Small pieces of HTML and wording that the sections share."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from experiments.report.figures import Style, marker_svg
from experiments.report.tables import (
    MARKS,
    Unit,
    number_text,
    test_name,
    verdict_text,
)
from experiments.results import Study
from experiments.statistics import Analysis, Comparison

_BUDGETS = {"steps": "rollout steps", "sampled_tokens": "sampled tokens"}


def legend(study: Study, styles: Mapping[str, Style]) -> str:
    """All arms with their colours and markers."""
    tags = {study.baseline: ' <span class="tag">baseline</span>'} if len(study.arms) > 1 else {}
    items = (f"<li>{arm_name(arm, styles)}{tags.get(arm, '')}</li>" for arm in study.arms)
    return f'<ul class="legend">{"".join(items)}</ul>'


def badge(each: Comparison, *, with_label: bool = False) -> str:
    """A verdict as a coloured badge."""
    text = verdict_text(each)
    long = " long" if len(text) > 22 else ""
    label = f'<span class="basis">{each.label}</span>' if with_label and test_name(each) else ""
    return f'<span class="badge {each.verdict}{long}">{MARKS[each.verdict]} {escape(text)}</span>{label}'


def arm_name(arm: str, styles: Mapping[str, Style]) -> str:
    """An arm with its marker."""
    return f'<span class="arm">{marker_svg(styles[arm])}<span>{breakable(arm)}</span></span>'


def breakable(text: str) -> str:
    """Escaped text that may break after the marks inside a long name, but not in the middle of its words."""
    return re.sub(r"([_=./])(?=\w)", r"\1<wbr>", escape(text))


def header_cell(text: str, kind: str = "") -> str:
    """A column header."""
    return f'<th scope="col" class="{kind}">{text}</th>' if kind else f'<th scope="col">{text}</th>'


def cell(text: str) -> str:
    """A numeric cell."""
    return f'<td class="n">{text}</td>'


def level_text(analysis: Analysis | None) -> str:
    """The confidence level, e.g. 95 %."""
    return f"{100 * (1 - analysis.alpha):g}\u00a0%" if analysis is not None else ""


def signed_text(value: float, measure: Unit) -> str:
    """A difference in the metric's unit, with its sign."""
    return number_text(value * measure.scale, measure.digits, signed=True)


def budget_text(study: Study) -> str:
    """The declared budget in words."""
    budget = float(study.declaration["budget"])
    return f"{budget:,.0f} {_BUDGETS[str(study.declaration['axis'])]}".replace(",", "\u202f")


def plain_text(value: Any) -> str:
    """A declared value in words."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def counted(number: int, word: str) -> str:
    """A number with its noun."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names with an "and" before the last."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
