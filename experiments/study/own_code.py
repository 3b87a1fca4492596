"""The identity of a user's part: a digest of its code, and of all the user's code that it refers to.

Comments, docstrings, blank lines and layout are no part of it, nor is anything else in the same file: from a function
on, the names that it loads are followed through the module and through imported modules of the user's, be they
functions, classes or constants. Installed libraries and the bench itself are not followed: a run's identity names their
versions. What a module does to others when it is imported (`torch.set_default_dtype(...)`, `library.limit = 3`) counts
for everything in it. Where names cannot be followed (`globals()`, `eval`, `from x import *`, a function that another
makes), the whole module counts.
"""

import ast
import builtins
import dis
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, Final

OURS: Final = ("core", "estimators", "variants", "experiments")
_DYNAMIC: Final = frozenset({"globals", "locals", "vars", "eval", "exec", "__import__", "importlib"})
"""Names that look up others at run time, which cannot be followed."""
_LOADS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_WITHOUT_EFFECT: Final = ("ctx", "type_comment", "kind")
"""Fields of a syntax tree that change nothing."""


def is_own(module: str) -> bool:
    """Whether a module is the user's, and not of the bench."""
    return module.split(".")[0] not in OURS


@cache  # taken once, soon after the import: files may be edited later
def code_digest(function: Callable[..., Any]) -> str:
    """Digest of a function's code and of what it refers to; empty where the code is in no file."""
    function, reached = inspect.unwrap(function), _Reached()
    module = reached.read(function.__module__)
    if module is None:
        return ""
    name, place = function.__qualname__, Path(function.__code__.co_filename)
    reached.take(module, name if name in module.bound and place == module.file else ALL)
    return hashlib.blake2b("\n".join(sorted(reached.pieces)).encode(), digest_size=8).hexdigest()


ALL: Final = "*"


@dataclass(frozen=True, eq=False)
class _Module:
    """A user's module as it is written."""

    name: str
    package: str
    file: Path
    statements: tuple[ast.stmt, ...]
    bound: dict[str, list[ast.stmt]]
    """By name, the statements at the top of the module that bind or change it."""

    @property
    def effects(self) -> list[ast.stmt]:
        """Statements at the top that call something imported for no result, or store into it."""
        effects: list[ast.stmt] = []
        for statement in self.statements:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                touched = [_root(statement.value.func)]
            elif isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                touched = [_root(target) for target in targets if not isinstance(target, ast.Name)]
            else:
                continue
            makers = [maker for name in touched if name for maker in self.bound.get(name, ())]
            effects += [statement] * any(isinstance(maker, ast.Import | ast.ImportFrom) for maker in makers)
        return effects

    def absolute(self, statement: ast.ImportFrom) -> str:
        """The module that a `from` of this one names."""
        relative = "." * statement.level + (statement.module or "")
        return importlib.util.resolve_name(relative, self.package) if statement.level else relative


