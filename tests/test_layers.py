"""The house stands: imports go one way, gin stays where it belongs, and the machine knows no method by name."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from core import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
OURS = {"core", "estimators", "variants", "experiments"}

# The plan of the house: a floor may use what is below it, and rooms on one floor know nothing of each other.
# A room that ends in "/" is a folder with all that is in it; "core" and "experiments" are the loose files that
# everybody uses.
PLAN = (
    ("core",),
    ("core/parts/", "core/store/"),
    ("core/model/",),
    ("core/generation/",),
    ("core/loop/",),
    ("core/environments/", "estimators/"),
    ("variants/",),
    ("experiments", "experiments/statistics/", "experiments/bases/", "experiments/check/"),
    ("experiments/bridges/",),
    ("experiments/results/",),
    ("experiments/study/", "experiments/report/"),
    ("experiments/plots/",),
    ("experiments/memory/", "experiments/lens/"),
    ("experiments/launchers/",),
    ("experiments/planning/", "experiments/feedback/", "experiments/doctor/"),
    ("experiments/lab/",),
    ("experiments/cli/",),
    ("experiments/maintenance/",),
)
NARROW = {
    "estimators/": {"core", "core/parts/", "estimators/"},
    "variants/": {"core", "core/parts/", "estimators/", "variants/"},
    "experiments/bridges/": {
        "core",
        "core/parts/",
        "core/generation/",
        "core/loop/",
        "estimators/",
        "variants/",
        "experiments/bridges/",
    },
    "experiments/statistics/": {"experiments/statistics/"},
}
"""Rooms that may use less than what is below them."""
FLOOR = {room: floor for floor, rooms in enumerate(PLAN) for room in rooms}
DOOR = "core/__init__.py"
"""The public names: `from core import ...` is what parts are written with, and counts as `core/parts/`."""


def sources(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, folder
    return files


@cache
def imports(file: Path) -> tuple[tuple[str, bool], ...]:
    """Every module that a file imports, and whether at module level; what is imported from a package, by its name."""
    tree = ast.parse(file.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [name for name in submodules if file_of(name)]
            names = [*submodules, *([node.module or ""] if len(submodules) < len(node.names) else [])]
        found += [(name, id(node) not in inside) for name in names]
    return tuple(found)


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = ROOT / module.replace(".", "/")
    ours = module.split(".")[0] in OURS
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if ours and f.is_file()), None)


def room_of(place: str) -> str:
    """The room of a file, given by its place in the project."""
    if place == DOOR:
        return "core/parts/"
    return next((room for room in FLOOR if room.endswith("/") and place.startswith(room)), place.split("/")[0])


def place_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def test_quick_tests_leave_out_programs_that_grade_and_the_rooms_of_studies() -> None:
    """`make quick` runs all that lies below these, and what is new there."""
    made = subprocess.run(["make", "-n", "quick"], cwd=ROOT, capture_output=True, text=True, check=True)
    left_out = {f"{name}/" for name in re.findall(r"--ignore=tests/(\S+)", made.stdout)}
    studies = {room for room in FLOOR if FLOOR[room] >= FLOOR["experiments/study/"]}
    assert left_out == studies | {"core/environments/"}


def upward(file: Path, place: str) -> list[str]:
    """The imports of a file that a file at this place may not have."""
    room = room_of(place)
    may = NARROW.get(room, {other for other in FLOOR if FLOOR[other] < FLOOR[room]} | {room})
    targets = ((module, file_of(module)) for module, _ in imports(file))
    used = ((module, room_of(place_of(target))) for module, target in targets if target)
    return [f"{place} ({room}) imports {module} ({other})" for module, other in used if other not in may]


def arrows() -> dict[str, set[str]]:
    """Which of our files every one of them imports, wherever in it that is."""
    found = {}
    for file in (file for folder in OURS for file in sources(folder)):
        targets = (file_of(module) for module, _ in imports(file))
        found[place_of(file)] = {place_of(target) for target in targets if target and target != file}
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """The files that import themselves through others, and those on a way from one circle to another."""
    left = dict(arrows)
    while ends := [f for f, targets in left.items() if not targets & left.keys()]:
        left = {f: targets for f, targets in left.items() if f not in ends}
    while starts := left.keys() - {target for targets in left.values() for target in targets}:
        left = {f: targets for f, targets in left.items() if f not in starts}
    return sorted(left)


def test_every_file_has_a_room_and_every_room_files() -> None:
    assert {room_of(place_of(file)) for folder in OURS for file in sources(folder)} == FLOOR.keys()
    loose = {place_of(f) for folder in ("core", "experiments") for f in (ROOT / folder).glob("*.py")}
    in_core = ("__init__", "device", "distributed", "errors", "printable", "randomness", "web")
    in_experiments = ("__init__", "options", "setup", "terminal")
    everybodys = {f"core/{name}.py" for name in in_core} | {f"experiments/{name}.py" for name in in_experiments}
    assert loose == everybodys, "a new file gets a room; loose are only those that everybody uses"


def test_no_room_uses_one_above_it() -> None:
    assert not [found for folder in OURS for file in sources(folder) for found in upward(file, place_of(file))]


def test_no_file_imports_itself_through_others() -> None:
    assert not circles(arrows())


@pytest.mark.parametrize(
    ("place", "line", "says"),
    [
        ("core/model/planted.py", "from core.loop.train import run", "imports core.loop.train (core/loop/)"),
        ("core/loop/planted.py", "import core.environments.tasks.files", "core.environments.tasks.files (core/env"),
        ("core/planted.py", "from core.parts.batch import Batch", "core/planted.py (core) imports core.parts.batch"),
        ("estimators/planted.py", "from core.loop import train", "imports core.loop.train (core/loop/)"),
        ("experiments/statistics/planted.py", "from core.errors import near", "imports core.errors (core)"),
        ("experiments/results/planted.py", "def late():\n    from experiments.study.study import Study", "study.study"),
    ],
)
def test_a_planted_import_upward_is_seen(tmp_path: Path, place: str, line: str, says: str) -> None:
    file = tmp_path / "planted.py"
    file.write_text(f"{line}\n")
    (found,) = upward(file, place)
    assert says in found


def test_a_planted_circle_is_seen() -> None:
    one, other = "core/loop/one.py", "core/loop/other.py"
    found = arrows() | {one: {other, "core/errors.py"}, other: {one}}
    found["core/loop/train.py"] = found["core/loop/train.py"] | {one}
    assert circles(found) == [one, other]


def test_statistics_know_no_training() -> None:
    for file in sources("experiments/statistics"):
        for module, _ in imports(file):
            assert module.split(".")[0] not in {"torch", "transformers", "gin", "accelerate"}, f"{file}: {module}"


def test_gin_is_imported_in_two_files_of_the_core() -> None:
    for folder in ("core", "estimators", "variants"):
        users = [str(f.relative_to(ROOT)) for f in sources(folder) if any(belongs(m, "gin") for m, _ in imports(f))]
        assert users == (["core/parts/gin_reader.py", "core/parts/gin_text.py"] if folder == "core" else [])


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
    "trl",
}
ABOUT = {
    "experiments/bridges/trl/generating.py",
    "experiments/bridges/trl/trainer.py",
    "experiments/bridges/verl/runner.py",
    "experiments/bridges/verl/seeds.py",
    "experiments/bridges/verl/trainer.py",
    "experiments/maintenance/conformance/trl_reference.py",
}
"""About one of these, and imported late themselves."""
PROGRAMS = {"core/environments/rewards/math_worker.py"}
"""Run in processes of their own, never imported."""


def test_optional_packages_are_imported_only_when_used() -> None:
    for folder in OURS:
        for file in sources(folder):
            early = {module.split(".")[0] for module, is_top_level in imports(file) if is_top_level}
            assert not early & OPTIONAL or place_of(file) in PROGRAMS | ABOUT, file


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


MAX_LINES, MAX_FUNCTION_LINES = 400, 60


def too_long(place: str, text: str) -> list[str]:
    """A file, and the functions in it, that have too many lines; their signatures and docstrings do not count."""
    lines = len(text.splitlines())
    found = [f"{place}: {lines} lines"] if lines > MAX_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
            length = (node.end_lineno or 0) - first.lineno + 1 - docstring
            found += [f"{place}: {node.name} has {length} lines"] if length > MAX_FUNCTION_LINES else []
    return found


@pytest.mark.parametrize("folder", sorted(OURS))
def test_files_and_functions_can_be_read_in_one_go(folder: str) -> None:
    assert [each for file in sources(folder) for each in too_long(place_of(file), file.read_text())] == []


def test_a_function_and_a_file_that_are_too_long_are_seen() -> None:
    body = "".join(f"    x = {i}\n" for i in range(61))
    rest = body.partition("\n")[2]
    assert too_long("a.py", f"def f():\n{body}") == ["a.py: f has 61 lines"]
    assert too_long("a.py", f'def f():\n    """One\n    two."""\n{rest}') == []
    assert too_long("b.py", "x = 1\n" * 401) == ["b.py: 401 lines"]
