"""Finds the parts to check: by name, or in a user's files, which are imported."""

import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from core import GrpoLabError, Part
from core.errors import near
from core.parts.import_path import find_modules_in
from core.parts.registry import REGISTRIES


def registered() -> dict[str, Part]:
    """Every part of every kind, by name."""
    return {name: part for registry in REGISTRIES.values() for name, part in registry.items()}


def is_file(target: str) -> bool:
    """Whether a target is a file rather than a name."""
    return target.endswith((".py", ".gin")) or "/" in target


def find_parts(targets: Sequence[str]) -> list[Part]:
    """The parts to check: those named, else those of the files, else all that are registered."""
    names = [target for target in targets if not is_file(target)]
    file_parts = [part for target in targets if is_file(target) for part in parts_of(Path(target))]
    known = registered()
    for name in names:
        if name not in known:
            raise GrpoLabError(f"unknown part '{name}': {near(name, known)}")
    parts = [known[name] for name in names] or file_parts or list(known.values())
    return list(dict.fromkeys(parts))


def parts_of(file: Path) -> list[Part]:
    """What a file registers; it is imported unless it has been."""
    if not file.is_file():
        raise GrpoLabError(f"file not found: {file} (looked from {Path.cwd()})")
    if file.suffix != ".py":
        raise GrpoLabError(f"{file} is no .py file, and parts are registered in one; a gin file goes behind -c")
    before = registered().keys()
    if not any(_is(module, file) for module in list(sys.modules.values())):
        _import(file)
    parts = [part for name, part in registered().items() if name not in before or _defines(file, part)]
    if not parts:
        raise GrpoLabError(
            f"{file} registers no part; put a decorator over a function of it, e.g. @advantage from core, and see "
            "CONTRIBUTING.md for the signature of each kind"
        )
    return parts


def _import(file: Path) -> None:
    """Import a file by its name, its folder on the path, as a gin file would."""
    find_modules_in(str(file.resolve().parent))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(file.stem)
    except GrpoLabError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file does
        raise GrpoLabError(
            f"{file} cannot be imported: {type(error).__name__}: {error} ({', '.join(_lines(error, file))}); mend it "
            "and check again"
        ) from error
    if not _is(module, file):
        raise GrpoLabError(
            f"{file}: the name '{file.stem}' is taken by the module at {getattr(module, '__file__', 'no file')}; "
            "rename the file"
        )


def _lines(error: BaseException, file: Path) -> Iterator[str]:
    """The line of the file that raised the error."""
    if isinstance(error, SyntaxError):
        yield f"line {error.lineno}"
        return
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file.resolve()]
    yield f"line {frames[-1].lineno}" if frames else "on import"


def _is(module: object, file: Path) -> bool:
    path = getattr(module, "__file__", None)
    return isinstance(path, str) and Path(path).name == file.name and Path(path).resolve() == file.resolve()


def _defines(file: Path, part: Part) -> bool:
    return Path(part.place.rpartition(":")[0]).resolve() == file.resolve()