class _Reached:
    """The statements that the names taken so far lead to."""

    def __init__(self) -> None:
        self.pieces: set[str] = set()
        self._taken: set[tuple[str, str]] = set()
        self._modules: dict[str, _Module | None] = {}

    def take(self, module: _Module, name: str) -> None:
        """A name of a module, or ALL, with what it refers to."""
        if {(module.name, name), (module.name, ALL)} & self._taken:
            return
        self._taken.add((module.name, name))
        if (module.name, "") not in self._taken:
            self._taken.add((module.name, ""))
            for statement in module.effects:
                self._add(module, statement)
        if name != ALL and name not in module.bound:
            if (below := self.read(f"{module.name}.{name}")) is not None:
                self.take(below, ALL)
            elif ALL in module.bound:
                self.take(module, ALL)
            return
        for statement in module.statements if name == ALL else module.bound[name]:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._follow(module, statement, name)
            else:
                self._add(module, statement)

    def _add(self, module: _Module, statement: ast.stmt) -> None:
        self.pieces.add(f"{module.name}: {_text(statement)}")
        nodes = list(ast.walk(statement))
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._follow(module, node, ALL)
        for name in _loaded(compile(ast.Module([statement], []), str(module.file), "exec", dont_inherit=True)):
            if name in _DYNAMIC:
                self.take(module, ALL)
            elif (imported := self._imported_module(module, name)) is not None:
                uses = sum(isinstance(node, ast.Name) and node.id == name for node in nodes)
                attributes = [
                    n.attr
                    for n in nodes
                    if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name
                ]
                for attribute in attributes if len(attributes) == uses else [ALL]:
                    self.take(imported, attribute)
            elif name in module.bound or (ALL in module.bound and not hasattr(builtins, name)):
                self.take(module, name)

    def _follow(self, module: _Module, statement: ast.Import | ast.ImportFrom, name: str) -> None:
        """What an import brings under a name, or under ALL of its names."""
        for alias in statement.names:
            if name not in (ALL, _bound_name(alias)):
                continue
            place = f"{module.absolute(statement)}." if isinstance(statement, ast.ImportFrom) else ""
            self.pieces.add(f"{module.name}: {_bound_name(alias)} = {place}{alias.name}")
            there = self.read(place.removesuffix(".")) if place else None
            if there is not None and (alias.name == ALL or alias.name in there.bound):
                self.take(there, alias.name)
            elif (imported := self.read(f"{place}{alias.name}")) is not None:
                self.take(imported, ALL)
            elif there is not None:
                self.take(there, ALL)

    def _imported_module(self, module: _Module, name: str) -> _Module | None:
        """The user's module that an import at the top of another binds to a name, and nothing else does."""
        statements = module.bound.get(name, [])
        if len(statements) != 1 or not isinstance(statements[0], ast.Import | ast.ImportFrom):
            return None
        alias = next(imported for imported in statements[0].names if _bound_name(imported) == name)
        if isinstance(statements[0], ast.Import):
            return self.read(alias.name) if alias.asname or alias.name == name else None
        there = self.read(module.absolute(statements[0]))
        if there is not None and alias.name in there.bound:
            return None
        return self.read(f"{module.absolute(statements[0])}.{alias.name}")

    def read(self, name: str) -> _Module | None:
        """A module by its name; None where it is not the user's, or is in no file."""
        if name not in self._modules:
            self._modules[name] = _read(name) if is_own(name) else None
        return self._modules[name]


def _read(name: str) -> _Module | None:
    loaded = sys.modules.get(name)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec is not None else None)
    if origin is None or not origin.endswith(".py") or _is_library(file := Path(origin)):
        return None
    try:
        statements = tuple(s for s in ast.parse(file.read_bytes()).body if not _is_docstring(s))
    except (OSError, SyntaxError, ValueError):
        return None
    bound: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for bound_name in _names(statement):
            bound.setdefault(bound_name, []).append(statement)
    package = getattr(loaded, "__package__", None) or (spec.parent if spec is not None else None) or ""
    return _Module(name, package, file, statements, bound)


def _names(statement: ast.stmt) -> set[str]:
    """The names at the top of a module that a statement there binds or changes."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            nodes = [node for target in targets for node in ast.walk(target)]
        case _:  # a loop, a condition, a call: whatever it mentions may have been changed by it
            nodes = list(ast.walk(statement))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return names | {_bound_name(node) for node in nodes if isinstance(node, ast.alias)}


def _root(node: ast.expr) -> str | None:
    """`a` of `a.b[0].c`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _bound_name(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name.split(".")[0]


def _is_library(file: Path) -> bool:
    library = any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return library or bool({"site-packages", "dist-packages"} & set(file.parts))


def _loaded(code: CodeType) -> set[str]:
    """The names outside it that code loads, its inner functions included."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _LOADS}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _loaded(constant)
    return names


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _text(node: Any) -> str:
    """A syntax tree as text, the same under every version of Python: no positions, docstrings and empty fields."""
    if isinstance(node, list):
        return f"[{', '.join(_text(item) for item in node if not _is_docstring(item))}]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    fields = ((n, value) for n, value in ast.iter_fields(node) if n not in _WITHOUT_EFFECT and value not in (None, []))
    return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"
