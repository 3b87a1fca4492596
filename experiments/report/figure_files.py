"""The report's figures as files, for a paper or slides: the drawings of the page, each complete in itself."""

import re
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path

from experiments.report.arm_style import TONES, Style, arm_styles
from experiments.report.css import FIGURE_CSS, LIGHT
from experiments.report.drawing import line, mark, text, width_of
from experiments.report.export import write_report_file
from experiments.results.stored_study import StoredStudy

_FIGURE = re.compile(
    r'<section id="(?P<section>[^"]+)">|<div class="on-axis on-(?P<axis>\w+)(?P<declared> declared)?">|'
    r'<figure class="(?P<kind>[^"]*)">(?:<figcaption>(?P<title>.*?)</figcaption>)?(?:<p class="sideways".*?</p>)?'
    r'(?P<svg><svg (?:style="[^"]*" )?class="figure".*?</svg>)</figure>'
)
_VARIABLE = re.compile(r"var\((--[\w-]+)\)")
_SANS = "Helvetica, Arial, sans-serif"


def write_figures(study: StoredStudy, page: str, folder: Path) -> list[Path]:
    """Write every figure of the page as `SECTION-TITLE.svg`, light, with a legend of the arms; return their paths.

    Learning curves are written by the declared budget; those of the declared metric by the other budgets too.
    """
    styles = arm_styles(list(study.arms), study.baseline)
    drawings: dict[str, str] = {}
    section, axis, declared = "", "", True
    for each in _FIGURE.finditer(page):
        if each["section"]:
            section, axis, declared = each["section"], "", True
        elif each["axis"]:
            axis, declared = each["axis"], bool(each["declared"])
        elif declared or each["kind"] == "main":
            title = unescape(re.sub("<.*?>", "", each["title"] or ""))
            words = (section, "" if declared else f"by-{axis}", title)
            name = re.sub(r"[^\w.=-]+", "-", "-".join(filter(None, words)).lower()).strip("-")
            drawings.setdefault(f"{name}.svg", standalone(each["svg"], styles))
    return [write_report_file(Path(folder) / name, drawing.encode()) for name, drawing in drawings.items()]


def standalone(drawing: str, styles: Mapping[str, Style]) -> str:
    """A drawing of the page as a file of its own: its colours are literal, as few programs know CSS variables."""
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)[0])
    shown = {tone for tone in range(len(TONES)) if re.search(rf'class="[^"]*\bt{tone}"', drawing)}
    legend, below = _legend({arm: style for arm, style in styles.items() if style.tone in shown}, width)
    size = f'width="{width:g}" height="{height + below:g}" viewBox="0 0 {width:g} {height + below:g}"'
    label = escape(unescape(re.findall(r'aria-label="([^"]*)"', drawing)[0]))
    inside = drawing[drawing.index(">") + 1 : -len("</svg>")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" {size} role="img" aria-label="{label}">'
        f"<style>{_css(shown)}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{inside}'
        f'<g transform="translate(0 {height:g})">{legend}</g></svg>\n'
    )


def _legend(styles: Mapping[str, Style], width: float) -> tuple[str, float]:
    """All arms with their lines and markers, and the height of this legend."""
    parts, x, y = [], 10.0, 16.0
    for arm, style in styles.items():
        wide = 38 + width_of(arm)
        if x > 10 and x + wide > width:
            x, y = 10.0, y + 20
        parts += [line([(x, y), (x + 30, y)], "mean", style, dashed=True), mark(x + 15, y, style)]
        parts.append(text(x + 38, y + 4, arm, "label"))
        x += wide + 16
    return "".join(parts), y + 12


def _css(tones: set[int]) -> str:
    """The rules of figures with every variable replaced by its light value."""
    values = dict(re.findall(r"(--[\w-]+): ([^;]+);", LIGHT)) | {"--sans": _SANS}
    rules = []
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", FIGURE_CSS):
        tones_of_rule = sorted(tones) if "var(--tone)" in body else [None]
        for tone in tones_of_rule:
            own = values if tone is None else values | {"--tone": TONES[tone][0]}
            literal = _VARIABLE.sub(lambda match, own=own: own[match[1]], body)  # type: ignore[misc]
            chosen = ",".join(s.strip() + ("" if tone is None else f".t{tone}") for s in selectors.split(","))
            rules.append(f"{chosen}{{{' '.join(literal.split())}}}")
    return "\n".join(rules)
