"""`from core import ...`: the public names, each the object of the module that defines it."""

import ast
import importlib
from pathlib import Path

import core


def test_every_public_name_is_the_object_of_the_module_that_it_is_declared_to_be_from() -> None:
    statements = ast.walk(ast.parse(Path(core.__file__).read_text()))
    imports = [node for node in statements if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    named = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert sorted(named) == sorted(core.__all__)
    for name, module in named.items():
        assert getattr(core, name) is getattr(importlib.import_module(module), name), name


def test_another_name_is_an_error() -> None:
    assert not hasattr(core, "nonsense")
