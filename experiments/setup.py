"""Set-up of every process of the bench: import the parts, and silence the libraries."""

import importlib
import os
import sys
from dataclasses import dataclass

from core.parts.import_path import find_modules_in, users_folders


def quiet_libraries() -> None:
    """No progress bars and advice from transformers: the bench shows its own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


PARTS = (
    "core.generation",
    "core.loop.providers",
    "core.environments.rewards",
    "core.environments.episodes",
    "core.environments.tasks",
    "core.environments.datasets",
    "estimators",
    "variants",
)


def import_parts() -> None:
    """Register every part that is shipped: importing a package does it."""
    for package in PARTS:
        importlib.import_module(package)


@dataclass(frozen=True)
class Origin:
    """What a worker needs to find modules and files as the command does; it is sent as text."""

    folder: str
    """The current folder: paths of runs are relative to it."""
    modules: tuple[str, ...]
    """Folders of the user's modules: the current one, and those of gin files that import some."""
    command: tuple[str, ...]

    @classmethod
    def here(cls) -> "Origin":
        """The origin of this process."""
        return cls(os.getcwd(), users_folders(), tuple(sys.argv))

    def enter(self) -> None:
        """Make this process a worker: parts registered, modules and files found as the command finds them."""
        import_parts()
        quiet_libraries()
        os.chdir(self.folder)
        find_modules_in(self.folder, *self.modules)
        sys.argv[:] = self.command
