"""Questions from files: GSM8K, MATH, Countdown, MBPP and plain question-answer tables, as JSONL, Parquet or `datasets`.

    layout      columns                    answer                     judged by
    gsm8k       question, answer           what follows ####          math_answer
    math        problem, solution          the last \\boxed{...}       math_answer
    countdown   nums, target               none                       countdown
    mbpp        text or prompt, test_list  code, if there is any      code_tests
    plain       question, answer           the answer as it stands    math_answer

A layout is recognised by its columns; `columns` says which column plays which part where the names differ. Splits are
by hash of the question, so that no question is in two; split files that are given are checked for that.
"""

import hashlib
import importlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from core.contracts import task
from core.errors import GrpoLabError, near
from core.problems import Problem
from core.registry import REQUIRED, Part
from core.rewards.answers import boxes
from core.rewards.code import code_tests
from core.rewards.countdown import countdown
from core.rewards.math import math_answer
from core.store import parse_json
from core.tasks.patterns import IN_WORDS
from core.tasks.splits import SPLITS, tenth

Row = Mapping[str, Any]

R1_ZERO: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>. User: {question}. Assistant:"
)
"""The template of DeepSeek-R1-Zero, word for word (arXiv:2501.12948, table 1)."""
TEMPLATES: Final = ("chat", "plain", "r1_zero")


@dataclass(frozen=True)
class Question:
    """One row, understood."""

    text: str
    answer: str
    data: Mapping[str, Any]
    place: str
    """File and line or row, for messages."""
    solution: str = ""
    """How the answer is arrived at, where the table says."""


class _RowError(Exception):
    """What is wrong with a row; the place is added by who knows it."""


# --- layouts ---------------------------------------------------------------------------------------------------------


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise _RowError(f"column '{column}' is {value!r:.60}, not text")
    return value.strip()


