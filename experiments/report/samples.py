"""Section of the report: responses of every arm to the same questions, and groups of training with advantages."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from core.store.files import parse_json
from experiments.report.arm_style import Style
from experiments.report.context import Context
from experiments.report.formatting import counted, number_text
from experiments.report.grid import scrolling
from experiments.report.markup import arm_name, section
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import StoredStudy

MAX_LENGTH_OF_RESPONSE = 1200  # characters; a cut is marked
QUESTIONS = 4

Questions: TypeAlias = Mapping[int, Mapping[str, Any]]
"""Those of an evaluation, by index."""
Step: TypeAlias = tuple[int, Mapping[str, Mapping[str, Any]]]
"""A step, and the group that each arm stored there for one prompt."""


def samples_section(context: Context) -> str:
    """Responses of all arms to the same held-out questions, and in the same groups of training."""
    study, styles = context.study, context.styles
    parts = [part for part in (_held_out(study, styles), _trained_on(study, styles)) if part]
    return section("What the models wrote", *parts) if parts else ""


def _held_out(study: StoredStudy, styles: Mapping[str, Style]) -> str:
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
    about = f"The last evaluation of seed {seed}: the first sampled response of each arm"
    if len(arms) > 1:
        about += ", drawn with the same sampling noise. Arms that wrote the same share a row. "
        about += f"The arms disagree on {len(split)} of {counted(len(indices), 'question')}"
        about += (
            "; shown are the first on which they do and the first on which they do not, which is no fair sample."
            if split and alike
            else "; shown are the first."
        )
    else:
        about += "."
    blocks = "".join(_question(study, arms, index, styles) for index in sorted(shown))
    return f'<h3>On held-out questions</h3><p class="about">{about}</p>{blocks}'


def _sampled(study: StoredStudy, seed: int) -> dict[str, Questions]:
    """The last evaluation's questions that have a sample, by arm and index, of the finished runs at `seed`."""
    by_arm: dict[str, Questions] = {}
    suite = study.plan.metric.rpartition("/")[0]
    for arm in study.arms:
        run = study.run(arm, seed)
        questions = run.questions(suite) if run is not None and run.finished else []
        if sampled := {question["index"]: question for question in questions if question.get("samples")}:
            by_arm[arm] = sampled
    return by_arm


def _question(study: StoredStudy, arms: Mapping[str, Questions], index: int, styles: Mapping[str, Style]) -> str:
    same: dict[tuple[str, bool], list[str]] = {}
    for arm, questions in arms.items():
        sample = questions[index]["samples"][0]
        same.setdefault((_shown(sample), bool(sample["correct"])), []).append(arm)
    rows = []
    for (words, right), writers in same.items():  # words as they are shown
        names = "".join(arm_name(arm, styles) for arm in writers)
        if len(writers) == len(arms) > 1:
            names = "all arms" if len(arms) == len(study.arms) else "all arms with a finished run"
        length = arms[writers[0]][index]["samples"][0].get("length")
        tokens = f"<small>{counted(length, 'token')}</small>" if length is not None else ""
        rows.append(
            f'<tr><th scope="row">{names}</th><td class="mark"><span class="{"right" if right else "wrong"}">'
            f"{'✓ correct' if right else '✗ incorrect'}</span>{tokens}</td>"
            f'<td class="text">{words}</td></tr>'
        )
    question = next(iter(arms.values()))[index]
    return _prompted(question, f"<table><tbody>{''.join(rows)}</tbody></table>")


def _trained_on(study: StoredStudy, styles: Mapping[str, Style]) -> str:
    """One group of the first and one of the last step that were stored for the same prompt in most arms."""
    chosen = _first_and_last(study)
    if not chosen:
        return ""
    seed, steps = chosen
    about = (
        f"Groups of seed {seed} as each arm learned from them: every distinct response, how often it was sampled, and "
        "by arm its reward (after shaping) and the advantage of its first token. A dash: the arm did not sample it."
    )
    blocks = []
    for step, groups in steps:
        head = f"Step {step}" + (": before any update the arms write the same" if _alike(groups) and step == 1 else "")
        blocks.append(f"<h4>{head}</h4>{_group(groups, styles)}")
    return f'<h3>In training</h3><p class="about">{about}</p>{"".join(blocks)}'


def _first_and_last(study: StoredStudy) -> tuple[int, list[Step]] | None:
    """The first seed with stored groups of all arms (or of the most), with a shared prompt at two steps of it."""
    best: tuple[int, list[Step]] | None = None
    most = 0
    for seed in study.seeds:
        files = {
            arm: {file.name: file for file in (run.path / "rollouts").glob("step=*.json")}
            for arm in study.arms
            if (run := study.run(arm, seed)) is not None
        }
        files = {arm: arm_files for arm, arm_files in files.items() if arm_files}
        if len(files) <= most:
            continue
        common = sorted(set.intersection(*(set(arm_files) for arm_files in files.values())))
        first = next(filter(None, (_shared(files, name) for name in common)), None)
        last = next(filter(None, (_shared(files, name) for name in reversed(common))), None)
        if first is None or last is None:
            continue
        most, best = len(files), (seed, [first] if first[0] == last[0] else [first, last])
        if most == len(study.arms):
            break
    return best


