"""Questions from files: GSM8K, MATH, Countdown, MBPP, conversations and plain tables; JSONL, Parquet or `datasets`.

    layout      columns                    answer                                           judged by
    gsm8k       question, answer           what follows ####                                math_answer
    math        problem, solution          the column answer, else the last \\boxed{...}     math_answer
    countdown   nums, target               none                                             countdown
    mbpp        text or prompt, test_list  code, if there is any                            code_tests
    plain       question, answer           the answer as it stands                          math_answer
    messages    messages                   the column answer, else the last \\boxed{...}     math_answer

A layout is recognised by its columns; `columns` maps parts to columns where the names differ. A question
may be text or, as in TRL's conversational format, a list of messages with `role` and `content`; in the layout
`messages` the assistant's last message is the worked solution. `template` is `chat`, `plain`, `r1_zero` or one's own
with {question} in it: a text, or messages as pairs of role and content. Splits are by hash of the question, so
that no question is in two; split files that are given are checked for that.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from core.environments.tasks.layouts import Question, digest, read, recognise
from core.environments.tasks.patterns import IN_WORDS
from core.environments.tasks.rows import from_jsonl, is_number, read_rows
from core.environments.tasks.splits import SPLITS, tenth
from core.errors import GrpoLabError, near
from core.parts.contracts import task
from core.parts.problems import Problem
from core.parts.registry import REQUIRED, Part

Turns: TypeAlias = Sequence[tuple[str, str]]
"""Roles and their messages."""

R1_ZERO: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>. User: {question}. Assistant:"
)
"""The template of DeepSeek-R1-Zero, word for word (arXiv:2501.12948, table 1)."""
PLACE: Final = "{question}"
"""Where the question goes in a template."""
TEXTS: Final = {"plain": PLACE, "r1_zero": R1_ZERO}
"""Templates that have a name and make a text; `chat` makes messages."""


@dataclass(frozen=True, eq=False)
class Files:
    """Questions by split, and how they are put to the model."""

    questions: Mapping[str, Sequence[Question]]
    rewards: tuple[Part, ...]
    suites: tuple[str, ...]
    template: str | tuple[tuple[str, str], ...]
    """A text, or messages as (role, content), with {question} in it."""
    easy_first: bool = False
    """Whether the first pass over the training questions goes from easy to hard, as they are listed."""
    patterns: Mapping[str, str] = field(default_factory=lambda: IN_WORDS)

    @cached_property
    def digest(self) -> str:
        """Of all questions and answers in their order, by split: a file may change behind a path that stays."""
        content = {
            split: [(q.text, q.answer, q.data, q.solution, q.messages) for q in questions]
            for split, questions in self.questions.items()
        }
        return hashlib.blake2b(json.dumps(content, sort_keys=True, default=repr).encode(), digest_size=8).hexdigest()

    def size(self, split: str) -> int:
        """How many questions a split has."""
        return len(self.questions[split])

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks: all questions in random order, then all in another."""
        if split not in self.questions:
            raise GrpoLabError(f"files has no split '{split}'; it has: {', '.join(self.questions)}")
        questions = self.questions[split]
        epoch, place = divmod(index, len(questions))
        in_order = self.easy_first and split == "train" and epoch == 0
        question = questions[place if in_order else _order(split, seed, epoch, len(questions))[place]]
        data = {**question.data, "question": question.text}
        if question.solution:
            data["solution"] = self._solution(question)
        return Problem(self._prompt(question), question.answer, index, data, place=question.place)

    def _solution(self, question: Question) -> str:
        """The worked solution in the form that the template asks for."""
        if self.template != R1_ZERO:
            return question.solution
        return f" <think> {question.solution} </think> <answer> {question.answer} </answer>"

    def _prompt(self, question: Question) -> str | list[dict[str, Any]]:
        if isinstance(self.template, str):
            return self.template.replace(PLACE, question.text)
        messages = [{"role": role, "content": content.replace(PLACE, question.text)} for role, content in self.template]
        # a conversation takes the place of the message that would have asked
        return [*messages[:-1], *map(dict, question.messages)] if len(question.messages) > 1 else messages


@lru_cache(maxsize=16)
def _order(split: str, seed: int, epoch: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(f"files/{split}/{seed}/{epoch}").sample(range(length), length))


def _by_hash(questions: Sequence[Question]) -> dict[str, list[Question]]:
    return {split: [q for q in questions if tenth(digest(q.text)) in tenths] for split, tenths in SPLITS.items()}


def _by_file(sources: Mapping[str, str], layout: str | None, columns: Mapping[str, str]) -> dict[str, list[Question]]:
    """Split files as they are given, a tenth of `train` set aside for tuning unless there is a file for that."""
    if "train" not in sources or len(sources.keys() - {"train", "tune"}) == 0:
        raise GrpoLabError(
            f"files.path gives the splits {', '.join(sources)}: give 'train' and at least one test split"
        )
    splits = {split: read(source, layout, columns) for split, source in sources.items()}
    seen: dict[str, tuple[str, Question]] = {}
    for split, questions in splits.items():
        for question in questions:
            other, first = seen.setdefault(digest(question.text), (split, question))
            if other != split:
                raise GrpoLabError(
                    f"files: the splits '{other}' and '{split}' overlap: {first.place} and {question.place} ask the "
                    f"same, {question.text!r:.80}. Remove it from one, or give a single file to be split by hash"
                )
    if "tune" not in splits:
        tune = [q for q in splits["train"] if tenth(digest(q.text)) in SPLITS["tune"]]
        splits["train"] = [q for q in splits["train"] if tenth(digest(q.text)) not in SPLITS["tune"]]
        splits["tune"] = tune
    return splits


