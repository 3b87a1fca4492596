"""A study: arms x seeds under one recipe, declared before its first run."""

import hashlib
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
from core import SETTINGS, GrpoLabError, Part, Variant, setting
from core.errors import near
from core.evaluation import suites_at
from core.policy import locate
from core.recipe import Recipe
from core.registry import REGISTRIES, REQUIRED
from core.store import read_json, write_json

CONFIGS: Final = Path(__file__).parent / "configs"
LEAST_EVALUATIONS: Final = 3
"""After step 0: the final score is a mean over the last three evaluations or more, none of them of the base model."""
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
        _check_folder_name("compare: arm label", label)
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
    if not 0 < alpha < 0.5 or (margin is not None and margin <= 0):
        raise GrpoLabError("compare.alpha must be between 0 and 0.5, and compare.margin positive")
    _check_folder_name("compare.name", name)
    split = tuple(Arm(label, tuple(lines(b))) for label, b in labelled.items())
    return StudySettings(
        name=name, arms=split, baseline=base, metric=metric, scalar="final", axis="steps", family=family, alpha=alpha,
        margin=0.01 if margin is None else margin, margin_declared=margin is not None,
    )  # fmt: skip


def _check_folder_name(what: str, name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise GrpoLabError(f"{what} {name!r} names a folder: use letters, digits, '_', '-' and '.'")


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
    bound: Mapping[str, Mapping[tuple[str, str], str]]
    """Every binding in force, by arm: (selector, parameter) to value, as text."""

    @property
    def declaration(self) -> dict[str, Any]:
        """What is hashed and shown in every report."""
        s, recipe = self.settings, next(iter(self.recipes.values()))
        return {
            "metric": s.metric, "scalar": s.scalar, "axis": s.axis, "budget": recipe.steps, "baseline": s.baseline,
            "family": s.family, "alpha": s.alpha, "margin": s.margin, "margin_declared": s.margin_declared,
            "failures": "intersect", "seeds": list(self.seeds),
            "arms": {arm.label: list(arm.bindings) for arm in s.arms},
            "config": self.config.splitlines(),
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """Digest of the declaration."""
        return hashlib.blake2b(json.dumps(self.declaration).encode(), digest_size=8).hexdigest()

    def card(self, label: str) -> dict[str, str]:
        """The arm's axis card, and what its providers cost."""
        recipe = self.recipes[label]
        costs = "; ".join(str(part.options["cost"]) for part in recipe.providers)
        return {**recipe.variant.card(), "extra cost": costs or "none"}

    def confounded(self) -> list[str]:
        """A sentence for every arm that differs from the baseline in more than one respect."""
        base, sentences = self.settings.baseline, []
        for label, recipe in self.recipes.items():
            changes = recipe.variant.changes(self.recipes[base].variant)
            ours, theirs = (_beside_the_maths(self.bound[x], self.recipes[x].variant) for x in (label, base))
            changes += sorted(
                f"{k[0].split('.')[-1]}.{k[1]}" for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)
            )
            if len(changes) > 1:
                sentences.append(
                    f"'{label}' and '{base}' differ in {len(changes)} respects ({'; '.join(changes)}): a verdict is "
                    "about all of them together"
                )
        return sentences

    def varies(self, label: str) -> list[str]:
        """Which hashes of a run may differ from the baseline's at a seed, because the arm binds what they come from."""
        ours, base = self.bound[label], self.bound[self.settings.baseline]
        keys = [key for key in ours.keys() | base.keys() if ours.get(key) != base.get(key)]
        return sorted({name for key in keys for name in _feeds(*key)})

    def declare(self, folder: Path, command: str) -> None:
        """Write the study file before the first run; refuse a folder in which another study was declared."""
        path = folder / "study.json"
        if path.is_file():
            before = read_json(path)
            if before.get("hash") != self.hash:
                now = json.loads(json.dumps(self.declaration))
                changed = [k for k in now if before.get("declaration", {}).get(k) != now[k]]
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
                            "card": self.card(arm.label),
                            "varies": self.varies(arm.label)}
                for arm in self.settings.arms
            },
        })  # fmt: skip


def find_config(name: str) -> str:
    """A gin file as given, or the shipped one of that name."""
    if Path(name).is_file():
        return name
    shipped = CONFIGS / (name if name.endswith(".gin") else f"{name}.gin")
    if shipped.is_file():
        return str(shipped)
    known = [path.stem for path in CONFIGS.glob("*.gin")]
    raise GrpoLabError(
        f"config file not found: {name} (looked in {Path.cwd()} and among the shipped; {near(Path(name).stem, known)})"
    )


