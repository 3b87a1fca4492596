"""One HTML file that says what a study asked, what it found, and what the finding rests on.

The page is self-contained (figures are inline SVG, no script, nothing loaded from elsewhere) and depends on
the study's files alone: the same files give the same bytes.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.figures import Curve, Style, arm_styles, curves_figure, differences_figure, marker_svg
from experiments.report_style import CSS
from experiments.results import PAIRED_BY, Run, Study, StudyError
from experiments.statistics import Analysis, Comparison
from experiments.tables import (
    MARKS,
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
    verdict_text,
)

LONGEST_RESPONSE = 1200  # characters; what is cut is said
QUESTIONS = 4

_BUDGETS = {"steps": "rollout steps", "sampled_tokens": "sampled tokens"}
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


def write_report(study: Study, analysis: Analysis | None, path: Path) -> Path:
    """Write the study's report to `path` and return it; the file appears whole or not at all.

    Without an analysis (one arm, or nothing to compare yet) the page describes the runs and gives no verdict.
    """
    path = Path(path)
    if path.is_dir():
        raise StudyError(f"{path}: a folder, but the report is one file; give a name such as {path / 'report.html'}")
    # responses may hold lone surrogates, which UTF-8 cannot write
    page = _page(study, analysis).encode("utf-8", errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(page)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _page(study: Study, analysis: Analysis | None) -> str:
    styles = arm_styles(list(study.arms), study.baseline)
    question = _question(study)
    sections = (
        _headline(study, analysis, question),
        _verdicts(study, analysis, styles),
        _declared(study, analysis),
        _curves(study, styles),
        _differences(study, analysis, styles),
        _cards(study, styles),
        _responses(study, styles),
        _runs(study, styles),
        _reproduction(study),
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
    return f"{'Does' if len(others) == 1 else 'Do'} {_and(others)} change {metric} compared with {study.baseline}?"


def _headline(study: Study, analysis: Analysis | None, question: str) -> str:
    counts = study.counts()
    finished, planned = (sum(getattr(each, what) for each in counts.values()) for what in ("finished", "planned"))
    lede = (
        f"{_count(len(study.arms), 'arm')} × {_count(len(study.seeds), 'seed')}, "
        f"{_budget(study)} per run; {finished} of {planned} runs finished."
    )
    parts = [
        f'<p class="eyebrow">Study {escape(study.name)}</p>',
        f"<h1>{_breakable(question)}</h1>",
        f'<p class="lede">{lede}</p>',
    ]
    if analysis is not None and analysis.comparisons:
        measure = unit(str(study.declaration["metric"]))
        items = (
            f"<li><div>{_badge(each)}</div><div><p>{_in_short(each, measure, _level(analysis))}</p>"
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
        interval = f", {level} interval {_signed(low, measure)} to {_signed(high, measure)}"
    points = f" {measure.difference}" if measure.difference else ""
    return (
        f"<strong>{_breakable(each.arm)}</strong> against {_breakable(each.baseline)}: "
        f"<strong>{difference_text(each.mean_difference, measure)}{points}</strong>{interval}"
    )


def _no_verdict(study: Study) -> str:
    if len(study.arms) == 1:
        return "The study has one arm, so nothing is compared."
    return "No arm could be compared with the baseline yet: finished runs at common seeds are missing."


def _verdicts(study: Study, analysis: Analysis | None, styles: Mapping[str, Style]) -> str:
    metric = str(study.declaration["metric"])
    measure = unit(metric)
    rows = verdict_rows(study, analysis)
    compared = analysis is not None and bool(analysis.comparisons)
    points = f", {measure.difference}" if measure.difference else ""
    level = _level(analysis)
    head = [_th("arm"), _th(f"mean {metric_name(metric)}", "n")]
    if compared:
        head += [
            _th(f"difference to baseline{points}<small>{level} interval</small>", "n"),
            f"<th>{_interval_head()}</th>",
            _th("adjusted p", "n"),
            _th("effect size <i>g</i><sub>z</sub>", "n"),
            _th("win rate", "n"),
        ]
    head += [
        _th("sampled tokens<small>per run</small>", "n"),
        _th("mean length<small>tokens</small>", "n"),
    ]
    head += [_th("verdict")] if compared else []
    extent = _extent(rows, analysis)
    body = []
    for row in rows:
        seeds = _count(len(row.seeds), "seed")
        cells = [
            f'<th scope="row">{_name(row.arm, styles)}<small>{seeds}</small></th>',
            _td(value_text(row.mean, measure)),
        ]
        each = row.comparison
        if compared and each is not None and analysis is not None:
            low, high = interval_of(each)
            interval = ""
            if low is not None and high is not None:
                interval = f"<small>{_signed(low, measure)} to {_signed(high, measure)}</small>"
            cells += [
                _td(f"<strong>{difference_text(each.mean_difference, measure)}</strong>{interval}"),
                f"<td>{_interval_svg(each, extent, analysis.margin, styles[each.arm], measure)}</td>",
                _td(_p_cell(each)),
                _td(number_text(each.g_z, 2, signed=True)),
                _td(number_text(each.win_rate, 2)),
            ]
        elif compared:
            cells += ["<td></td>"] * 5
        cells += [_td(thousands(row.sampled_tokens)), _td(number_text(row.length, 1))]
        if compared:
            if each is not None:
                badge = _badge(each, with_label=True)
            elif row.arm == study.baseline:
                badge = '<span class="badge base">baseline</span>'
            else:
                badge = '<span class="badge none">no finished run</span>'
            cells.append(f"<td>{badge}</td>")
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
            interval = f"<small>{_signed(low, measure)} to {_signed(high, measure)}</small>"
        body.append(
            f'<tr><th scope="row">{escape(each.arm)} − {escape(each.baseline)}</th>'
            + _td(f"{difference_text(each.mean_difference, measure)}{interval}")
            + _td(_p_cell(each))
            + _td(number_text(each.g_z, 2, signed=True))
            + _td(number_text(each.win_rate, 2))
            + f"<td>{_badge(each, with_label=True)}</td></tr>"
        )
    head = (
        _th("pair") + _th(f"difference{points}<small>{_level(analysis)} interval</small>", "n") + _th("adjusted p", "n")
        + _th("effect size <i>g</i><sub>z</sub>", "n") + _th("win rate", "n") + _th("verdict")
    )  # fmt: skip
    return (
        '<h3>The other pairs</h3><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _declared(study: Study, analysis: Analysis | None) -> str:
    declaration = study.declaration
    measure = unit(str(declaration["metric"]))
    margin = difference_text(float(declaration["margin"]), measure).lstrip("+")
    margin += f" {measure.difference}" if measure.difference else ""
    margin += "" if declaration["margin_declared"] else " (the default; nobody chose it for this study)"
    facts = {
        "Metric": f"{metric_name(str(declaration['metric']))} ({declaration['metric']})",
        "One number per run": _SCALARS[str(declaration["scalar"])],
        "Budget": f"{_budget(study)} per run",
        "Baseline": study.baseline,
        "Comparisons": _FAMILIES.get(str(declaration["family"]), str(declaration["family"])),
        "Error rate α": f"{declaration['alpha']:g}, two-sided, over all comparisons together",
        "Smallest effect of interest Δ": margin,
        "Seeds, in order": ", ".join(map(str, study.seeds)),
        "Failed runs": _FAILURES.get(str(declaration["failures"]), str(declaration["failures"])),
    }
    facts |= {
        key.replace("_", " ").capitalize(): _plain(value) for key, value in declaration.items() if key not in _SHOWN
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


def _curves(study: Study, styles: Mapping[str, Style]) -> str:
    split = str(study.declaration["metric"]).rpartition("/")[0]
    metric = str(study.declaration["metric"])
    measure, plain, name = unit(metric), Unit(1.0, 2, "", ""), metric_name(metric)
    share = unit("accuracy")
    wide, narrow = (5.2, 3.1), (3.42, 2.75)
    others = [key for key in study.keys if key.endswith("/accuracy") and key not in (metric, f"{split}/accuracy")]
    last = [
        ("entropy", "Entropy of the policy in training", plain),
        ("no_spread", "Groups whose rewards are all equal", share),
        *((key, f"{metric_name(key).capitalize()}, not judged", share) for key in others),
    ]
    last = [panel for panel in last if panel[0] in study.keys]
    panels: list[tuple[str, str, str, Unit, tuple[float, float]]] = [
        (metric, "steps", name.capitalize(), measure, wide),
        (metric, "sampled_tokens", f"{name.capitalize()} by sampled tokens", measure, wide),
        (f"{split}/length", "steps", "Response length, all", plain, narrow),
        (f"{split}/length_correct", "steps", "Response length, correct", plain, narrow),
        (f"{split}/length_incorrect", "steps", "Response length, incorrect", plain, narrow),
        *((key, "steps", title, scale, narrow if len(last) == 3 else wide) for key, title, scale in last),
    ]
    figures = []
    for index, (key, axis, title, scale, size) in enumerate(panels):
        if key not in study.keys:
            continue
        drawing = curves_figure(
            _runs_curves(study, key, axis, finished=True),
            styles,
            unfinished=_runs_curves(study, key, axis, finished=False),
            name=f"curve{index}",
            title=title,
            x_label={"steps": "rollout steps", "sampled_tokens": "tokens sampled in training"}[axis],
            measure=scale,
            size=size,
        )
        figures.append(f'<figure class="{"third" if size is narrow else "half"}">{drawing}</figure>')
    if not figures:
        return ""
    fewest = min((each.finished for each in study.counts().values() if each.finished), default=0)
    most = max(each.finished for each in study.counts().values())
    seeds = _count(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
    about = f"Thin lines are runs, one per seed; the bold line is their mean ({seeds}). "
    if most >= 3:
        about += (
            "The band is the pointwise 95\u00a0% t interval of that mean over seeds. It is not the interval of a "
            "paired difference: seeds shift all arms together, so arms may differ clearly although their bands "
            "overlap. "
        )
    else:
        about += "There is no band: an interval over seeds needs at least three. "
    if any(not run.finished for run in study.runs):
        about += "Dotted lines that end in a cross are runs that have not finished; they enter no mean. "
    about += "Accuracy and lengths are measured on held-out questions with sampled responses, lengths in tokens."
    return (
        f'<section><h2>Learning curves</h2><p class="about">{about}</p>{_legend(study, styles)}'
        f'<div class="panels">{"".join(figures)}</div></section>'
    )


def _runs_curves(study: Study, key: str, axis: str, *, finished: bool) -> dict[str, list[Curve]]:
    curves = {
        arm: [study.curve(arm, run.seed, key, axis) for run in study.runs if (run.arm, run.finished) == (arm, finished)]
        for arm in study.arms
    }
    return {arm: runs for arm, runs in curves.items() if runs}


def _differences(study: Study, analysis: Analysis | None, styles: Mapping[str, Style]) -> str:
    if analysis is None or not any(each.baseline == analysis.baseline and each.n for each in analysis.comparisons):
        return ""
    measure = unit(str(study.declaration["metric"]))
    drawing = differences_figure(analysis, styles, name="differences", measure=measure)
    margin = difference_text(analysis.margin, measure).lstrip("+")
    margin += f" {measure.difference}" if measure.difference else ""
    tested = any(each.interval for each in analysis.comparisons)
    interval = f", drawn with its {_level(analysis)} interval" if tested else ""
    return (
        "<section><h2>Paired differences, seed by seed</h2>"
        f'<p class="about">Each circle is one seed: the arm’s score minus {escape(analysis.baseline)}’s at the same '
        "seed, with the same prompts and the same sampling noise. The circles are joined to their mean"
        f"{interval}. The shaded strip is ±Δ = ±{margin}: an arm counts as equivalent when its mean is shown "
        f'to lie inside.</p><figure class="wide scroll">{drawing}</figure></section>'
    )


def _cards(study: Study, styles: Mapping[str, Style]) -> str:
    cards = {
        arm: {key: _plain(value) for key, value in (each.get("card") or {}).items()} for arm, each in study.arms.items()
    }
    axes = list(dict.fromkeys(axis for card in cards.values() for axis in card))
    if not axes:
        return ""
    base = cards[study.baseline]
    body, differing = [], []
    for axis in axes:
        cells = []
        for arm, card in cards.items():
            other = card.get(axis) != base.get(axis)
            style = f' class="other" style="--arm:{styles[arm].colour}"' if other else ""
            cells.append(f"<td{style}>{escape(card.get(axis, '–'))}</td>")
        differs = any(card.get(axis) != base.get(axis) for card in cards.values())
        differing += [axis] if differs else []
        label = escape(axis.replace("_", " "))
        body.append(f'<tr{" class=differs" if differs else ""}><th scope="row">{label}</th>{"".join(cells)}</tr>')
    bindings = {arm: each.get("bindings") or [] for arm, each in study.arms.items()}
    if any(bindings.values()):
        told = (
            "<td>" + "<br>".join(f"<code>{escape(str(line))}</code>" for line in lines) + "</td>"
            for lines in bindings.values()
        )
        body.append(f'<tr><th scope="row">bindings</th>{"".join(told)}</tr>')
    head = "".join(f'<th scope="col">{_name(arm, styles)}</th>' for arm in cards)
    about = (
        f"Read from the arms themselves. They differ from {escape(study.baseline)} in "
        f"{escape(_and([axis.replace('_', ' ') for axis in differing]))} (marked); the rest is the same."
        if differing
        else "Read from the arms themselves."
        + (" Their maths is the same on every axis; what differs is in the bindings." if len(cards) > 1 else "")
    )
    return (
        f'<section><h2>What the arms are</h2><p class="about">{about}</p><div class="scroll"><table class="cards">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _responses(study: Study, styles: Mapping[str, Style]) -> str:
    """A few questions with the first sampled response of each arm, all of one seed."""
    by_seed = {seed: _sampled(study, seed) for seed in study.seeds}
    seed = max(study.seeds, key=lambda each: len(by_seed[each]), default=None)  # the first seed on a tie
    if seed is None or not by_seed[seed]:
        return ""
    arms = by_seed[seed]
    indices = [index for index in next(iter(arms.values())) if all(index in questions for questions in arms.values())]
    if not indices:
        return ""
    verdicts = {i: {questions[i]["samples"][0]["correct"] for questions in arms.values()} for i in indices}
    split = [index for index in indices if len(verdicts[index]) > 1]
    alike = [index for index in indices if len(verdicts[index]) == 1]
    shown = split[: QUESTIONS - 1]
    shown += alike[: QUESTIONS - len(shown)]
    shown += split[QUESTIONS - 1 : QUESTIONS - 1 + QUESTIONS - len(shown)]
    about = f"From the last evaluation of seed {seed}: the first sampled response of each arm"
    if len(arms) > 1:
        about += ", drawn with the same sampling noise. Arms that wrote the same share a row. "
        about += f"The arms disagree on {len(split)} of {_count(len(indices), 'question')}"
        about += (
            "; shown are the first on which they do and the first on which they do not, so no fair sample."
            if split and alike
            else "; shown are the first."
        )
    else:
        about += "."
    blocks = []
    for index in sorted(shown):
        same: dict[tuple[str, bool], list[str]] = {}
        for arm, questions in arms.items():
            sample = questions[index]["samples"][0]
            same.setdefault((str(sample["text"]), bool(sample["correct"])), []).append(arm)
        rows = []
        for (text, right), writers in same.items():
            names = "".join(_name(arm, styles) for arm in writers)
            if len(writers) == len(arms) > 1:
                names = "all arms" if len(arms) == len(study.arms) else "all arms with a finished run"
            length = arms[writers[0]][index]["samples"][0].get("length")
            rows.append(
                f'<tr><th scope="row">{names}</th><td class="mark"><span class="{"right" if right else "wrong"}">'
                f"{'✓ correct' if right else '✗ incorrect'}</span>"
                + (f"<small>{_count(length, 'token')}</small>" if length is not None else "")
                + f'</td><td class="text">{_response(text)}</td></tr>'
            )
        question = next(iter(arms.values()))[index]
        blocks.append(
            f'<div class="question"><h3><code>{escape(str(question["prompt"]))}</code> expected answer '
            f"<code>{escape(str(question['answer']))}</code></h3>"
            f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div></div>'
        )
    return f'<section><h2>What they write</h2><p class="about">{about}</p>{"".join(blocks)}</section>'


def _sampled(study: Study, seed: int) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The last evaluation's questions that have a sample, by arm and index, of the finished runs at `seed`."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for arm in study.arms:
        run = study.run(arm, seed)
        split = str(study.declaration["metric"]).rpartition("/")[0]
        questions = run.questions(split) if run is not None and run.finished else []
        if sampled := {question["index"]: question for question in questions if question.get("samples")}:
            found[arm] = dict(sampled)
    return found


def _response(text: str) -> str:
    if not text:
        return '<span class="cut">(empty)</span>'
    cut = len(text) - LONGEST_RESPONSE
    if cut <= 0:
        return escape(text)
    return f'{escape(text[:LONGEST_RESPONSE])}<span class="cut"> … {cut} more characters</span>'


def _runs(study: Study, styles: Mapping[str, Style]) -> str:
    scores = study.scores()
    measure = unit(str(study.declaration["metric"]))
    body = []
    for arm in study.arms:
        for place, seed in enumerate(study.seeds):
            run = study.run(arm, seed)
            first = " class=first" if place == 0 else ""
            cells = [
                f'<th scope="row">{_name(arm, styles)}</th>' if place == 0 else "<td></td>",
                _td(str(seed)),
            ]
            if run is None:
                body.append(f'<tr{first}>{"".join(cells)}<td class="open">not started</td>{"<td></td>" * 7}</tr>')
                continue
            state = {"finished": "", "failed": "failed"}.get(run.status, "open")
            seconds = run.manifest.get("seconds")
            cells += [
                f'<td class="{state}">{run.status}</td>' if state else f"<td>{run.status}</td>",
                _td(str(run.steps)),
                _td(value_text(scores[arm].get(seed), measure)),
                _td(thousands(run.sampled_tokens)),
                _td(f"{seconds:.0f} s" if isinstance(seconds, (int, float)) else "–"),
            ]
            cells += [f'<td class="mono">{escape(run.hash(key)[:8] or "–")}</td>' for key in PAIRED_BY]
            body.append(f"<tr{first}>{''.join(cells)}</tr>")
            if run.manifest.get("error"):
                error = escape(str(run.manifest["error"]).strip()[-LONGEST_RESPONSE:])
                body.append(f'<tr class="error"><td></td><td></td><td colspan="8">{error}</td></tr>')
    head = _th("arm") + _th("seed", "n") + _th("status")
    head += "".join(_th(title, "n") for title in ("steps", str(study.declaration["scalar"]), "sampled tokens", "time"))
    head += "".join(_th(title) for title in PAIRED_BY.values())
    return (
        f'<section><h2>Runs</h2><p class="about">{_identity(study)}</p><div class="scroll"><table class="runs">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _identity(study: Study) -> str:
    """What the manifests' hashes say about the pairing with the baseline, in words."""
    told = []
    for key, words in PAIRED_BY.items():
        unlike = study.unlike(key)
        which = {
            arm: "every seed" if len(seeds) == len(study.seeds) else f"seed {_and(list(map(str, seeds)))}"
            for arm, seeds in unlike.items()
        }
        if unlike:
            differing = _and([f"{_breakable(arm)} ({seeds})" for arm, seeds in which.items()])
            told.append(f"The {words} differ from the baseline’s in {differing}.")
        elif len(study.arms) > 1 and any(run.hash(key) for run in study.runs if run.arm != study.baseline):
            told.append(f"The {words} are the same in all arms, seed by seed.")
    return " ".join(told)


