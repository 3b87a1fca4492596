"""Importing a reference's maths without the engines that surround it.

The references' packages import inference and training engines at the top, which need a GPU or a cluster and play no
part in the formulas. A stand-in takes the place of such a module; the modules with the formulas are always the real
ones.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


@contextmanager
def without(*engines: str, **attributes: Any) -> Iterator[None]:
    """Stand-ins of these names for the imports inside, and none after: other libraries ask which engines are there."""
    for engine in engines:
        stand_in(engine, **attributes)
    try:
        yield
    finally:
        for engine in engines:
            del sys.modules[engine]


def stand_in(name: str, **attributes: Any) -> ModuleType:
    """Put a module of this name, with these attributes, where an import will find it; an outer package comes first."""
    module = ModuleType(name)
    module.__dict__.update(attributes)
    module.__path__ = []
    sys.modules[name] = module
    return module


def bare_package(name: str, **attributes: Any) -> ModuleType:
    """A package whose modules can be imported without running its `__init__`; its outer packages are made so too."""
    outer, _, last = name.rpartition(".")
    if outer:
        folder = Path((sys.modules.get(outer) or bare_package(outer)).__path__[0]) / last
    else:
        spec = importlib.util.find_spec(name)
        places = spec.submodule_search_locations if spec is not None else None
        assert places, f"{name} is not installed"
        folder = Path(places[0])
    module = stand_in(name, **attributes)
    module.__path__ = [str(folder)]
    return module


def bare_object(of: type, **attributes: Any) -> Any:
    """An object of a reference's class that was never initialised: its methods are real, its state is what we give."""
    thing: Any = object.__new__(of)
    thing.__dict__.update(attributes)
    return thing