def prepare_study(files: Sequence[str], bindings: Sequence[str], seeds: Sequence[int]) -> Study:
    """Read a study from gin and build every arm once, so that every mistake shows before anything runs.

    Raises `GrpoLabError` for unknown names, for bindings without effect (an arm's own in that arm, shared ones in all
    arms) and for recipes that cannot work.
    """
    with registry.config(files, bindings, include_from=[CONFIGS]):
        settings: StudySettings = build("compare") if _has_arms() else build("compare", arms={})
        used = registry.bindings_used()
        shared = set(registry.bindings_in_force())
        # the run's own text: what declares the study must not change a run's identity
        text = "".join(
            line for line in registry.config_text().splitlines(keepends=True) if not line.startswith("compare.")
        )
    recipes: dict[str, Recipe] = {}
    bound: dict[str, Mapping[tuple[str, str], str]] = {}
    for arm in settings.arms:
        with registry.config(bindings=arm.bindings):
            own = set(registry.bindings_in_force())
        with registry.config(text=text, bindings=arm.bindings):
            try:
                recipe: Recipe = build("train")
                bound[arm.label] = {key: repr(value) for key, value in registry.bindings_in_force().items()}
                registry.refuse_unused(own, registry.bindings_used(), recipe.parts, [recipe.variant.name])
            except GrpoLabError as error:
                raise GrpoLabError(f"arm '{arm.label}': {error}") from error
            used |= registry.bindings_used() | own
        recipes[arm.label] = recipe
    parts = [part for recipe in recipes.values() for part in recipe.parts]
    registry.refuse_unused(sorted(shared), used, parts, [r.variant.name for r in recipes.values()])
    _check(settings, recipes)
    _refuse_twins(recipes, bound)
    return Study(settings, tuple(seeds), text, recipes, bound)


def _check(settings: StudySettings, recipes: Mapping[str, Recipe]) -> None:
    """Refuse what would show only after the runs: budgets, models, suites, too few evaluations, arms that are one."""
    if len({recipe.steps for recipe in recipes.values()}) > 1:
        raise GrpoLabError("the arms differ in train.steps: the budget must be the same for all")
    suite = settings.metric.split("/")[0]
    for label, recipe in recipes.items():
        locate(recipe.policy.model)
        for split in ("train", *suites_at(recipe, 0)):
            recipe.task.problem(split, recipe.evaluation.seed, 0)
        if suite not in suites_at(recipe, 0):
            raise GrpoLabError(
                f"compare.metric = '{settings.metric}': arm '{label}' has no test suite '{suite}': "
                f"{near(suite, suites_at(recipe, 0))}"
            )
        times = sum(suite in suites_at(recipe, step) for step in range(1, recipe.steps + 1))
        if times < LEAST_EVALUATIONS:
            raise GrpoLabError(
                f"compare.metric = '{settings.metric}': '{suite}' would be evaluated {times} times after step 0, and "
                f"the final score is a mean over at least {LEAST_EVALUATIONS}; lower evaluation.every (now "
                f"{recipe.evaluation.every}) or raise train.steps (now {recipe.steps}). Further suites are evaluated "
                "at the ends only: to judge one, bind evaluation.split to it"
            )


def _refuse_twins(recipes: Mapping[str, Recipe], bound: Mapping[str, Mapping[tuple[str, str], str]]) -> None:
    """Refuse two arms that would run the same: under identical seeds they would be equal to the last bit."""
    seen: dict[Any, str] = {}
    for label, recipe in recipes.items():
        variant = recipe.variant
        rest = _beside_the_maths(bound[label], variant)
        shown = (*map(repr, (variant.advantage, variant.objective, variant.aggregator)), *variant.card().items())
        key = (shown, tuple(sorted(rest.items())))
        if key in seen:
            raise GrpoLabError(
                f"arm '{label}' does the same as arm '{seen[key]}': the same axis card and settings; what it binds has "
                "no effect there (a KL estimator at a coefficient of 0, say)"
            )
        seen[key] = label


def _beside_the_maths(bound: Mapping[tuple[str, str], str], variant: Variant) -> dict[tuple[str, str], str]:
    """An arm's bindings but for those of the variant and its parts."""
    maths = {part.selector for part in variant.parts} | {f"variants.{variant.name}"}
    return {k: v for k, v in bound.items() if k[0] not in maths and k != ("settings.train", "variant")}


def _feeds(selector: str, parameter: str) -> tuple[str, ...]:
    """Which hashes of a run a binding can change; the maths, the optimizer and the evaluation change none of them."""
    kind = selector.split(".")[0]
    if selector == "settings.policy":
        return ("initial_weights", "prompts", "first_rollout")
    if kind == "tasks" or (selector == "settings.train" and parameter in ("task", "prompts")):
        return ("prompts", "first_rollout")
    sampling = ("generator", "group_size", "max_tokens", "temperature", "threads")
    if kind == "generators" or (selector == "settings.train" and parameter in sampling):
        return ("first_rollout",)
    return ()


def build(name: str, **arguments: Any) -> Any:
    """Call a bundle of settings; a value of the wrong kind is a readable mistake, not a traceback."""
    try:
        return SETTINGS[name](**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise GrpoLabError(
            f"{name} cannot be built from this config: {error}. Numbers stand without quotes, a part is @name, and "
            "what makes a variant, task or generator is called: @name()"
        ) from error


def _has_arms() -> bool:
    return ("settings.compare", "arms") in registry.bindings_in_force()


def facts(config: str, arm: Arm, seed: int) -> dict[str, Any]:
    """What a run's manifest says of where it came from; `identity` is what a resumed run must share."""
    with registry.config(text=config, bindings=arm.bindings):
        operative = registry.config_text()
    parts = [part for registry_ in REGISTRIES.values() for part in registry_.values()]
    sources = {p.function.__module__: p.source for p in parts if p.function.__module__.split(".")[0] not in OURS}
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
