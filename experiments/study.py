"""A study: arms x seeds under one recipe, declared before its first run."""

import hashlib
import inspect
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

import core.registry as registry
from core import SETTINGS, GrpoLabError, Part, setting
from core.errors import near
from core.recipe import Recipe
from core.registry import REQUIRED
from core.store import write_json

CONFIGS: Final = Path(__file__).parent / "configs"
METRICS: Final = ("accuracy", "lenient_accuracy", "greedy_accuracy", "pass_at_k")
OURS: Final = ("core", "estimators", "variants", "experiments")
LIBRARIES: Final = ("torch", "transformers", "accelerate", "numpy", "gin-config", "grpo-lab")


@dataclass(frozen=True)
class Arm:
    """A label and the gin bindings that set it apart."""

    label: str
    bindings: tuple[str, ...]


@dataclass(frozen=True)
class StudySettings:
    """What is declared before the first run; anything that is not is exploratory."""

    name: str
    arms: tuple[Arm, ...]
    baseline: str
    metric: str
    scalar: str
    axis: str
    family: str
    alpha: float
    margin: float
    margin_declared: bool


@setting
def compare(
    *,
    name: str = "study",
    variants: Sequence[Part] = (),
    arms: Mapping[str, str | Sequence[str]] = REQUIRED,
    baseline: str | None = None,
    metric: str = "test/accuracy",
    family: str = "baseline",
    alpha: float = 0.05,
    margin: float | None = None,
) -> StudySettings:
    """Declare a comparison: `variants` by reference, and `arms` as label to gin bindings.

    `metric` is SUITE/SUMMARY of the evaluations, reduced to `final`: the mean of the last evaluations of a run.
    `margin` is
    the smallest effect of interest, in the metric's unit. `family` is `baseline` (every arm against it) or `all` pairs.
    """
    labelled: dict[str, tuple[str, ...]] = {part.name: (f"train.variant = @{part.name}()",) for part in variants}
    for label, bindings in dict(arms).items():
        if label in labelled:
            raise GrpoLabError(f"compare: two arms are called '{label}'; labels must differ")
        labelled[label] = (bindings,) if isinstance(bindings, str) else tuple(bindings)
    for label in labelled:
        if not label.replace("_", "").replace("-", "").replace(".", "").isalnum() or label.startswith("."):
            raise GrpoLabError(f"compare: arm label {label!r} names a folder: use letters, digits, '_', '-' and '.'")
    if not labelled:
        raise GrpoLabError(
            "compare has no arms: bind compare.variants = [@grpo, @rloo] or compare.arms = {'label': 'binding'}"
        )
    base = baseline if baseline is not None else next(iter(labelled))
    if base not in labelled:
        raise GrpoLabError(f"compare.baseline = '{base}' is no arm: {near(base, labelled)}")
    if "/" not in metric or metric.split("/")[1] not in METRICS:
        raise GrpoLabError(f"compare.metric = '{metric}': must be SUITE/NAME with NAME one of {', '.join(METRICS)}")
    if family not in ("baseline", "all"):
        raise GrpoLabError(f"compare.family = '{family}': must be 'baseline' or 'all'")
    if not 0 < alpha < 1 or (margin is not None and margin <= 0):
        raise GrpoLabError("compare.alpha must be between 0 and 1, and compare.margin positive")
    split = tuple(Arm(label, tuple(lines(b))) for label, b in labelled.items())
    return StudySettings(
        name=name, arms=split, baseline=base, metric=metric, scalar="final", axis="steps", family=family, alpha=alpha,
        margin=0.01 if margin is None else margin, margin_declared=margin is not None,
    )  # fmt: skip


def lines(bindings: Sequence[str]) -> list[str]:
    """Bindings one by one; a string may hold several, a line each."""
    return [line.strip() for binding in bindings for line in binding.splitlines() if line.strip()]