def _reproduction(study: Study) -> str:
    parts = []
    command = study.record.get("command")
    if command:
        line = command if isinstance(command, str) else shlex.join(map(str, command))
        parts.append(f'<pre class="command"><code>{escape(line)}</code></pre>')
    made = [machine for machine in dict.fromkeys(_machine(run) for run in study.runs) if machine]
    if made:
        runs = "The runs were made with" if len(made) == 1 else "The runs were not all made alike:"
        parts.append(f'<p class="about">{runs} {escape("; or ".join(made))}.</p>')
    for arm in study.arms:
        config = next((text for run in study.runs if run.arm == arm and (text := _config(run))), "")
        if config:
            parts.append(
                f"<details><summary>Configuration of {escape(arm)}</summary>"
                f"<pre>{escape(config.strip())}</pre></details>"
            )
    if not parts:
        return ""
    return f"<section><h2>To do it again</h2>{''.join(parts)}</section>"


def _machine(run: Run) -> str:
    """Libraries, revision and kind of machine, as the manifest has them."""
    manifest = run.manifest
    versions = manifest.get("versions") or (manifest.get("identity") or {}).get("library versions") or {}
    parts = [f"{name} {version}" for name, version in versions.items()]
    parts += [f"Python {manifest['python']}"] if manifest.get("python") else []
    parts += [f"git {manifest['git']}"] if manifest.get("git") else []
    parts += [f"on {manifest['hardware']}"] if manifest.get("hardware") else []
    return ", ".join(parts)


