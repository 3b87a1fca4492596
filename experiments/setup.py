"""What every process of the bench does first: import the parts, and keep libraries from chattering."""

import importlib
import os


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
