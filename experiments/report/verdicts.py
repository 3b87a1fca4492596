"""Head of the report and its first sections: verdicts in words, as tables and as a matrix, and the declaration."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from experiments.report.answer import answer, sentence_with_levels
from experiments.report.context import Context, Judged
from experiments.report.drawing import box, shortened, svg, text, width_of
from experiments.report.formatting import (
    MARKS,
    POLICY_WORDS,
    Unit,
    axis_words,
    counted,
    difference_text,
    level_text,
    margin_text,
    metric_name,
    plain_text,
    unit,
)
from experiments.report.grid import to_html
from experiments.report.grids import arm_grid, comparison_grid
from experiments.report.markup import badge, breakable, facts, figure, section
from experiments.report.sensitivity import departures
from experiments.report.tables import Row, arm_rows, budget_text, no_verdict, scored_words
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Comparison, Judgement

SCALAR_WORDS = {
    "final": "final: the mean of the last evaluations up to the budget, never the best checkpoint",
    "auc": "auc: the mean height of the curve from before training to the budget",
}
FAMILY_WORDS = {"baseline": "every other arm with the baseline", "all": "all pairs of arms"}
_CLAIMS = {"supported": "better", "not supported": "worse", "underpowered": "inconclusive"}  # as badges look
_SHOWN = (
    *("metric", "scalar", "axis", "budget", "baseline", "family", "alpha", "margin", "margin_declared", "failures"),
    *("floor", "threshold", "seeds", "question", "arms", "config", "questions", "race", "looks", "claim"),
    *("reevaluate", "reevaluate_models"),
)
FOLDED = 3  # more warnings than that are folded
SHOWN = 8  # comparisons of the head that are not folded
_OPPOSITE = {"better": "worse", "worse": "better"}


def headline_section(context: Context) -> str:
    """The question, its answer in one sentence, the claim, every verdict in words, and warnings."""
    study, judgement, question = context.study, context.judgement, context.question
    counts = study.counts()
    finished, planned = (sum(getattr(each, what) for each in counts.values()) for what in ("finished", "planned"))
    lede = (
        f"{counted(len(study.arms), 'arm')} × {counted(len(study.seeds), 'seed')}, "
        f"{budget_text(study)} per run; {finished} of {planned} runs finished."
    )
    parts = [
        f'<p class="eyebrow">Study {escape(study.name)}</p>',
        f"<h1>{breakable(question).replace('-', '-&#8288;')}</h1>",
        f'<p class="answer">{breakable(said)}</p>' if (said := answer(study, judgement)) else "",
        f'<p class="lede">{lede}</p>',
        _claim(study, judgement),
    ]
    if judgement is not None and judgement.analysis.comparisons:
        parts += [warnings_alert(judgement), verdict_list(judgement, arm_rows(study, judgement))]
    else:
        parts.append(
            f'<ul class="verdicts"><li><div><span class="badge none">no verdict</span></div>'
            f"<p>{escape(no_verdict(study))}</p></li></ul>"
        )
    parts.append(_missing(study, judgement))
    return f"<header>{''.join(parts)}</header>"


def verdict_list(judgement: Judgement, rows: Sequence[Row]) -> str:
    """Every comparison with its badge and what it rests on; a long list is folded after its first."""
    comparisons = judgement.analysis.comparisons
    items = []
    for each in comparisons:
        short = f"<p>{breakable(sentence_with_levels(each, rows, judgement))}</p>"
        said = "" if len(comparisons) == 1 else short  # the answer above has said it
        long = f'<p class="detail">{escape(each.sentence)}</p>'
        items.append(f"<li><div>{badge(each)}</div><div>{said}{_depends(judgement, each)}{long}</div></li>")
    first, rest = (f'<ul class="verdicts">{"".join(part)}</ul>' for part in (items[:SHOWN], items[SHOWN:]))
    folded = f"<details><summary>{len(items) - SHOWN} more comparisons</summary>{rest}</details>"
    return first + (folded if len(items) > SHOWN else "")


def _claim(study: StoredStudy, judgement: Judgement | None) -> str:
    """The study's claim and its outcome."""
    claim = study.declaration.get("claim") or study.record.get("claim")
    if not isinstance(claim, Mapping):
        return ""
    judged_claim = judgement.claim if judgement is not None else None
    verdict = judged_claim.outcome if judged_claim else str(claim.get("verdict") or "")
    shown = f' <span class="badge {_CLAIMS.get(verdict, "none")}">{escape(verdict)}</span>' if verdict else ""
    html = f"<p><strong>Claim</strong> {escape(plain_text(claim.get('question') or ''))}{shown}</p>"
    if claim.get("source"):
        html += f'<p class="detail">{escape(plain_text(claim["source"]))}</p>'
    predicted = claim.get("predictions") or claim.get("prediction") or ()
    lines = [each.sentence for each in judged_claim.assessments] if judged_claim else predicted
    for line in [lines] if isinstance(lines, str) else lines:
        html += f"<p><strong>Predicted</strong> {escape(str(line))}</p>"
    return f'<div class="claim">{html}</div>'