@dataclass(frozen=True)
class Study:
    """A checked study, ready to run: every arm has been built once."""

    settings: StudySettings
    seeds: tuple[int, ...]
    config: str
    """Gin text shared by all arms; a change of the files it came from no longer matters."""
    recipes: Mapping[str, Recipe]

    @property
    def declaration(self) -> dict[str, Any]:
        """What is hashed and shown in every report."""
        s, recipe = self.settings, next(iter(self.recipes.values()))
        return {
            "metric": s.metric, "scalar": s.scalar, "axis": s.axis, "budget": recipe.steps, "baseline": s.baseline,
            "family": s.family, "alpha": s.alpha, "margin": s.margin, "margin_declared": s.margin_declared,
            "failures": "a seed that failed in any arm is removed from all", "seeds": list(self.seeds),
            "arms": {arm.label: list(arm.bindings) for arm in s.arms},
            "config": self.config.splitlines(),
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """Digest of the declaration."""
        return hashlib.blake2b(json.dumps(self.declaration).encode(), digest_size=8).hexdigest()

    def varies(self, label: str) -> list[str]:
        """Which hashes of a run may differ from the baseline's at a seed, because the arm varies their source."""
        ours, base = self.recipes[label], self.recipes[self.settings.baseline]
        prompts = ("task", "prompts", "policy")
        sampling = ("generator", "group_size", "max_tokens", "temperature", "threads")
        sources = {"initial_weights": ("policy",), "prompts": prompts, "first_rollout": (*prompts, *sampling)}
        return [h for h, fields in sources.items() if any(getattr(ours, f) != getattr(base, f) for f in fields)]

    def declare(self, folder: Path, command: str) -> None:
        """Write the study file before the first run; refuse a folder in which another study was declared."""
        path = folder / "study.json"
        if path.is_file():
            before = json.loads(path.read_text())
            if before["hash"] != self.hash:
                now = json.loads(json.dumps(self.declaration))
                changed = [k for k in now if before["declaration"].get(k) != now[k]]
                raise GrpoLabError(
                    f"{folder} holds a study that was declared otherwise (different: {', '.join(changed)}). A "
                    "declaration is not changed once runs exist, seeds included: give another --out or compare.name, "
                    "or remove the folder"
                )
            return
        write_json(path, {
            "name": self.settings.name, "hash": self.hash, "command": command, "declaration": self.declaration,
            "arms": {
                arm.label: {"bindings": list(arm.bindings), "variant": self.recipes[arm.label].variant.name,
                            "card": dict(self.recipes[arm.label].variant.card()),
                            "varies": self.varies(arm.label)}
                for arm in self.settings.arms
            },
        })  # fmt: skip


def prepare_study(files: Sequence[str], bindings: Sequence[str], seeds: Sequence[int]) -> Study:
    """Read a study from gin and build every arm once, so that every mistake shows before anything runs.

    Raises `GrpoLabError` for unknown names, for bindings without effect (an arm's own in that arm, shared ones in all
    arms) and for recipes that cannot work.
    """
    with registry.config(files, bindings, include_from=[CONFIGS]):
        settings: StudySettings = SETTINGS["compare"]() if _has_arms() else SETTINGS["compare"](arms={})
        used = registry.bindings_used()
        shared = set(registry.bindings_in_force())
        # the run's own text: what declares the study must not change a run's identity
        text = "".join(
            line for line in registry.config_text().splitlines(keepends=True) if not line.startswith("compare.")
        )
    recipes: dict[str, Recipe] = {}
    for arm in settings.arms:
        with registry.config(bindings=arm.bindings):
            own = set(registry.bindings_in_force())
        with registry.config(text=text, bindings=arm.bindings):
            try:
                recipe: Recipe = SETTINGS["train"]()
                registry.refuse_unused(own, registry.bindings_used(), recipe.parts, [recipe.variant.name])
            except GrpoLabError as error:
                raise GrpoLabError(f"arm '{arm.label}': {error}") from error
            used |= registry.bindings_used() | own
        recipes[arm.label] = recipe
    parts = [part for recipe in recipes.values() for part in recipe.parts]
    registry.refuse_unused(sorted(shared), used, parts, [r.variant.name for r in recipes.values()])
    if len({recipe.steps for recipe in recipes.values()}) > 1:
        raise GrpoLabError("the arms differ in train.steps: the budget must be the same for all")
    return Study(settings, tuple(seeds), text, recipes)


def _has_arms() -> bool:
    return ("settings.compare", "arms") in registry.bindings_in_force()


def facts(recipe: Recipe, config: str, arm: Arm, seed: int) -> dict[str, Any]:
    """What a run's manifest says of where it came from; `identity` is what a resumed run must share."""
    with registry.config(text=config, bindings=arm.bindings):
        operative = registry.config_text()
    theirs = {p.selector: p for p in recipe.parts if p.function.__module__.split(".")[0] not in OURS}
    sources = {name: _digest(inspect.getsource(inspect.unwrap(p.function))) for name, p in sorted(theirs.items())}
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "arm": arm.label,
        "identity": {
            "config": operative,
            "seed": seed,
            "source of your parts": sources,
            "library versions": versions,
        },
        "git": _revision(),
        "python": platform.python_version(),
        "hardware": _hardware(),
        "command": " ".join(sys.argv),
    }


def _hardware() -> str:
    """The processor and its vector instructions, which decide the last bits."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return f"{named[1] if named else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _revision() -> str | None:
    """Git revision of the code, if it is run from a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return result.stdout.strip() or None
