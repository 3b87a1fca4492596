"""Sections of the report: verdicts in words and as a table, what was declared, paired differences."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from experiments.report.figures import Style, differences_figure
from experiments.report.markup import (
    arm_name,
    badge,
    breakable,
    budget_text,
    cell,
    counted,
    header_cell,
    level_text,
    plain_text,
    signed_text,
)
from experiments.report.tables import (
    Row,
    Unit,
    difference_text,
    interval_of,
    metric_name,
    number_text,
    p_text,
    test_name,
    thousands,
    unit,
    value_text,
    verdict_rows,
)
from experiments.results import Study
from experiments.statistics import Analysis, Comparison

_SCALARS = {"final": "final: the mean of the last evaluations up to the budget, never the best checkpoint"}
_FAILURES = {
    "intersect": "intersect: a seed that is missing in one arm is left out of all",
    "worst": "worst: a run that fails of its own doing keeps a score declared before the study",
}
_FAMILIES = {"baseline": "every other arm with the baseline", "all": "all pairs of arms"}
_SHOWN = (
    *("metric", "scalar", "axis", "budget", "baseline", "family"),
    *("alpha", "margin", "margin_declared", "failures", "seeds", "question", "arms", "config"),
)


def headline_section(study: Study, analysis: Analysis | None, question: str) -> str:
    """The question, and every verdict in words."""
    counts = study.counts()
    finished, planned = (sum(getattr(each, what) for each in counts.values()) for what in ("finished", "planned"))
    lede = (
        f"{counted(len(study.arms), 'arm')} × {counted(len(study.seeds), 'seed')}, "
        f"{budget_text(study)} per run; {finished} of {planned} runs finished."
    )
    parts = [
        f'<p class="eyebrow">Study {escape(study.name)}</p>',
        f"<h1>{breakable(question)}</h1>",
        f'<p class="lede">{lede}</p>',
    ]
    if analysis is not None and analysis.comparisons:
        measure = unit(str(study.declaration["metric"]))
        items = (
            f"<li><div>{badge(each)}</div><div><p>{_in_short(each, measure, level_text(analysis))}</p>"
            f'<p class="detail">{escape(each.sentence)}</p></div></li>'
            for each in analysis.comparisons
        )
        parts.append(f'<ul class="verdicts">{"".join(items)}</ul>')
    else:
        parts.append(f'<ul class="verdicts"><li><div><span class="badge none">no verdict</span></div>'
                     f"<p>{_no_verdict(study)}</p></li></ul>")  # fmt: skip
    alerts = []
    short = {arm: each for arm, each in counts.items() if each.finished < each.planned}
    if short:
        states = ("failed", "interrupted", "running", "missing")
        words = {"missing": "not started"}
        told = (
            f"{escape(arm)} {each.finished} of {each.planned} ("
            + ", ".join(f"{getattr(each, s)} {words.get(s, s)}" for s in states if getattr(each, s))
            + ")"
            for arm, each in short.items()
        )
        alerts.append(f"<p><strong>Not every planned run finished:</strong> {'; '.join(told)}.</p>")
    if study.ignored:
        alerts.append(f"<p>Left out, because the study does not plan them: {escape(', '.join(study.ignored))}.</p>")
    if alerts:
        parts.append(f'<div class="alert">{"".join(alerts)}</div>')
    return f"<header>{''.join(parts)}</header>"


def _in_short(each: Comparison, measure: Unit, level: str) -> str:
    """A comparison in the reader's unit; the sentence of the analysis follows with all it rests on."""
    low, high = interval_of(each)
    interval = ""
    if low is not None and high is not None:
        interval = f", {level} interval {signed_text(low, measure)} to {signed_text(high, measure)}"
    points = f" {measure.difference}" if measure.difference else ""
    return (
        f"<strong>{breakable(each.arm)}</strong> against {breakable(each.baseline)}: "
        f"<strong>{difference_text(each.mean_difference, measure)}{points}</strong>{interval}"
    )


def _no_verdict(study: Study) -> str:
    if len(study.arms) == 1:
        return "The study has one arm, so nothing is compared."
    return "No arm could be compared with the baseline yet: finished runs at common seeds are missing."