def warnings_alert(judgement: Judgement) -> str:
    """The judgement's warnings; a long list is folded, since every affected verdict is marked."""
    html = "".join(f"<p>{escape(warning)}</p>" for warning in judgement.warnings)
    if len(judgement.warnings) > FOLDED:
        number = len(judgement.warnings)
        html = (
            f"<details><summary>{number} warnings: not every verdict below holds throughout</summary>{html}</details>"
        )
    return f'<div class="alert strong" role="note">{html}</div>' if html else ""


def _depends(judgement: Judgement, each: Comparison) -> str:
    beside = next((b for b in judgement.beside if (b.arm, b.baseline) == (each.arm, each.baseline)), None)
    other = [f"{'greedy' if 'greedy' in beside.metric else 'sampled'} answers"] if beside and beside.disagree else []
    otherwise = [*departures(judgement, each), *other]
    return f'<p class="depends">Turns out otherwise: {escape("; ".join(otherwise))}.</p>' if otherwise else ""


def _missing(study: StoredStudy, judgement: Judgement | None) -> str:
    """Planned runs that are not finished, and runs in the folder that are not planned.

    Runs that a race or a look made unnecessary do not count as missing.
    """
    ended = judgement is not None and judgement.sequential is not None and judgement.sequential.stop is not None
    counts = study.counts().items()
    short = {arm: each for arm, each in counts if each.finished < each.planned - (each.missing if ended else 0)}
    notes = judgement.analysis.notes if judgement is not None else ()
    alerts = [f"<p>{escape(note)}</p>" for note in notes if note.startswith("Interim")]
    if short:
        states = ("failed", "broken", "interrupted", "running", "missing")
        words = {"missing": "not started"}
        counts_by_arm = (
            f"{escape(arm)} {each.finished} of {each.planned} ("
            + ", ".join(f"{getattr(each, s)} {words.get(s, s)}" for s in states if getattr(each, s))
            + ")"
            for arm, each in short.items()
        )
        alerts.append(f"<p><strong>Not every planned run finished:</strong> {'; '.join(counts_by_arm)}.</p>")
    if study.ignored:
        alerts.append(f"<p>Left out, because the study does not plan them: {escape(', '.join(study.ignored))}.</p>")
    return f'<div class="alert" role="note">{"".join(alerts)}</div>' if alerts else ""


def verdicts_section(context: Context) -> str:
    """Comparisons and arms as tables, and the comparisons as a matrix."""
    study, judgement = context.study, context.judgement
    about = (
        "Means are over seeds. Sampled tokens count all that training generates, discarded groups and extra greedy "
        "responses too; lengths are those of held-out responses."
    )
    arms = to_html(arm_grid(study, judgement), "The arms", "arms")
    if judgement is None or not judgement.analysis.comparisons:
        return section("Results", arms, about=about)
    return section(
        "Verdicts",
        *compared(context, judgement),
        f'<h3>The arms</h3><p class="about">{about}</p>',
        arms,
        about=differences_words(judgement),
    )


def differences_words(judgement: Judgement) -> str:
    """What the table of comparisons shows."""
    return (
        f"Differences are paired by seed. The interval is {_interval_words(judgement)}; the verdict follows the "
        "adjusted p. The win rate is the share of seeds on which the arm beats the other one, "
        "<i>g</i><sub>z</sub> the mean difference over the sd of the differences, corrected for few seeds."
    )


def compared(context: Judged, judgement: Judgement) -> tuple[str, str]:
    """The comparisons as a table and, if there are several, as a matrix."""
    matrix = ""
    if len(judgement.analysis.comparisons) > 1:
        matrix = figure(_matrix(judgement, context.measure), _matrix_title(judgement), "scroll matrix")
    table = comparison_grid(judgement, context.styles, context.measure)
    return to_html(table, "Verdicts", "comparisons"), matrix


def _interval_words(judgement: Judgement) -> str:
    level = level_text(judgement)
    if judgement.plan.race:
        return f"one at {level} that holds whenever one stops"
    of_looks = ", at the level of the look that the comparison rests on" if judgement.plan.looks else ""
    return f"the unadjusted {level} one{of_looks}"


def _matrix_title(judgement: Judgement) -> str:
    family = judgement.analysis.family
    rest = "" if family == "all" else "; no other pair was declared, so no other has a verdict"
    return f"Row against column: {FAMILY_WORDS[family]}{rest}"


