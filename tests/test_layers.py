"""The house stands: imports go one way, gin stays where it belongs, and the machine knows no method by name."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
OURS = {"core", "estimators", "variants", "experiments"}
ALLOWED = {
    "core": {"core"},
    "estimators": {"core", "estimators"},
    "variants": {"core", "estimators", "variants"},
    "experiments": OURS,
    "experiments/statistics": {"experiments.statistics"},
}


def sources(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, folder
    return files


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether at module level."""
    tree = ast.parse(file.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module or ""]
        yield from ((name, id(node) not in inside) for name in names)


def belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder: str) -> None:
    for file in sources(folder):
        for module, _ in imports(file):
            if module.split(".")[0] in OURS:
                assert any(belongs(module, package) for package in ALLOWED[folder]), f"{file} imports {module}"


def test_statistics_know_no_training() -> None:
    for file in sources("experiments/statistics"):
        for module, _ in imports(file):
            assert module.split(".")[0] not in {"torch", "transformers", "gin", "accelerate"}, f"{file}: {module}"


def test_gin_is_imported_in_one_place_of_the_core() -> None:
    for folder in ("core", "estimators", "variants"):
        users = [str(f.relative_to(ROOT)) for f in sources(folder) if any(belongs(m, "gin") for m, _ in imports(f))]
        assert users == (["core/gin_text.py"] if folder == "core" else [])


OPTIONAL = {
    "vllm",
    "deepspeed",
    "peft",
    "wandb",
    "trackio",
    "tensorboard",
    "mlflow",
    "ray",
    "submitit",
    "reasoning_gym",
    "gguf",
    "math_verify",
    "latex2sympy2_extended",
    "sympy",
    "pyarrow",
    "datasets",
}
PROGRAMS = {"core/rewards/math_worker.py"}
"""Run in processes of their own, never imported."""


def test_optional_packages_are_imported_only_when_used() -> None:
    for folder in OURS:
        for file in sources(folder):
            early = {module.split(".")[0] for module, is_top_level in imports(file) if is_top_level}
            assert not early & OPTIONAL or str(file.relative_to(ROOT)) in PROGRAMS, file


def test_the_machine_knows_no_method_by_name() -> None:
    """Neither as a name nor inside a string; documentation and comments may speak of them."""
    for file in sources("core"):
        text = file.read_text()
        documentation = {
            node.body[0].value.lineno
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in (tokenize.NAME, tokenize.STRING) or token.start[0] in documentation:
                continue
            words = {token.string} if token.type == tokenize.NAME else set(token.string.strip("frb'\"").split())
            assert not words & set(VARIANTS), f"{file}:{token.start[0]}: {token.string}"
