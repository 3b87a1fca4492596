"""Small pieces of HTML that the sections share."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from experiments.report.arm_style import Style
from experiments.report.drawing import swatch
from experiments.report.formatting import MARKS, test_name, verdict_text
from experiments.statistics import Comparison


def section(title: str, *parts: str, about: str = "") -> str:
    """A section of the page; its address is made of the title."""
    intro = f'<p class="about">{about}</p>' if about else ""
    name = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
    return f'<section id="{name}"><h2>{escape(title)}</h2>{intro}{"".join(parts)}</section>'


def contents(sections: Sequence[str]) -> str:
    """Links to sections, by their own titles, and a link back to them that stays on the screen."""
    heads = (re.match(r'<section id="([^"]+)"><h2>(.*?)</h2>', each) for each in sections)
    items = (f'<li><a href="#{head[1]}">{head[2]}</a></li>' for head in heads if head)
    nav = f'<nav id="contents" aria-label="Contents"><ul class="contents">{"".join(items)}</ul></nav>'
    return f'{nav}<a class="back" href="#contents">↑ Contents</a>'


SIDEWAYS: Final = '<p class="sideways" aria-hidden="true">Wider than this screen: scroll it sideways →</p>'
"""Shown by the page's script at the top of what is."""


def figure(drawing: str, title: str = "", kind: str = "") -> str:
    """A figure under its title."""
    caption = f"<figcaption>{title}</figcaption>" if title else ""
    return f'<figure class="{kind}">{caption}{SIDEWAYS if "scroll" in kind else ""}{drawing}</figure>'


def legend(styles: Mapping[str, Style], baseline: str) -> str:
    """All arms with their lines and markers."""
    tags = {baseline: ' <span class="tag">baseline</span>'} if len(styles) > 1 else {}
    items = (f"<li>{arm_name(arm, styles)}{tags.get(arm, '')}</li>" for arm in styles)
    return f'<ul class="legend">{"".join(items)}</ul>'


def badge(each: Comparison, *, with_label: bool = False) -> str:
    """A verdict as a coloured badge, its sign first so that colour is not needed."""
    words = verdict_text(each)
    long = " long" if len(words) > 22 else ""
    label = f'<span class="basis">{each.label}</span>' if with_label and test_name(each) else ""
    return f'<span class="badge {each.verdict}{long}">{MARKS[each.verdict]} {escape(words)}</span>{label}'


def arm_name(arm: str, styles: Mapping[str, Style]) -> str:
    """An arm with its marker."""
    return f'<span class="arm">{swatch(styles[arm])}<span>{breakable(arm)}</span></span>'


def pair_name(each: Comparison, styles: Mapping[str, Style]) -> str:
    """An arm with its marker, and the arm it is compared with."""
    return f"{arm_name(each.arm, styles)}<small>vs {breakable(each.baseline)}</small>"


def breakable(words: str) -> str:
    """Escaped text that may break after the marks inside a long name, but not inside its words and numbers."""
    return re.sub(r"([_=/]|\.(?!\d))(?=\w)", r"\1<wbr>", escape(words))


def facts(pairs: Mapping[str, str]) -> str:
    """Names with their values, side by side."""
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs.items())
    return f'<dl class="facts">{items}</dl>'
