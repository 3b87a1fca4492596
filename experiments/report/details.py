"""Section of the report: every statistic behind the verdicts."""

from collections.abc import Sequence
from html import escape

from experiments.report.markup import breakable, cell, header_cell, level_text
from experiments.report.tables import Unit, difference_text, number_text, p_text, unit, value_text
from experiments.results import Study
from experiments.statistics import Analysis, ArmSummary, Comparison, friedman


def details_section(study: Study, analysis: Analysis | None) -> str:
    """Both families of p, unadjusted and simultaneous intervals, effect sizes and spreads; closed until opened."""
    if analysis is None or not analysis.comparisons:
        return ""
    measure = unit(str(study.declaration["metric"]))
    level = level_text(analysis)
    about = (
        "The verdict follows the adjusted p of one test, chosen by the number of seeds alone; everything else is "
        "sensitivity. Below 8 seeds sign flips are shown for reference. Intervals of the family hold together. "
        "P(improvement) compares all pairs of runs, unpaired; the win rate is paired."
    )
    return (
        f'<section><h2>Every number</h2><p class="about">{about}</p>'
        f"<details><summary>Comparisons and arms in full</summary>"
        f"{_comparisons(analysis.comparisons, measure, level)}{_arms(analysis.arms, measure)}"
        f"{_friedman(analysis)}</details></section>"
    )


def _comparisons(comparisons: Sequence[Comparison], measure: Unit, level: str) -> str:
    titles = (
        *("n", "difference", "sd of differences", "correlation of arms", f"{level} interval", f"{level} of the family"),
        *(f"{level} by sign flips", "p t", "p sign flip", "p Wilcoxon", "Holm t", "max-T flip", "p equivalence"),
        *("d<sub>z</sub>", "g<sub>z</sub>", "d<sub>av</sub>", "win rate", "P(improvement)"),
    )
    rows = "".join(
        f'<tr><th scope="row">{breakable(each.arm)} vs {breakable(each.baseline)}</th>'
        + "".join(map(cell, _numbers(each, measure)))
        + "</tr>"
        for each in comparisons
    )
    return _table(("comparison", *titles), rows)


def _numbers(each: Comparison, measure: Unit) -> tuple[str, ...]:
    intervals = (each.interval, each.simultaneous_interval, each.flip_interval)
    probabilities = (
        *(each.p_t, each.p_flip, each.p_wilcoxon),
        *(each.adjusted_p_t, each.adjusted_p_flip, each.p_equivalence),
    )
    sizes = (each.d_z, each.g_z, each.d_av, each.win_rate, each.probability_of_improvement)
    return (
        str(each.n),
        difference_text(each.mean_difference, measure),
        value_text(each.sd_difference, measure, suffix=False),
        number_text(each.correlation, 2),
        *(
            "–" if i is None else f"{difference_text(i[0], measure)} to {difference_text(i[1], measure)}"
            for i in intervals
        ),
        *(escape(p_text(p)) for p in probabilities),
        *(number_text(size, 2) for size in sizes),
    )


def _arms(arms: Sequence[ArmSummary], measure: Unit) -> str:
    titles = ("arm", "n", "mean", "sd", "interquartile mean", "minimum", "maximum")
    rows = "".join(
        f'<tr><th scope="row">{breakable(each.arm)}</th>{cell(str(each.n))}'
        + "".join(
            cell(value_text(value, measure, suffix=False))
            for value in (each.mean, each.sd, each.interquartile_mean, each.minimum, each.maximum)
        )
        + "</tr>"
        for each in arms
    )
    return _table(titles, rows)


def _friedman(analysis: Analysis) -> str:
    """The omnibus description over ranks; no verdict rests on it."""
    if len(analysis.arms) < 3 or len(analysis.seeds) < 2:
        return ""
    chi2, f, p = friedman(list(zip(*(each.scores for each in analysis.arms), strict=True)))
    stated = escape(p_text(p) if p < 1e-4 else f"= {p_text(p)}")
    return (
        f'<p class="about">Friedman over all arms, by ranks within seeds: χ² = {number_text(chi2, 2)}, Iman–Davenport '
        f"F = {number_text(f, 2)}, p {stated}. Description only: no verdict rests on it.</p>"
    )


def _table(titles: Sequence[str], rows: str) -> str:
    head = header_cell(titles[0]) + "".join(header_cell(title, "n") for title in titles[1:])
    return f'<div class="scroll"><table class="runs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