def _shared(files: Mapping[str, Mapping[str, Path]], name: str) -> Step | None:
    """At a step: the prompt that all arms stored whose rewards differ most, with their groups."""
    by_arm = {arm: {json.dumps(g["prompt"]): g for g in _read(arm_files[name])} for arm, arm_files in files.items()}
    prompts = [p for p in next(iter(by_arm.values())) if all(p in groups for groups in by_arm.values())]
    if not prompts:
        return None
    spread = {p: sum(len({r["reward"] for r in groups[p]["responses"]}) for groups in by_arm.values()) for p in prompts}
    prompt = max(prompts, key=lambda p: spread[p])
    step = int(name.removeprefix("step=").removesuffix(".json"))
    return step, {arm: groups[prompt] for arm, groups in by_arm.items()}


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        groups = parse_json(file.read_bytes())
        complete = [
            g
            for g in groups
            if g["prompt"] and all({"text", "reward", "advantage"} <= r.keys() for r in g["responses"])
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StudyError(f"{file}: not a step's groups ({error}); remove the file, no verdict rests on it") from None
    return complete


def _alike(groups: Mapping[str, Mapping[str, Any]]) -> bool:
    written = [[_shown(response) for response in group["responses"]] for group in groups.values()]
    return all(texts == written[0] for texts in written)


def _group(groups: Mapping[str, Mapping[str, Any]], styles: Mapping[str, Style]) -> str:
    """A row a distinct response, a column an arm."""
    shown = {arm: [(_shown(r), r) for r in group["responses"]] for arm, group in groups.items()}
    rows = []
    for words in dict.fromkeys(words for pairs in shown.values() for words, _ in pairs):
        cells = []
        for pairs in shown.values():
            own = [r for its, r in pairs if its == words]
            cells.append(f'<td class="n">{_learned(own)}</td>' if own else '<td class="n none">–</td>')
        tokens = next(
            (r["length"] for pairs in shown.values() for its, r in pairs if its == words and "length" in r), None
        )
        count = f"<small>{counted(tokens, 'token')}</small>" if tokens is not None else ""
        rows.append(f'<tr><th scope="row" class="text">{words}{count}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col" class="n">{arm_name(arm, styles)}</th>' for arm in groups)
    first = next(iter(groups.values()))
    table = (
        f'<table class="group"><thead><tr><th scope="col">response</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return _prompted(first, table)


def _learned(responses: Sequence[Mapping[str, Any]]) -> str:
    """Advantage, reward and count of equal responses in one group; advantages differ where the method makes them."""
    lines = list(dict.fromkeys((r["advantage"], r["reward"]) for r in responses))
    blocks = []
    for advantage, reward in lines:
        times = sum((r["advantage"], r["reward"]) == (advantage, reward) for r in responses)
        blocks.append(
            f"<strong>{number_text(float(advantage), 2, signed=True)}</strong>"
            f"<small>reward {number_text(float(reward), 2)}, {times}×</small>"
        )
    return "".join(blocks)


def _prompted(question: Mapping[str, Any], table: str) -> str:
    prompt = question["prompt"]
    shown = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", prompt[-1]))
    return (
        f'<div class="question"><p class="prompt"><code>{escape(shown)}</code> expected answer '
        f"<code>{escape(str(question.get('answer')))}</code></p>{scrolling(table, 'Responses')}</div>"
    )


def _shown(response: Mapping[str, Any]) -> str:
    """A response, or an episode turn by turn with who said what; what an environment says last is read by nobody."""
    turns = response.get("turns")
    if not turns:
        return _response(str(response["text"]))
    return "".join(_turn(turn) for turn in turns)


def _turn(turn: Mapping[str, Any]) -> str:
    reward = f" <small>reward {number_text(float(turn['reward']), 2)}</small>" if turn.get("reward") else ""
    failed = ' <small class="wrong">failed call</small>' if turn.get("call") is False else ""
    said = f'<div class="turn"><span class="role">policy</span>{_response(str(turn["action"]))}{failed}{reward}</div>'
    read = str(turn.get("observation") or "")
    if not read:
        return said
    return f'{said}<div class="turn read"><span class="role">environment</span>{_response(read)}</div>'


def _response(words: str) -> str:
    if not words:
        return '<span class="cut">(empty)</span>'
    cut = len(words) - MAX_LENGTH_OF_RESPONSE
    if cut <= 0:
        return escape(words)
    return f'{escape(words[:MAX_LENGTH_OF_RESPONSE])}<span class="cut"> … {cut} more characters</span>'
