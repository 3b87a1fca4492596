"""Rows of tables: JSONL, Parquet and `datasets`, each row with its place, and every mistake named with it."""

import importlib
import json
import math
from collections.abc import Iterator, Mapping
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


def are_messages(value: object) -> TypeGuard[list[dict[str, str]]]:
    """Whether it is a list of chat messages, each with the text of its role and content."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    )