def _matrix(judgement: Judgement, measure: Unit) -> str:
    """Each arm (row) against each other (column), sign, verdict and difference."""
    analysis = judgement.analysis
    cells: dict[tuple[str, str], tuple[str, float]] = {}
    for each in analysis.comparisons:
        cells[each.arm, each.baseline] = each.verdict, each.effect.mean_difference
        if analysis.family == "all":
            mirrored = _OPPOSITE.get(each.verdict, each.verdict)
            cells[each.baseline, each.arm] = mirrored, -each.effect.mean_difference
    rows = [each.arm for each in analysis.arms if any(row == each.arm for row, _ in cells)]
    heads = [each.arm for each in analysis.arms if any(head == each.arm for _, head in cells)]
    left = 14 + max(width_of(shortened(arm, 22)) for arm in rows)
    wide, high, top = 108.0, 46.0, 26.0
    parts, descriptions = [], []
    for place, head in enumerate(heads):
        parts.append(text(left + (place + 0.5) * wide, 17, shortened(head, 13), "name", "middle"))
    for row, arm in enumerate(rows):
        y = top + row * high
        parts.append(text(left - 10, y + high / 2 + 4, shortened(arm, 22), "name", "end"))
        for place, head in enumerate(heads):
            verdict, difference = cells.get((arm, head), ("", 0.0))
            x = left + place * wide
            parts.append(box(x + 1.5, y + 1.5, wide - 3, high - 3, f"cell {verdict or 'blank'}"))
            if verdict:
                shown = difference_text(difference, measure, analysis.margin)
                parts.append(text(x + wide / 2, y + 20, f"{MARKS[verdict]} {verdict}", f"on {verdict}", "middle"))
                parts.append(text(x + wide / 2, y + 36, shown, "label", "middle"))
                descriptions.append(f"{arm} against {head} {verdict} ({shown})")
    size = left + wide * len(heads), top + high * len(rows)
    drawing = svg(parts, *size, f"Verdict matrix: {'; '.join(descriptions)}.")
    return drawing.replace("<svg ", f'<svg style="max-width:{size[0]:.0f}px;min-width:{min(size[0], 620):.0f}px" ', 1)


def declared_section(context: Context) -> str:
    """The declaration before the first run, and notes."""
    study, judgement = context.study, context.judgement
    declaration, plan = study.declaration, study.plan
    margin = margin_text(plan.margin, unit(plan.metric))
    if not declaration.get("margin_declared", True):
        margin += " (the default; nobody chose it for this study)"
    pairs = {
        "Metric": f"{metric_name(plan.metric)} ({plan.metric})",
        "One number per run": scored_words(study)
        if plan.further
        else f"{SCALAR_WORDS.get(plan.scalar, plan.scalar)}; {scored_words(study)}",
        "Budget": f"{budget_text(study)} per run",
        "Baseline": plan.baseline,
        "Comparisons": FAMILY_WORDS[plan.family],
        "Error rate α": f"{plan.alpha:g}, two-sided, over all comparisons together",
        "Smallest effect of interest Δ": margin,
        "Seeds, in order": ", ".join(map(str, plan.seeds)),
        "Failed runs": f"{plan.failures}: {POLICY_WORDS[plan.failures]}",
    }
    if plan.failures == "worst":
        pairs["Score of a failed run"] = f"{plan.floor:g}, or its score before training if that is worse"
    if plan.threshold is not None:
        pairs["Score to be reached"] = f"{plan.threshold:g}; {axis_words(plan.axis)} until then are exploratory"
    pairs |= {
        key.replace("_", " ").capitalize(): plain_text(value)
        for key, value in declaration.items()
        if key not in _SHOWN and plain_text(value)
    }
    if plan.questions == "population":
        pairs["Questions"] = "a sample: the claim is about questions like these"
    if plan.race:
        pairs["Stopping"] = "a race: a look after every seed, until all is decided"
    if plan.looks:
        looks = ", ".join(f"after {n} seeds at {level:g}" for n, level in plan.looks)
        pairs["Stopping"] = f"looks {looks}"
    if study.record.get("hash"):
        pairs["Hash of the declaration"] = str(study.record["hash"])[:16]
    notes = [
        f"All seeds share one base model{_base(study.record, declaration)}. A seed changes the prompts and the "
        "sampling, not the model that training starts from: every verdict here is conditional on this base."
    ]
    notes += list(judgement.analysis.notes) if judgement is not None else []
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return section(
        "Declared before the first run",
        facts(pairs),
        f'<h3>Notes</h3><ul class="notes">{items}</ul>',
        about=f"{_fixed(study)} Everything beyond it is exploratory and has no verdict.",
    )


def _fixed(study: StoredStudy) -> str:
    if not study.record.get("history"):
        return "Fixed before any result was seen."
    return "Fixed before the runs or answers added last; what had been seen by then is stated below."


def _base(record: Mapping[str, Any], declaration: Mapping[str, Any]) -> str:
    """The base model: its description in the record, or its name in the declared configuration."""
    base = record.get("base")
    described = base.get("description") if isinstance(base, Mapping) else base
    if not described:
        bindings = (str(line) for line in declaration.get("config") or () if str(line).startswith("policy.model ="))
        described = next(bindings, "")
    return f" ({described})" if described else ""
