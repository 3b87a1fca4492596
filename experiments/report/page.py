"""One HTML file with a study's question, its verdicts, and the data behind them.

The page is self-contained (figures are inline SVG, nothing is loaded from elsewhere) and depends on the study's files
alone: the same files give the same bytes. Its script only sorts tables and opens what is folded before printing;
without it everything is still there. A section that has nothing to show is left out.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final

from experiments.report.ability import ability_section
from experiments.report.arms import cards_section, reproduction_section
from experiments.report.context import Context
from experiments.report.coupling import coupling_section
from experiments.report.css import CSS
from experiments.report.curves import curves_section
from experiments.report.details import details_section
from experiments.report.differences import differences_section
from experiments.report.distribution import distribution_section
from experiments.report.exploratory import exploratory_section
from experiments.report.export import write_report_file
from experiments.report.markup import contents
from experiments.report.noise import noise_section
from experiments.report.outcomes import outcomes_section
from experiments.report.ranks import ranks_section
from experiments.report.samples import samples_section
from experiments.report.script import SCRIPT
from experiments.report.sensitivity import sensitivity_section
from experiments.report.sharpening import sharpening_section
from experiments.report.tuning import tuning_section
from experiments.report.verdicts import declared_section, headline_section, verdicts_section
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement

SECTIONS: Final[tuple[Callable[[Context], str], ...]] = (
    headline_section,
    verdicts_section,
    sensitivity_section,
    sharpening_section,
    declared_section,
    tuning_section,
    curves_section,
    ability_section,
    differences_section,
    distribution_section,
    ranks_section,
    coupling_section,
    noise_section,
    outcomes_section,
    samples_section,
    exploratory_section,
    details_section,
    cards_section,
    reproduction_section,
)
"""In the order of the page, the head first; a section with nothing to show is empty."""


def write_report(study: StoredStudy, judgement: Judgement | None, path: Path) -> Path:
    """Write the study's report to `path` and return it; the file appears whole or not at all."""
    path = Path(path)
    if path.is_dir():
        raise StudyError(f"{path}: a folder, but the report is one file; give a name such as {path / 'report.html'}")
    # responses may hold lone surrogates, which UTF-8 cannot write
    return write_report_file(path, render(study, judgement).encode("utf-8", errors="replace"))


def render(study: StoredStudy, judgement: Judgement | None) -> str:
    """The page as text.

    Without a judgement (one arm, or nothing to compare yet) it describes the runs and gives no verdict.
    """
    context = Context.of(study, judgement)
    sections = (make(context) for make in SECTIONS)
    head, *rest = (section for section in sections if section)
    return document(f"{study.name}: {context.question}", "\n".join((head, contents(rest), *rest)))


def document(title: str, body: str) -> str:
    """A page as text, with style and script."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f'<body>\n<a class="skip" href="#content">Skip to the verdicts</a>\n<main id="content">\n{body}\n</main>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
