"""Rows of tables: JSONL, Parquet and `datasets`, each row with its place, and every mistake named with it."""

import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from core.errors import GrpoLabError, brief, near
from core.store.files import parse_json

Row: TypeAlias = Mapping[str, Any]


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
        yield from from_jsonl(path)
    elif path.suffix == ".parquet":
        yield from _from_parquet(path)
    else:
        raise GrpoLabError(f"{source} must end in .jsonl or .parquet, or be datasets:ID[,CONFIG][:SPLIT]")


def from_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    """Every object of a file of JSON lines, with its place."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise GrpoLabError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        for number, line in enumerate(file, 1):
            place = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                row = parse_json(text, unique=True)
                if "\\ud" in text.lower():  # half a character, which no file or tokenizer takes
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeError as error:
                raise GrpoLabError(f"{place}: not UTF-8: {error}") from error
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
    except Exception as error:  # whatever pyarrow makes of a damaged file, or of bytes that are no text
        raise GrpoLabError(f"{path} cannot be read as Parquet: {brief(error)}") from error
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
        raise GrpoLabError(f"{source} cannot be read: {brief(error)}") from error
    yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows))


# --- values ----------------------------------------------------------------------------------------------------------


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number: JSON also reads NaN and 1e999, tables mark with NaN what is not there."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def messages_fault(value: object) -> str:
    """What is wrong with chat messages, each of which has a role and text, or calls of tools; "" where nothing is."""
    if not isinstance(value, list) or not value:
        return "there is none" if value == [] else "they are no list"
    faults = (f"message {number} {fault}" for number, m in enumerate(value, 1) if (fault := _message_fault(m)))
    return next(faults, "")


def _message_fault(message: object) -> str:
    if not isinstance(message, dict):
        return f"is {message!r:.40}, no object"
    role, content, calls = (message.get(name) for name in ("role", "content", "tool_calls"))
    if not isinstance(role, str) or not role:
        return f"has the role {role!r:.40}, which is no name"
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        return f"({role}) has tool_calls that are no list of objects"
    if isinstance(content, list):
        return f"({role}) has its content in parts: join their text into one"
    if not isinstance(content, str) and (content is not None or not calls):
        return f"({role}) has the content {content!r:.40}, which is no text"
    return ""


def are_messages(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether it is a list of chat messages."""
    return not messages_fault(value)


def messages_of(value: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Chat messages as a template takes them: role and content, then what else they have.

    A null is as if it were not there: Parquet puts one wherever another message has more.
    """
    return [
        {"role": m["role"], "content": m.get("content") or ""}
        | {name: _without_nulls(x) for name, x in m.items() if name not in ("role", "content") and x is not None}
        for m in value
    ]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(x) for name, x in value.items() if x is not None}
    return [_without_nulls(x) for x in value] if isinstance(value, list) else value


def tools_fault(row: Row) -> str:
    """What is wrong where a row of messages lists tools, which no template is given; "" where it lists none."""
    if not row.get("tools"):
        return ""
    return (
        f"column 'tools' is {row['tools']!r:.60}, and tools on offer are not handed to the chat template: write them "
        "into the system message and take the column out"
    )
