"""In Ray's workers our packages are imported before the current folder is put on the import path, first as Ray has it.

That folder may hold one that is named like one of ours, such as `core`, which must not be imported in its place.
"""

import os
from collections.abc import Callable
from typing import Any, Final

SETUP: Final = "worker_process_setup_hook"
HOOK: Final = "RAY_RUNTIME_ENV_HOOK"
"""The environment variable by which Ray finds what changes the environment of a job."""
OURS: Final = ("core", "estimators", "variants", "experiments")


def use_in_workers() -> None:
    """Have Ray, when it starts, prepare every worker process."""
    os.environ.setdefault(HOOK, f"{__name__}.{with_setup.__name__}")


def with_setup(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """A job's environment whose workers begin with our packages."""
    return {SETUP: importing(OURS), **(runtime_env or {})}


def importing(packages: tuple[str, ...]) -> Callable[[], None]:
    """A function that workers get by value: to find it by its name, they would have to import ours first."""

    def begin() -> None:
        import importlib

        for package in packages:
            importlib.import_module(package)

    return begin
