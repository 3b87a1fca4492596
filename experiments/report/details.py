"""Section of the report: every statistic behind the verdicts."""

from collections.abc import Mapping
from html import escape

from experiments.report.arm_style import Style
from experiments.report.context import Judged
from experiments.report.formatting import (
    Unit,
    alpha_of,
    error_text,
    interval_text,
    level_text,
    number_text,
    p_text,
    value_text,
)
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell, to_html, without_empty
from experiments.report.markup import pair_name, section
from experiments.report.tables import common_scores
from experiments.statistics import Analysis, Comparison, FixedN, Judgement, friedman
from experiments.statistics.wording import REACHABLE


def details_section(context: Judged) -> str:
    """Both families of p, unadjusted and simultaneous intervals, effect sizes and spreads; closed until opened."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.analysis.comparisons:
        return ""
    analysis = judgement.analysis
    measure = context.measure
    about = (
        "The verdict follows the adjusted p of one test, chosen by the plan and the number of seeds alone; everything "
        "else is sensitivity. The standard error is that of the mean difference: the sd of differences over √n, and at "
        "least what sampled answers allow. Intervals of the family hold together. "
        "P(improvement) compares all pairs of runs, unpaired; the win rate is paired."
    )
    grid = Grid(
        _columns(level_text(judgement)), tuple(_row(each, judgement, measure, styles) for each in analysis.comparisons)
    )
    inside = to_html(without_empty(grid), "Every number of the comparisons")
    inside += "" if judgement.plan.sequential else _friedman(analysis)
    return section("Every number", f"<details><summary>Comparisons in full</summary>{inside}</details>", about=about)


def _columns(level: str) -> tuple[Column, ...]:
    numbers = {"sd": "sd of differences", "correlation": "correlation of arms"}
    intervals = {
        "interval": f"{level} interval",
        "family": f"{level} of the family",
        "flip": f"{level} by sign flips",
        "boott": f"{level} by bootstrap-t",
    }
    p = {
        "p_t": "p t",
        "p_flip": "p sign flip",
        "p_wilcoxon": "p Wilcoxon",
        "holm": "Holm t",
        "max_t": "max-T flip",
        "p_equivalence": "p equivalence",
    }
    sizes = {"d_z": "d_z", "d_av": "d_av", "p_improvement": "P(improvement)"}
    needed = {"detectable": "detectable with 80 % power", "seeds": "seeds to detect Δ", "most": "at the upper sd"}
    return (
        column("pair", "comparison"),
        *(column(key, title, numeric=True) for key, title in numbers.items()),
        column("standard_error", "standard error", numeric=True),
        column("answers_error", "its least, by the answers", numeric=True),
        *(Column((f"{key}_low", f"{key}_high"), title, numeric=True) for key, title in intervals.items()),
        *(column(key, title, numeric=True) for key, title in {**p, **sizes, **needed}.items()),
    )


def _row(each: Comparison, judgement: Judgement, measure: Unit, styles: Mapping[str, Style]) -> tuple[Cell, ...]:
    effect, fixed = each.effect, each.fixed_n or FixedN()
    intervals = (
        *(effect.interval, effect.simultaneous_interval),
        *(fixed.flip_interval, judgement.bootstrap_t(each)),
    )
    alpha = alpha_of(judgement, each)
    probabilities = (
        *(fixed.p_t, fixed.p_flip, fixed.p_wilcoxon),
        *(fixed.adjusted_p_t, fixed.adjusted_p_flip, fixed.p_equivalence),
    )
    sizes = (effect.d_z, effect.d_av, effect.probability_of_improvement)
    return (
        text_cell(f"{each.arm} vs {each.baseline}", pair_name(each, styles)),
        number_cell(effect.sd_difference, value_text(effect.sd_difference, measure, suffix=False)),
        number_cell(effect.correlation, number_text(effect.correlation, 2)),
        number_cell(effect.standard_error, error_text(effect.standard_error, measure)),
        number_cell(effect.answers_error, error_text(effect.answers_error, measure)),
        *(Cell(interval_text(ends, measure, judgement.plan.margin), ends or (None, None)) for ends in intervals),
        *(number_cell(p, p_text(p, alpha), escape(p_text(p, alpha))) for p in probabilities),
        *(number_cell(size, number_text(size, 2)) for size in sizes),
        number_cell(
            fixed.detectable,
            "not reachable"
            if fixed.detectable is not None and fixed.detectable > judgement.plan.largest
            else value_text(fixed.detectable, measure, suffix=False),
        ),
        *(number_cell(n, _seeds_text(n)) for n in (fixed.seeds_for_margin, fixed.seeds_for_margin_high)),
    )


def _seeds_text(n: int | None) -> str:
    return "–" if n is None else str(n) if n <= REACHABLE else f"over {REACHABLE}"


def _friedman(analysis: Analysis) -> str:
    """The omnibus description over ranks; no verdict rests on it."""
    if len(analysis.arms) < 3 or len(analysis.seeds) < 2:
        return ""
    chi2, f, p = friedman(list(zip(*common_scores(analysis).values(), strict=True)))
    stated = escape(p_text(p) if p < 1e-4 else f"= {p_text(p)}")
    return (
        f'<p class="about">Friedman over all arms, by ranks within seeds: χ² = {number_text(chi2, 2)}, Iman–Davenport '
        f"F = {number_text(f, 2)}, p {stated}. Description only: no verdict rests on it.</p>"
    )
