"""Sections of the report: what the arms are, and how to run the study again."""

import shlex
from html import escape

from experiments.report.context import Context
from experiments.report.formatting import listed, plain_text
from experiments.report.grid import scrolling
from experiments.report.markup import arm_name, section
from experiments.results.stored_run import StoredRun


def cards_section(context: Context) -> str:
    """The axis cards side by side, differences from the baseline marked."""
    study, styles = context.study, context.styles
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
            other = f' class="other t{styles[arm].tone}"' if card.get(axis) != base.get(axis) else ""
            cells.append(f"<td{other}>{escape(card.get(axis, '–'))}</td>")
        differs = any(card.get(axis) != base.get(axis) for card in cards.values())
        differing += [axis] if differs else []
        label = escape(axis.replace("_", " "))
        body.append(f'<tr{" class=differs" if differs else ""}><th scope="row">{label}</th>{"".join(cells)}</tr>')
    bindings = {arm: each.get("bindings") or [] for arm, each in study.arms.items()}
    if any(bindings.values()):
        binding_cells = (
            "<td>" + "<br>".join(f"<code>{escape(str(line))}</code>" for line in lines) + "</td>"
            for lines in bindings.values()
        )
        body.append(f'<tr><th scope="row">bindings</th>{"".join(binding_cells)}</tr>')
    head = "".join(f'<th scope="col">{arm_name(arm, styles)}</th>' for arm in cards)
    about = (
        f"Read from the arms themselves. They differ from {escape(study.baseline)} in "
        f"{escape(listed([axis.replace('_', ' ') for axis in differing]))} (marked); the rest is the same."
        if differing
        else "Read from the arms themselves."
        + (" Their maths is the same on every axis; what differs is in the bindings." if len(cards) > 1 else "")
    )
    table = f'<table class="cards"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return section("What the arms are", scrolling(table, "Axis cards"), about=about)


def reproduction_section(context: Context) -> str:
    """The command, versions and configurations that made the study."""
    study = context.study
    parts = []
    command = study.record.get("command")
    if command:
        command_text = command if isinstance(command, str) else shlex.join(map(str, command))
        parts.append(f'<pre class="command"><code>{escape(command_text)}</code></pre>')
    machines = [machine for machine in dict.fromkeys(_machine(run) for run in study.runs) if machine]
    if machines:
        runs = "The runs were made with" if len(machines) == 1 else "The runs were not all made alike:"
        parts.append(f'<p class="about">{runs} {escape("; or ".join(machines))}.</p>')
    for arm in study.arms:
        config = next((text for run in study.runs if run.arm == arm and (text := _config(run))), "")
        if config:
            parts.append(
                f"<details><summary>Configuration of {escape(arm)}</summary>"
                f"<pre>{escape(config.strip())}</pre></details>"
            )
    return section("How to run it again", *parts) if parts else ""


def _machine(run: StoredRun) -> str:
    """Libraries, revision and kind of machine from the manifest."""
    manifest = run.manifest
    versions = manifest.get("versions") or (manifest.get("identity") or {}).get("library versions") or {}
    parts = [f"{name} {version}" for name, version in versions.items()]
    parts += [f"Python {manifest['python']}"] if manifest.get("python") else []
    parts += [f"git {manifest['git']}"] if manifest.get("git") else []
    parts += [f"on {manifest['hardware']}"] if manifest.get("hardware") else []
    return ", ".join(parts)


def _config(run: StoredRun) -> str:
    """The operative gin text that the manifest keeps."""
    return str(run.manifest.get("gin") or (run.manifest.get("identity") or {}).get("config") or "")
