"""What installing asks for is what is imported; what is optional is imported late, and its absence names the remedy."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from core.environments.tasks.reasoning import reasoning_gym
from core.environments.tasks.rows import read_rows
from core.errors import GrpoLabError
from core.model.adapters import LoraSettings, add_adapters, merge_adapters
from core.model.loading import reading
from experiments.lab.frames import data_frame
from experiments.launchers import ray, slurm
from experiments.launchers.progress import Progress
from experiments.launchers.trackers import AVAILABLE

ROOT: Final = Path(__file__).parents[1]
OURS: Final = ("core", "estimators", "variants", "experiments")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final[Mapping[str, list[str]]] = PROJECT["optional-dependencies"]
DEVELOPERS: Final = {"docs", "mutations", "test"}
APART: Final = "core/environments/rewards/math_worker.py"
"""A program of its own, started where `math_answer` has found its packages."""
VERL: Final = ("command", "maths", "rollout", "runner", "seeds", "surface", "trainer", "worker")
ABOUT: Final = {
    **{f"experiments/bridges/trl/{name}.py": {"trl"} for name in ("generating", "trainer")},
    **{
        f"experiments/bridges/verl/{name}.py": {"verl", "hydra", "omegaconf", "ray", "tensordict", "transfer_queue"}
        for name in VERL
    },
}
"""Files that are about other packages, imported late by whatever has use for them."""
OPTIONAL: Final = {
    "datasets": None,  # asked for by its own name
    "deepspeed": "deepspeed",
    "hydra": None,  # comes with verl, as three others below
    "math_verify": "math",
    "omegaconf": None,
    "pandas": "notebook",
    "peft": "lora",
    "pyarrow": "parquet",
    "ray": "ray",
    "reasoning_gym": "real",
    "submitit": "slurm",
    "tensordict": None,
    "transfer_queue": None,
    "triton": None,  # comes with torch where there are CUDA devices
    "trl": "trl",
    "verl": None,  # asks for other versions than we do, and is there first
    "tensorboard": "tensorboard",
    "vllm": "vllm",
    "wandb": "wandb",
}
"""Modules that are imported, or looked for, where something asks for them, by the extra that installs them."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", requirement)[0].lower() for requirement in requirements}


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def imported() -> dict[str, set[bool]]:
    """Every module of others that what is installed imports, by whether that is done at the top of a file."""
    found: dict[str, set[bool]] = {}
    for file in sorted(file for folder in OURS for file in (ROOT / folder).rglob("*.py")):
        place = file.relative_to(ROOT).as_posix()
        if place == APART or place.startswith("experiments/maintenance/"):
            continue
        tree = ast.parse(file.read_text())
        its_own = ABOUT.get(place, set())
        typing = {id(each) for node in ast.walk(tree) if is_typing_only(node) for each in ast.walk(node)}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
        late = {id(each) for function in functions for each in ast.walk(function)}
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [str(node.module)]
            elif isinstance(node, ast.Call) and re.search(r"\b(import_module|find_spec)$", ast.unparse(node.func)):
                modules = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            for top in {module.split(".")[0] for module in modules} - {*sys.stdlib_module_names, *OURS}:
                if id(node) not in typing:
                    found.setdefault(top, set()).add(id(node) not in late and top not in its_own)
    return found


def test_what_is_asked_for_is_what_is_imported_beside_the_optional() -> None:
    distributions = packages_distributions()
    needed = {distributions[top][0].lower().replace("_", "-") for top in imported().keys() - OPTIONAL.keys()}
    assert needed == names(PROJECT["dependencies"])


def test_what_is_about_another_package_is_itself_imported_late() -> None:
    for file in sorted(file for folder in OURS for file in (ROOT / folder).rglob("*.py")):
        if file.relative_to(ROOT).as_posix() in ABOUT:
            continue
        body = ast.parse(file.read_text()).body
        at_top = {ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)}
        for place in ABOUT:
            assert not [line for line in at_top if place.removesuffix(".py").replace("/", ".") in line], file


def test_what_is_optional_is_imported_late_and_has_an_extra() -> None:
    assert {top for top, at_top in imported().items() if top in OPTIONAL and True not in at_top} == OPTIONAL.keys()
    for top, extra in OPTIONAL.items():
        assert extra is None or top.replace("_", "-") in names(EXTRAS[extra])


def test_every_extra_is_the_remedy_of_some_message_and_none_is_made_up() -> None:
    sources = "".join(file.read_text() for folder in ("core", "experiments") for file in (ROOT / folder).rglob("*.py"))
    named = set(re.findall(r"pip install 'grpo-lab\[([a-z-]+)\]'|or 'grpo-lab\[([a-z-]+)\]'", sources))
    assert {name for pair in named for name in pair if name} | AVAILABLE.keys() == EXTRAS.keys() - DEVELOPERS


def read_gguf() -> None:
    with reading("policy.model = 'a.gguf'", "tokenizer"):
        import gguf  # noqa: F401


NOWHERE: Final = Path("/nowhere")
USES: Final[Mapping[str, tuple[str, Callable[[], Any]]]] = {
    "datasets": ("pip install datasets", lambda: list(read_rows("datasets:an/id"))),
    "gguf": ("pip install 'grpo-lab[real]'", read_gguf),
    "pandas": ("pip install 'grpo-lab[notebook]'", lambda: data_frame([])),
    "peft": ("pip install 'grpo-lab[lora]'", lambda: add_adapters(None, LoraSettings(4, 8, "all"), "")),  # type: ignore[arg-type]
    "peft ": ("pip install 'grpo-lab[lora]'", lambda: merge_adapters(None, NOWHERE, "")),  # type: ignore[arg-type]
    "pyarrow": ("pip install 'grpo-lab[parquet]'", lambda: list(read_rows("rows.parquet"))),
    "ray": ("pip install 'grpo-lab[ray]'", lambda: ray.launch([], 1, progress())),
    "reasoning_gym": ("pip install 'grpo-lab[real]'", lambda: reasoning_gym(dataset="chain_sum")),
    "trl": ("pip install 'grpo-lab[trl]'", lambda: import_module("experiments.bridges.trl.trainer")),
    "submitit": ("pip install 'grpo-lab[slurm]'", lambda: slurm.launch([], 1, progress(), partition=None, minutes=1)),
}
"""What needs a package, and what its absence advises; those of vLLM, DeepSpeed, math-verify and trackers have tests of
their own."""


def progress() -> Progress:
    return Progress(1, 0, Console(file=StringIO()))


@pytest.mark.parametrize("use", USES)
def test_where_a_package_is_missing_the_message_says_how_to_install_it(
    use: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing, (remedy, call) = use.strip(), USES[use]
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    Path("rows.parquet").touch()
    with pytest.raises(GrpoLabError, match=re.escape(remedy)):
        call()
