"""A variant by its name, with gin bindings and a user's own parts, without the bench: torch and gin are enough."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import estimators
import variants
from core.errors import GrpoLabError, describe_error, near
from core.parts.bindings import bindings_used, refuse_unused
from core.parts.import_path import find_modules_in
from core.parts.registry import VARIANTS, bindings_in_force, config
from core.parts.variant import Variant


def variant_of(
    name: str, *, modules: Sequence[str] = (), files: Sequence[str] = (), bindings: Sequence[str] = ()
) -> Variant:
    """The registered variant of this name, every hyper-parameter fixed to its present value.

    `modules`, of the current folder or installed, are imported first and may register parts. `files` and `bindings` are
    gin's. What is returned asks gin no more. It cannot be pickled: other processes make it from the same arguments.
    Raises `GrpoLabError` for a module that is not there or cannot be imported, an unknown variant, and a binding that
    gin refuses or that had no effect.
    """
    find_modules_in(str(Path.cwd()))
    for package in (estimators.__name__, variants.__name__):
        importlib.import_module(package)
    for module in modules:
        _import(module)
    if name not in VARIANTS:
        raise GrpoLabError(f"no variant {name!r}; {near(name, VARIANTS)}")
    with config(files, bindings):
        variant = cast(Variant, VARIANTS[name]()).resolved()
        if not files:  # a study's file binds more than parts
            refuse_unused(bindings_in_force(), bindings_used(), variant.parts, [name])
    return variant


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except GrpoLabError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's module does while it is imported
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise GrpoLabError(f"no module {module!r} in {Path.cwd()} or among what is installed") from error
        cause = f"SyntaxError: {error}" if isinstance(error, SyntaxError) else describe_error(error)
        raise GrpoLabError(f"importing {module!r} fails: {cause}; mend it and start again") from error