def _gsm8k(row: Row, c: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    _, mark, final = _text(row, c["answer"]).rpartition("####")
    if not mark or not final.strip():
        raise _RowError(f"column '{c['answer']}' has no final answer after ####")
    return _text(row, c["question"]), final.strip().replace(",", ""), {}


def _math(row: Row, c: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    found = boxes(_text(row, c["solution"]))
    if not found:
        raise _RowError(f"column '{c['solution']}' has no complete \\boxed{{...}}")
    return _text(row, c["problem"]), found[-1], {}


def _countdown(row: Row, c: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    numbers, target = row[c["numbers"]], row[c["target"]]
    whole = [n for n in numbers if isinstance(n, int)] if isinstance(numbers, list | tuple) else []
    if not whole or len(whole) != len(numbers):
        raise _RowError(f"column '{c['numbers']}' is {numbers!r:.60}, not a list of whole numbers")
    if not isinstance(target, int):
        raise _RowError(f"column '{c['target']}' is {target!r:.60}, not a whole number")
    listed = ", ".join(map(str, whole))
    text = (
        f"Write an arithmetic expression that equals {target}. Use + - * / and brackets, and each of the numbers "
        f"{listed} exactly once. Give the expression in <answer> </answer>."
    )
    return text, "", {"numbers": whole, "target": target}


def _mbpp(row: Row, c: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    tests = row[c["tests"]]
    if not isinstance(tests, list | tuple) or not tests or not all(isinstance(test, str) for test in tests):
        raise _RowError(f"column '{c['tests']}' is {tests!r:.60}, not a list of assert statements")
    setup = str(row.get("test_setup_code") or "").strip()
    text = f"{_text(row, c['text'])}\n\nThe program must pass these tests:\n\n" + "\n".join(tests)
    if setup:
        text += f"\n\nBegin it with:\n\n{setup}"
    return text, str(row.get("code") or ""), {"tests": list(tests)}


def _plain(row: Row, c: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    answer = row[c["answer"]]
    if isinstance(answer, bool) or not isinstance(answer, int | float | str) or not str(answer).strip():
        raise _RowError(f"column '{c['answer']}' is {answer!r:.60}, neither text nor a number")
    return _text(row, c["question"]), str(answer).strip(), {}


def _solution(row: Row, c: Mapping[str, str]) -> str:
    solution = row.get(c.get("solution", "solution"))
    return solution.strip() if isinstance(solution, str) else ""


def _boxed_solution(row: Row, c: Mapping[str, str]) -> str:
    """GSM8K's, with the final answer in the form that is demanded of responses."""
    steps, _, final = _text(row, c["answer"]).rpartition("####")
    return f"{steps.strip()}\n\\boxed{{{final.strip()}}}"


@dataclass(frozen=True)
class Layout:
    """A kind of table: its parts with the names of their columns, the usual one first, and how a row is read."""

    parts: Mapping[str, tuple[str, ...]]
    read: Callable[[Row, Mapping[str, str]], tuple[str, str, dict[str, Any]]]
    reward: Part
    worked: Callable[[Row, Mapping[str, str]], str] = _solution
    """The worked solution of a row, "" where it has none."""

    def found(self, columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str] | None:
        """Which column plays which part; None if one is missing."""
        names = {
            part: given.get(part) or next((n for n in usual if n in columns), "") for part, usual in self.parts.items()
        }
        return names if all(names.values()) else None


LAYOUTS: Final = {
    "countdown": Layout(
        {"numbers": ("nums", "numbers"), "target": ("target",)}, _countdown, countdown
    ),
    "mbpp": Layout({"text": ("text", "prompt"), "tests": ("test_list",)}, _mbpp, code_tests),
    "math": Layout(
        {"problem": ("problem",), "solution": ("solution",)}, _math, math_answer
    ),
    "gsm8k": Layout({"question": ("question",), "answer": ("answer",)}, _gsm8k, math_answer, _boxed_solution),
    "plain": Layout(
        {"question": ("question", "problem", "prompt"), "answer": ("answer",)}, _plain,
        math_answer,
    ),
}  # fmt: skip
"""In the order in which they are tried; gsm8k and plain differ by the mark #### in the first row."""


def _recognise(source: str, row: Row, layout: str | None, columns: Mapping[str, str]) -> tuple[Layout, dict[str, str]]:
    """The layout of a table by its first row; raises with what is there and what is missing."""
    if layout is not None and layout not in LAYOUTS:
        raise GrpoLabError(f"files.layout = {layout!r}: {near(layout, LAYOUTS)}")
    for part, column in columns.items():
        if column not in row:
            raise GrpoLabError(f"{source} has no column '{column}' (files.columns, {part}): {near(column, row)}")
    candidates = {layout: LAYOUTS[layout]} if layout else LAYOUTS
    known = sorted({part for candidate in candidates.values() for part in candidate.parts})
    if wrong := columns.keys() - set(known):
        raise GrpoLabError(f"files.columns names the part '{min(wrong)}': {near(min(wrong), known)}")
    for name, candidate in candidates.items():
        names = candidate.found(list(row), columns) if columns.keys() <= candidate.parts.keys() else None
        if names and (name != "gsm8k" or layout or "####" in str(row[names["answer"]])):
            return candidate, names
    wanted = "; ".join(
        f"{name}: {', '.join('/'.join(usual) for usual in candidate.parts.values())}"
        for name, candidate in candidates.items()
    )
    raise GrpoLabError(
        f"{source} has the columns {', '.join(row)}, which fit no layout. Known are {wanted}. Say which column is "
        'which with files.columns, e.g. {"question": "input", "answer": "target"}'
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def read_rows(source: str) -> Iterator[tuple[str, Row]]:
    """Every row of a .jsonl or .parquet file or `datasets:ID[,CONFIG][:SPLIT]`, with its place; raises on a bad one."""
    if source.startswith("datasets:"):
        yield from _from_datasets(source)
        return
    path = Path(source).expanduser()
    if not path.is_file():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise GrpoLabError(f"there is no file {source}: {near(path.name, there)}")
    if path.suffix in (".jsonl", ".ndjson"):
        yield from _from_jsonl(path)
    elif path.suffix == ".parquet":
        yield from _from_parquet(path)
    else:
        raise GrpoLabError(f"{source} must end in .jsonl or .parquet, or be datasets:ID[,CONFIG][:SPLIT]")


def _from_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = parse_json(line)
            except ValueError as error:
                raise GrpoLabError(f"{place}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise GrpoLabError(f"{place}: a JSON object was expected, not {type(row).__name__}")
            yield place, row


def _from_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise GrpoLabError(
            f"reading {path} needs pyarrow: pip install 'grpo-lab[parquet]' (JSONL needs nothing)"
        ) from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise GrpoLabError(f"{path} cannot be read as Parquet: {error}") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def _from_datasets(source: str) -> Iterator[tuple[str, Row]]:
    """`datasets:ID[,CONFIG][:SPLIT]`; the split is `train` unless given."""
    name, _, split = source.removeprefix("datasets:").partition(":")
    identifier, _, config = name.partition(",")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise GrpoLabError(
            f"{source} needs the package datasets: pip install datasets (JSONL needs nothing)"
        ) from error
    try:
        rows = datasets.load_dataset(identifier, config or None, split=split or "train")
    except Exception as error:  # whatever a hub, a cache or a script of a data set may raise
        raise GrpoLabError(
            f"{source} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows))


def read(source: str, layout: str | None = None, columns: Mapping[str, str] | None = None) -> list[Question]:
    """All questions of a source, each once; raises on the first row that is not as it should be."""
    found: dict[str, Question] = {}
    recognised = None
    for place, row in read_rows(source):
        recognised = recognised or _recognise(source, row, layout, columns or {})
        kind, names = recognised
        if missing := [column for column in names.values() if column not in row]:
            raise GrpoLabError(f"{place}: no column '{missing[0]}': {near(missing[0], row)}")
        try:
            question = Question(*kind.read(row, names), place, kind.worked(row, names))
        except _RowError as error:
            raise GrpoLabError(f"{place}: {error}") from error
        first = found.setdefault(digest(question.text), question)
        if (first.answer, first.data) != (question.answer, question.data):
            raise GrpoLabError(
                f"{place} asks what {first.place} asks, but has another answer ({question.answer!r:.40} and "
                f"{first.answer!r:.40}): remove one"
            )
    if not found:
        raise GrpoLabError(f"files: {source} has no questions")
    return list(found.values())


def digest(question: str) -> str:
    """What a question is recognised by: its words, whatever the blanks between them."""
    return " ".join(question.split())


# --- the task --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Files:
    """Questions by split, and how they are put to the model."""

    questions: Mapping[str, Sequence[Question]]
    rewards: tuple[Part, ...]
    suites: tuple[str, ...]
    template: str
    turns: tuple[tuple[str, str], ...]
    easy_first: bool = False
    """Whether the first pass over the training questions goes from easy to hard, as they are listed."""
    patterns: Mapping[str, str] = field(default_factory=lambda: IN_WORDS)

    @cached_property
    def digest(self) -> str:
        """Of all questions and answers in their order, by split: a file may change behind a path that stays."""
        told = {
            split: [(q.text, q.answer, q.data, q.solution) for q in questions]
            for split, questions in self.questions.items()
        }
        return hashlib.blake2b(json.dumps(told, sort_keys=True, default=repr).encode(), digest_size=8).hexdigest()

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
        return Problem(self._prompt(question.text), question.answer, index, data)

    def _solution(self, question: Question) -> str:
        """The worked solution in the form that the template asks for."""
        if self.template != "r1_zero":
            return question.solution
        return f" <think> {question.solution} </think> <answer> {question.answer} </answer>"

    def _prompt(self, text: str) -> str | list[dict[str, str]]:
        if self.template == "chat":
            return [{"role": role, "content": content} for role, content in (*self.turns, ("user", text))]
        return R1_ZERO.replace("{question}", text) if self.template == "r1_zero" else text


@lru_cache(maxsize=16)
def _order(split: str, seed: int, epoch: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(f"files/{split}/{seed}/{epoch}").sample(range(length), length))


def _by_hash(questions: Sequence[Question]) -> dict[str, list[Question]]:
    return {split: [q for q in questions if tenth(digest(q.text)) in tenths] for split, tenths in SPLITS.items()}


def _given(sources: Mapping[str, str], layout: str | None, columns: Mapping[str, str]) -> dict[str, list[Question]]:
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
    for place, row in _from_jsonl(_existing(file)):
        question, rate = row.get("question"), row.get("pass_rate")
        if not isinstance(question, str) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise GrpoLabError(f"{place}: a question and its pass_rate between 0 and 1 were expected")
        rates[digest(question)] = float(rate)
    for question in questions:
        if digest(question.text) not in rates:
            raise GrpoLabError(
                f"{file} has no pass rate for the training question of {question.place}, {question.text!r:.60}: "
                "measure it anew on the same files"
            )
    kept = [q for q in questions if low <= rates[digest(q.text)] <= high]
    if not kept:
        raise GrpoLabError(f"files.between = {tuple(between)} keeps none of {len(questions)} training questions")
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
    template: str = "chat",
    system: str = "",
    turns: Sequence[tuple[str, str]] = (),
    pass_rates: str | None = None,
    between: tuple[float, float] = (0.0, 1.0),
    curriculum: bool = False,
) -> Files:
    """Questions from a .jsonl or .parquet file or `datasets:ID[,CONFIG][:SPLIT]`, split by hash.

    `path` may also map `train`, test splits and `tune` to sources; without one, a tenth of `train` is for tuning.
    `template`: `chat` (a system prompt and example turns may go before the question), `plain` (the question alone), or
    `r1_zero`. `pass_rates`: a JSONL file of `question` and `pass_rate`, measured beforehand; only training questions
    whose rate is within `between` are kept, so that all arms meet the same ones in the same order. `curriculum`: the
    first pass over them goes from the highest rate to the lowest, later ones are in random order.
    """
    if template not in TEMPLATES:
        raise GrpoLabError(f"files.template = {template!r}: {near(template, TEMPLATES)}")
    if template != "chat" and (system or turns):
        raise GrpoLabError(f"files.template = {template!r} has no place for a system prompt or turns: use 'chat'")
    splits = _by_hash(read(path, layout, columns)) if isinstance(path, str) else _given(path, layout, columns or {})
    for split, questions in splits.items():
        if not questions:
            raise GrpoLabError(f"files: no question falls into the split '{split}': give more questions or split files")
    if pass_rates is not None:
        splits["train"] = _in_range(splits["train"], pass_rates, between, easy_first=curriculum)
    elif tuple(between) != (0.0, 1.0) or curriculum:
        name = "curriculum" if curriculum else "between"
        raise GrpoLabError(f"files.{name} has no effect without files.pass_rates, the file of measured rates")
    before = (("system", system), *turns) if system else tuple(turns)
    suites = tuple(split for split in splits if split not in ("train", "tune"))
    return Files(splits, (_reward(path, layout, columns, template),), suites, template, before, curriculum)


def _reward(
    path: str | Mapping[str, str], layout: str | None, columns: Mapping[str, str] | None, template: str
) -> Part:
    """The layout's reward, which demands the form that the template asks for."""
    source = path if isinstance(path, str) else path["train"]
    _, row = next(read_rows(source))
    kind, _ = _recognise(source, row, layout, columns or {})
    part = kind.reward
    return part.using(form="answer_tag") if template == "r1_zero" and part.takes("form") else part