def verdicts_section(study: Study, analysis: Analysis | None, styles: Mapping[str, Style]) -> str:
    """The verdict table."""
    metric = str(study.declaration["metric"])
    measure = unit(metric)
    rows = verdict_rows(study, analysis)
    compared = analysis is not None and bool(analysis.comparisons)
    points = f", {measure.difference}" if measure.difference else ""
    level = level_text(analysis)
    head = [header_cell("arm"), header_cell(f"mean {metric_name(metric)}", "n")]
    if compared:
        head += [
            header_cell(f"difference to baseline{points}<small>{level} interval</small>", "n"),
            f"<th>{_interval_head()}</th>",
            header_cell("adjusted p", "n"),
            header_cell("effect size <i>g</i><sub>z</sub>", "n"),
            header_cell("win rate", "n"),
        ]
    head += [
        header_cell("sampled tokens<small>per run</small>", "n"),
        header_cell("mean length<small>tokens</small>", "n"),
    ]
    head += [header_cell("verdict")] if compared else []
    extent = _extent(rows, analysis)
    body = []
    for row in rows:
        seeds = counted(len(row.seeds), "seed")
        cells = [
            f'<th scope="row">{arm_name(row.arm, styles)}<small>{seeds}</small></th>',
            cell(value_text(row.mean, measure)),
        ]
        each = row.comparison
        if compared and each is not None and analysis is not None:
            low, high = interval_of(each)
            interval = ""
            if low is not None and high is not None:
                interval = f"<small>{signed_text(low, measure)} to {signed_text(high, measure)}</small>"
            cells += [
                cell(f"<strong>{difference_text(each.mean_difference, measure)}</strong>{interval}"),
                f"<td>{_interval_svg(each, extent, analysis.margin, styles[each.arm], measure)}</td>",
                cell(_p_cell(each)),
                cell(number_text(each.g_z, 2, signed=True)),
                cell(number_text(each.win_rate, 2)),
            ]
        elif compared:
            cells += ["<td></td>"] * 5
        cells += [cell(thousands(row.sampled_tokens)), cell(number_text(row.length, 1))]
        if compared:
            if each is not None:
                shown = badge(each, with_label=True)
            elif row.arm == study.baseline:
                shown = '<span class="badge base">baseline</span>'
            else:
                shown = '<span class="badge none">no finished run</span>'
            cells.append(f"<td>{shown}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    about = "Means and differences are over seeds; differences are paired by seed. " if compared else ""
    if compared:
        about += (
            f"The interval is the unadjusted {level} interval; the verdict follows the adjusted p. "
            "The win rate is the share of seeds on which the arm beats the baseline. "
        )
    about += (
        "Sampled tokens count all that training generates, discarded groups and extra greedy responses too; the mean "
        "length is that of held-out responses."
    )
    return (
        f'<section><h2>{"Verdicts" if compared else "Results"}</h2><p class="about">{about}</p><div class="scroll">'
        f'<table class="verdict-table"><thead><tr>{"".join(head)}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        f"</div>{_pairs(analysis, measure)}</section>"
    )


def _pairs(analysis: Analysis | None, measure: Unit) -> str:
    """The comparisons that do not involve the baseline, when the family is all pairs."""
    others = [each for each in analysis.comparisons if each.baseline != analysis.baseline] if analysis else []
    if not others:
        return ""
    points = f", {measure.difference}" if measure.difference else ""
    body = []
    for each in others:
        low, high = interval_of(each)
        interval = ""
        if low is not None and high is not None:
            interval = f"<small>{signed_text(low, measure)} to {signed_text(high, measure)}</small>"
        body.append(
            f'<tr><th scope="row">{escape(each.arm)} − {escape(each.baseline)}</th>'
            + cell(f"{difference_text(each.mean_difference, measure)}{interval}")
            + cell(_p_cell(each))
            + cell(number_text(each.g_z, 2, signed=True))
            + cell(number_text(each.win_rate, 2))
            + f"<td>{badge(each, with_label=True)}</td></tr>"
        )
    head = (
        header_cell("pair") + header_cell(f"difference{points}<small>{level_text(analysis)} interval</small>", "n")
        + header_cell("adjusted p", "n")
        + header_cell("effect size <i>g</i><sub>z</sub>", "n") + header_cell("win rate", "n") + header_cell("verdict")
    )  # fmt: skip
    return (
        '<h3>The other pairs</h3><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _p_cell(each: Comparison) -> str:
    """The adjusted p with its test; an equivalence rests on another p, which is then given too."""
    if not test_name(each):
        return "–<small>no test</small>"
    cell = f"{escape(p_text(each.adjusted_p))}<small>{test_name(each)}</small>"
    if each.verdict == "equivalent" or each.smaller_than_margin:
        cell += f"<small>within ±Δ: {escape(p_text(each.p_equivalence))}</small>"
    return cell


def _interval_head() -> str:
    return '<small style="white-space:nowrap">interval; strip ±Δ</small>'


def _extent(rows: Sequence[Row], analysis: Analysis | None) -> float:
    """The largest distance from zero that the small intervals of the table must show."""
    found = [1.5 * analysis.margin] if analysis is not None else [1.0]
    for row in rows:
        if row.comparison is not None:
            bounds = interval_of(row.comparison)
            found += [abs(bound) for bound in (*bounds, row.comparison.mean_difference) if bound is not None]
    return max(found)


def _interval_svg(each: Comparison, extent: float, margin: float, style: Style, measure: Unit) -> str:
    """A difference with its interval on a line whose middle is zero, one scale for all rows of the table."""
    place: Callable[[float], str] = lambda value: f"{75 + 70 * value / extent:.1f}"  # noqa: E731
    low, high = interval_of(each)
    bar = ""
    if low is not None and high is not None:
        bar = f'<path d="M{place(low)} 13H{place(high)}" stroke="{style.colour}" stroke-width="2.4"/>'
    label = f"{difference_text(each.mean_difference, measure)} {measure.difference}".strip()
    return (
        f'<svg class="interval" viewBox="0 0 150 26" role="img" aria-label="{escape(label)}">'
        f'<rect x="{place(-margin)}" y="1" width="{140 * margin / extent:.1f}" height="24" fill="#eef1f4"/>'
        f'<path d="M75 1V25" stroke="#8a939d" stroke-width="1"/>{bar}'
        f'<circle cx="{place(each.mean_difference)}" cy="13" r="4.2" fill="{style.colour}" stroke="#fff"/></svg>'
    )


def declared_section(study: Study, analysis: Analysis | None) -> str:
    """What was declared before the first run, and what to keep in mind."""
    declaration = study.declaration
    measure = unit(str(declaration["metric"]))
    margin = difference_text(float(declaration["margin"]), measure).lstrip("+")
    margin += f" {measure.difference}" if measure.difference else ""
    margin += "" if declaration["margin_declared"] else " (the default; nobody chose it for this study)"
    facts = {
        "Metric": f"{metric_name(str(declaration['metric']))} ({declaration['metric']})",
        "One number per run": _SCALARS[str(declaration["scalar"])],
        "Budget": f"{budget_text(study)} per run",
        "Baseline": study.baseline,
        "Comparisons": _FAMILIES.get(str(declaration["family"]), str(declaration["family"])),
        "Error rate α": f"{declaration['alpha']:g}, two-sided, over all comparisons together",
        "Smallest effect of interest Δ": margin,
        "Seeds, in order": ", ".join(map(str, study.seeds)),
        "Failed runs": _FAILURES.get(str(declaration["failures"]), str(declaration["failures"])),
    }
    facts |= {
        key.replace("_", " ").capitalize(): plain_text(value) for key, value in declaration.items() if key not in _SHOWN
    }
    if study.record.get("hash"):
        facts["Hash of the declaration"] = str(study.record["hash"])[:16]
    base = study.record.get("base")
    described = base.get("description") if isinstance(base, Mapping) else base
    if not described:  # then what the declared configuration says
        found = (str(line) for line in declaration.get("config") or () if str(line).startswith("policy.model ="))
        described = next(found, "")
    notes = [
        f"All seeds share one base model{f' ({described})' if described else ''}. A seed changes the prompts and the "
        "sampling, not the model that training starts from: every verdict here is conditional on this base."
    ]
    notes += list(analysis.notes) if analysis is not None else []
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        "<section><h2>Declared before the first run</h2>"
        f'<dl class="facts">{items}</dl><h3>To keep in mind</h3>'
        f'<ul class="notes">{listed}</ul></section>'
    )


def differences_section(study: Study, analysis: Analysis | None, styles: Mapping[str, Style]) -> str:
    """Paired differences, seed by seed, with the margin drawn."""
    if analysis is None or not any(each.baseline == analysis.baseline and each.n for each in analysis.comparisons):
        return ""
    measure = unit(str(study.declaration["metric"]))
    drawing = differences_figure(analysis, styles, name="differences", measure=measure)
    margin = difference_text(analysis.margin, measure).lstrip("+")
    margin += f" {measure.difference}" if measure.difference else ""
    tested = any(each.interval for each in analysis.comparisons)
    interval = f", drawn with its {level_text(analysis)} interval" if tested else ""
    return (
        "<section><h2>Paired differences, seed by seed</h2>"
        f'<p class="about">Each circle is one seed: the arm’s score minus {escape(analysis.baseline)}’s at the same '
        "seed, with the same prompts and the same sampling noise. The circles are joined to their mean"
        f"{interval}. The shaded strip is ±Δ = ±{margin}: an arm counts as equivalent when its mean is shown "
        f'to lie inside.</p><figure class="wide scroll">{drawing}</figure></section>'
    )