def _in_range(
    questions: Sequence[Question], file: str, between: Sequence[float], *, easy_first: bool
) -> list[Question]:
    """The questions whose measured pass rate lies within `between`, ends included."""
    low, high = between
    if not 0 <= low <= high <= 1:
        raise GrpoLabError(f"files.between = {tuple(between)}: must be two shares with 0 <= low <= high <= 1")
    rates: dict[str, float] = {}
    for place, row in from_jsonl(_existing(file)):
        question, rate = row.get("question"), row.get("pass_rate")
        if not isinstance(question, str) or not is_number(rate) or not 0 <= rate <= 1:
            raise GrpoLabError(f"{place}: a question and its pass_rate between 0 and 1 were expected")
        rates[digest(question)] = float(rate)
    for question in questions:
        if digest(question.text) not in rates:
            raise GrpoLabError(
                f"{file} has no pass rate for the training question of {question.place}, {question.text!r:.60}: "
                "measure again, on the same files"
            )
    kept = [q for q in questions if low <= rates[digest(q.text)] <= high]
    if not kept:
        raise GrpoLabError(
            f"files.between = {tuple(between)} keeps none of {len(questions)} training questions: widen it"
        )
    return sorted(kept, key=lambda q: -rates[digest(q.text)]) if easy_first else kept


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise GrpoLabError(f"files.pass_rates: there is no file {file}")
    return path


@task(limits={"between": (0, 1)})
def files(
    *,
    path: str | Mapping[str, str] = REQUIRED,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | Turns = "chat",
    system: str = "",
    turns: Turns = (),
    pass_rates: str | None = None,
    between: tuple[float, float] = (0.0, 1.0),
    curriculum: bool = False,
) -> Files:
    """Questions from a .jsonl or .parquet file or `datasets:ID[,CONFIG][:SPLIT]`, split by hash.

    `path` may also map `train`, test splits and `tune` to sources; without one, a tenth of `train` is for tuning.
    `template`: `chat` (a system prompt and example turns may go before the question), `plain` (the question alone),
    `r1_zero`, or one's own with `{question}` in it: a text, or messages as pairs of role and content. Questions
    may be conversations themselves (`chat`). `pass_rates`: a JSONL file of `question` and `pass_rate`, measured
    beforehand; only training questions whose rate is within `between` are kept, so that all arms meet the same ones in
    the same order. `curriculum`: the first pass over them goes from the highest rate to the lowest, later ones are in
    random order.
    """
    asking = _template(template, system, turns)
    splits = _by_hash(read(path, layout, columns)) if isinstance(path, str) else _by_file(path, layout, columns or {})
    for split, questions in splits.items():
        if not questions:
            raise GrpoLabError(f"files: no question falls into the split '{split}': give more questions or split files")
        _check_conversations(questions, asking)
    if pass_rates is not None:
        splits["train"] = _in_range(splits["train"], pass_rates, between, easy_first=curriculum)
    elif tuple(between) != (0.0, 1.0) or curriculum:
        name = "curriculum" if curriculum else "between"
        raise GrpoLabError(f"files.{name} has no effect without files.pass_rates, the file of measured rates")
    suites = tuple(split for split in splits if split not in ("train", "tune"))
    return Files(splits, (_reward(path, layout, columns, asking),), suites, asking, curriculum)


def _template(template: str | Turns, system: str, turns: Turns) -> str | tuple[tuple[str, str], ...]:
    """A text, or messages as (role, content), in which the question has its place."""
    setting = f"files.template = {template!r:.80}"
    if template == "chat":
        return (*((("system", system),) if system else ()), *((role, text) for role, text in turns), ("user", PLACE))
    if system or turns:
        raise GrpoLabError(f"{setting} has no place for a system prompt or turns: use 'chat', or write them into it")
    if isinstance(template, str):
        resolved: str | tuple[tuple[str, str], ...] = TEXTS.get(template, template)
        has_place = PLACE in resolved
    else:
        resolved = tuple((role, text) for role, text in template)
        has_place = any(PLACE in text for _, text in resolved)
    if not has_place:
        hint = near(template, ("chat", *TEXTS)) if isinstance(template, str) else "this one has no place for it"
        raise GrpoLabError(f"{setting}: {hint}; or a template of your own, with {PLACE} where the question goes")
    return resolved


def _check_conversations(questions: Sequence[Question], template: str | Sequence[tuple[str, str]]) -> None:
    """Raise on a conversation that the template has no place for, or where both have a system prompt."""
    for question in (question for question in questions if len(question.messages) > 1):
        if isinstance(template, str) or template[-1] != ("user", PLACE):
            raise GrpoLabError(
                f"{question.place} is a conversation of {len(question.messages)} messages, for which "
                "files.template has no place: use 'chat'"
            )
        if template[0][0] == "system" and any(message["role"] == "system" for message in question.messages):
            raise GrpoLabError(f"{question.place} has a system prompt of its own: leave files.system out, or remove it")


def _reward(
    path: str | Mapping[str, str],
    layout: str | None,
    columns: Mapping[str, str] | None,
    template: str | Sequence[tuple[str, str]],
) -> Part:
    """The layout's reward, which demands the form that the template asks for."""
    source = path if isinstance(path, str) else path["train"]
    _, row = next(read_rows(source))
    kind, _ = recognise(source, row, layout, columns or {})
    part = kind.reward
    return part.using(form="answer_tag") if template == R1_ZERO and part.takes("form") else part
