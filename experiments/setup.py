"""What every process of the bench does first: import the parts, and keep libraries from chattering."""

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
    """The command that runs are of, as far as a process that runs one is to be like it; it travels as text."""

    folder: str
    """The current one: what runs read and write is relative to it."""
    modules: tuple[str, ...]
    """Where modules of the user's are found: the current folder, and those of gin files that import some."""
    command: tuple[str, ...]

    @classmethod
    def here(cls) -> "Origin":
        """This process's."""
        return cls(os.getcwd(), users_folders(), tuple(sys.argv))

    def enter(self) -> None:
        """Make this process one that runs jobs: parts registered, modules and files found as the command finds them."""
        import_parts()
        quiet_libraries()
        os.chdir(self.folder)
        find_modules_in(self.folder, *self.modules)
        sys.argv[:] = self.command
