"""Declares a study: writes study.json before the first run, or anew as the study grows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import GrpoLabError
from core.store.files import read_json, write_json
from experiments.results.declaration import DEFAULTS
from experiments.results.history import chained, is_edited, plain
from experiments.study.growth import check_growth, superseded
from experiments.study.study import Study


def declare(study: Study, folder: Path, command: str, *, grow: bool = False) -> None:
    """Write the study file before the first run; refuse a folder in which another study was declared.

    With `grow` the declaration there becomes history, with the results so far.
    """
    path, before = folder / "study.json", grows_from(study, folder, grow=grow)
    if before is None and path.is_file():
        return
    history = superseded(before, folder) if before is not None else []
    write_json(
        path,
        {
            "name": study.settings.name,
            "hash": chained(study.declaration, history),
            "command": command,
            "declaration": study.declaration,
            "arms": {
                arm.label: {
                    "bindings": list(arm.bindings),
                    "variant": study.recipes[arm.label].variant.name,
                    "card": study.card(arm.label),
                    "varies": study.varies(arm.label),
                }
                for arm in study.settings.arms
            },
            **({"tuned": read_json(Path(study.settings.tuned))} if study.settings.tuned else {}),
            **({"history": history} if history else {}),
        },
    )


def grows_from(study: Study, folder: Path, *, grow: bool) -> Mapping[str, Any] | None:
    """The record of another declaration in a folder; None where there is none, or the same.

    Raises `GrpoLabError` unless the study can grow from it and `grow` is set.
    """
    path = folder / "study.json"
    if not path.is_file():
        return None
    record = read_json(path)
    try:
        edited = is_edited(record)
    except ValueError as error:
        raise GrpoLabError(f"{path}: {error}; restore it, or remove its folder to start anew") from None
    before, now = plain({**DEFAULTS, **record["declaration"]}), plain({"data": {}, **study.declaration})
    if not before["data"]:  # declared before it was part of a declaration
        now["data"] = {}
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if not changed:
        return None
    refusal = f"{folder} holds a study that was declared differently (different: {', '.join(changed)})"
    elsewhere = "give another --out or compare.name, or remove the folder"
    try:
        if edited:
            raise GrpoLabError("its study.json is not as it was written: restore it")
        check_growth(study, before)
    except GrpoLabError as error:
        raise GrpoLabError(f"{refusal}, and it cannot grow into this one: {error}. Else {elsewhere}") from error
    if not grow:
        raise GrpoLabError(
            f"{refusal}. With --grow it is declared anew, what has been seen so far is recorded, and its finished "
            f"runs are used; to start over {elsewhere}"
        )
    return record
