"""One HTML file that says what a study asked, what it found, and what the finding rests on.

The page is self-contained (figures are inline SVG, no script, nothing loaded from elsewhere) and depends on
the study's files alone: the same files give the same bytes.
"""

import os
from contextlib import suppress
from html import escape
from pathlib import Path

from experiments.report.curves import curves_section
from experiments.report.details import details_section
from experiments.report.figures import arm_styles
from experiments.report.markup import listed
from experiments.report.runs import cards_section, reproduction_section, responses_section, runs_section
from experiments.report.style import CSS
from experiments.report.tables import (
    metric_name,
)
from experiments.report.verdicts import declared_section, differences_section, headline_section, verdicts_section
from experiments.results import Study, StudyError
from experiments.statistics import Analysis


def write_report(study: Study, analysis: Analysis | None, path: Path) -> Path:
    """Write the study's report to `path` and return it; the file appears whole or not at all.

    Without an analysis (one arm, or nothing to compare yet) the page describes the runs and gives no verdict.
    """
    path = Path(path)
    if path.is_dir():
        raise StudyError(f"{path}: a folder, but the report is one file; give a name such as {path / 'report.html'}")
    # responses may hold lone surrogates, which UTF-8 cannot write
    page = _page(study, analysis).encode("utf-8", errors="replace")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(page)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise StudyError(f"cannot write {path}: {error.strerror or error}; the runs are as they were") from error
    return path


def _page(study: Study, analysis: Analysis | None) -> str:
    styles = arm_styles(list(study.arms), study.baseline)
    question = _question(study)
    sections = (
        headline_section(study, analysis, question),
        verdicts_section(study, analysis, styles),
        declared_section(study, analysis),
        curves_section(study, styles),
        differences_section(study, analysis, styles),
        details_section(study, analysis),
        cards_section(study, styles),
        responses_section(study, styles),
        runs_section(study, styles),
        reproduction_section(study),
    )
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(study.name)}: {escape(question)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _question(study: Study) -> str:
    """The question as the study states it, or as its arms and metric imply it."""
    stated = study.record.get("question") or study.declaration.get("question")
    if stated:
        return str(stated)
    metric = metric_name(str(study.declaration["metric"]))
    others = [arm for arm in study.arms if arm != study.baseline]
    if not others:
        return f"What {metric} does {study.baseline} reach?"
    if len(others) > 5:
        return f"Which of {len(others)} arms changes {metric} compared with {study.baseline}?"
    return f"{'Does' if len(others) == 1 else 'Do'} {listed(others)} change {metric} compared with {study.baseline}?"
