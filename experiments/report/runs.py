"""Sections of the report: what the arms are, what they write, the runs, and how to do it again."""

import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.report.figures import Style
from experiments.report.markup import arm_name, breakable, cell, counted, header_cell, listed, plain_text
from experiments.report.tables import (
    thousands,
    unit,
    value_text,
)
from experiments.results import PAIRED_BY, Run, Study

LONGEST_RESPONSE = 1200  # characters; what is cut is said
QUESTIONS = 4


def cards_section(study: Study, styles: Mapping[str, Style]) -> str:
    """The axis cards side by side, differences from the baseline marked."""
    cards = {
        arm: {key: plain_text(value) for key, value in (each.get("card") or {}).items()}
        for arm, each in study.arms.items()
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
    head = "".join(f'<th scope="col">{arm_name(arm, styles)}</th>' for arm in cards)
    about = (
        f"Read from the arms themselves. They differ from {escape(study.baseline)} in "
        f"{escape(listed([axis.replace('_', ' ') for axis in differing]))} (marked); the rest is the same."
        if differing
        else "Read from the arms themselves."
        + (" Their maths is the same on every axis; what differs is in the bindings." if len(cards) > 1 else "")
    )
    return (
        f'<section><h2>What the arms are</h2><p class="about">{about}</p><div class="scroll"><table class="cards">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def responses_section(study: Study, styles: Mapping[str, Style]) -> str:
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
        about += f"The arms disagree on {len(split)} of {counted(len(indices), 'question')}"
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
            names = "".join(arm_name(arm, styles) for arm in writers)
            if len(writers) == len(arms) > 1:
                names = "all arms" if len(arms) == len(study.arms) else "all arms with a finished run"
            length = arms[writers[0]][index]["samples"][0].get("length")
            rows.append(
                f'<tr><th scope="row">{names}</th><td class="mark"><span class="{"right" if right else "wrong"}">'
                f"{'✓ correct' if right else '✗ incorrect'}</span>"
                + (f"<small>{counted(length, 'token')}</small>" if length is not None else "")
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


def runs_section(study: Study, styles: Mapping[str, Style]) -> str:
    """Every run with its status, score and hashes."""
    scores = study.scores()
    measure = unit(str(study.declaration["metric"]))
    body = []
    for arm in study.arms:
        for place, seed in enumerate(study.seeds):
            run = study.run(arm, seed)
            first = " class=first" if place == 0 else ""
            cells = [
                f'<th scope="row">{arm_name(arm, styles)}</th>' if place == 0 else "<td></td>",
                cell(str(seed)),
            ]
            if run is None:
                body.append(f'<tr{first}>{"".join(cells)}<td class="open">not started</td>{"<td></td>" * 7}</tr>')
                continue
            state = {"finished": "", "failed": "failed"}.get(run.status, "open")
            seconds = run.manifest.get("seconds")
            cells += [
                f'<td class="{state}">{run.status}</td>' if state else f"<td>{run.status}</td>",
                cell(str(run.steps)),
                cell(value_text(scores[arm].get(seed), measure)),
                cell(thousands(run.sampled_tokens)),
                cell(f"{seconds:.0f} s" if isinstance(seconds, (int, float)) else "–"),
            ]
            cells += [f'<td class="mono">{escape(run.hash(key)[:8] or "–")}</td>' for key in PAIRED_BY]
            body.append(f"<tr{first}>{''.join(cells)}</tr>")
            if run.manifest.get("error"):
                error = escape(str(run.manifest["error"]).strip()[-LONGEST_RESPONSE:])
                body.append(f'<tr class="error"><td></td><td></td><td colspan="8">{error}</td></tr>')
    head = header_cell("arm") + header_cell("seed", "n") + header_cell("status")
    head += "".join(
        header_cell(title, "n") for title in ("steps", str(study.declaration["scalar"]), "sampled tokens", "time")
    )
    head += "".join(header_cell(title) for title in PAIRED_BY.values())
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
            arm: "every seed" if len(seeds) == len(study.seeds) else f"seed {listed(list(map(str, seeds)))}"
            for arm, seeds in unlike.items()
        }
        if unlike:
            differing = listed([f"{breakable(arm)} ({seeds})" for arm, seeds in which.items()])
            told.append(f"The {words} differ from the baseline’s in {differing}.")
        elif len(study.arms) > 1 and any(run.hash(key) for run in study.runs if run.arm != study.baseline):
            told.append(f"The {words} are the same in all arms, seed by seed.")
    return " ".join(told)


def reproduction_section(study: Study) -> str:
    """The command, versions and configurations that made the study."""
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
