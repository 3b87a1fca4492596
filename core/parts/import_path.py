"""Where the user's modules are found: after Python's own, the libraries' and ours.

His folder may hold one that is named like one of ours, such as `core`, which must not be imported in its place. So his
folders are appended to the import path, in every process of ours, and never put first.
"""

import sys
import sysconfig
from pathlib import Path
from typing import Final

SAFE_PATH: Final = {"PYTHONSAFEPATH": "1"}
"""Environment of a process of ours: `python -m` would put the current folder first."""
ROOT: Final = Path(__file__).parents[2]


def find_modules_in(*folders: str) -> None:
    """Append to the import path those of these folders that it lacks."""
    sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def users_folders() -> tuple[str, ...]:
    """The folders on the import path that are neither Python's nor a library's nor ours."""
    folders = [Path(entry).resolve() for entry in sys.path]
    return tuple(
        str(each) for each in dict.fromkeys(folders) if each.is_dir() and each != ROOT and not _is_library(each)
    )


def _is_library(folder: Path) -> bool:
    pythons = any(folder.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return pythons or bool({"site-packages", "dist-packages"} & set(folder.parts))