def _config(run: Run) -> str:
    """The operative gin text that the manifest keeps."""
    return str(run.manifest.get("gin") or (run.manifest.get("identity") or {}).get("config") or "")


def _legend(study: Study, styles: Mapping[str, Style]) -> str:
    tags = {study.baseline: ' <span class="tag">baseline</span>'} if len(study.arms) > 1 else {}
    items = (f"<li>{_name(arm, styles)}{tags.get(arm, '')}</li>" for arm in study.arms)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _badge(each: Comparison, *, with_label: bool = False) -> str:
    text = verdict_text(each)
    long = " long" if len(text) > 22 else ""
    label = f'<span class="basis">{each.label}</span>' if with_label and test_name(each) else ""
    return f'<span class="badge {each.verdict}{long}">{MARKS[each.verdict]} {escape(text)}</span>{label}'


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


def _name(arm: str, styles: Mapping[str, Style]) -> str:
    return f'<span class="arm">{marker_svg(styles[arm])}<span>{_breakable(arm)}</span></span>'


def _breakable(text: str) -> str:
    """Escaped text that may break after the marks inside a long name, but not in the middle of its words."""
    return re.sub(r"([_=./])(?=\w)", r"\1<wbr>", escape(text))


def _th(text: str, kind: str = "") -> str:
    return f'<th scope="col" class="{kind}">{text}</th>' if kind else f'<th scope="col">{text}</th>'


def _td(text: str) -> str:
    return f'<td class="n">{text}</td>'


def _level(analysis: Analysis | None) -> str:
    return f"{100 * (1 - analysis.alpha):g}\u00a0%" if analysis is not None else ""


def _signed(value: float, measure: Unit) -> str:
    return number_text(value * measure.scale, measure.digits, signed=True)


def _budget(study: Study) -> str:
    budget = float(study.declaration["budget"])
    return f"{budget:,.0f} {_BUDGETS[str(study.declaration['axis'])]}".replace(",", "\u202f")


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _and(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
