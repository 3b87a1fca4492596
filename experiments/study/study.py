"""A study: arms x seeds under one recipe, declared before its first run."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import core.parts.registry as registry
from core import GrpoLabError, Variant
from core.errors import near
from core.loop.evaluation import reevaluated, suites_at
from core.loop.recipe import LEFT_OPEN, Recipe
from core.loop.scoring import start
from core.model.loading import locate
from core.parts.bindings import bindings_used, excused, refuse_unused
from core.parts.gin_reader import Key
from core.parts.options import ProviderOptions
from core.store.integrity import checksum
from experiments.study.ablation import Ablation, declared_ablation
from experiments.study.configs import CONFIGS, DECLARING, build, run_text
from experiments.study.settings import Arm, StudySettings
from experiments.study.tuned import PARAMETER, tuned_rates

MIN_EVALUATIONS: Final = 3
"""After step 0: the final score is a mean over the last three evaluations or more, none of them of the base model."""
BUDGETS: Final = {"sampled_tokens": "token_budget", "seconds": "seconds_budget", "steps": "steps"}
"""The recipe's setting for the budget, by axis."""


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
    ablation: Ablation | None = None
    """The ablation that made the arms, where they were not listed one by one."""

    @property
    def declaration(self) -> dict[str, Any]:
        """What is hashed and shown in every report."""
        s, recipe = self.settings, next(iter(self.recipes.values()))
        return {
            "metric": s.metric,
            "scalar": s.scalar,
            "axis": self.axis,
            "budget": getattr(recipe, BUDGETS[self.axis]),
            "baseline": s.baseline,
            "family": s.family,
            "alpha": s.alpha,
            "margin": s.margin,
            "margin_declared": s.margin_declared,
            "failures": s.failures,
            "floor": s.floor,
            "threshold": s.threshold,
            "seeds": list(self.seeds),
            "questions": s.questions,
            "race": s.race,
            "looks": s.looks,
            "claim": asdict(s.claim) if s.claim else None,
            **({"ablation": self.ablation.declaration} if self.ablation else {}),
            **({"tuned": s.tuned} if s.tuned else {}),
            **({"reevaluate": s.reevaluate} if s.reevaluate else {}),
            **({"reevaluate_models": s.reevaluate_models} if s.reevaluate_models > 1 else {}),
            **({"data": self.data} if self.data else {}),
            "arms": {arm.label: list(arm.bindings) for arm in s.arms},
            "config": self.config.splitlines(),
        }

    @property
    def axis(self) -> str:
        """What the budget is counted in; as bound, or the budget that ends the runs."""
        recipe = next(iter(self.recipes.values()))
        bound = (axis for axis, name in BUDGETS.items() if axis != "steps" and getattr(recipe, name) is not None)
        return self.settings.axis or next(bound, "steps")

    @property
    def data(self) -> dict[str, str]:
        """By arm, a digest of the questions, answers and responses that were read from files."""
        return {label: recipe.data for label, recipe in self.recipes.items() if recipe.data}

    @property
    def hash(self) -> str:
        """Digest of the declaration."""
        return checksum(self.declaration)

    def card(self, label: str) -> dict[str, str]:
        """The arm's axis card, and what its providers cost."""
        recipe = self.recipes[label]
        costs = "; ".join(f"{part.name}: {ProviderOptions.of(part).cost}" for part in recipe.providers)
        return {**recipe.variant.card(), "extra cost": costs or "none"}

    def confounded(self) -> list[str]:
        """A sentence for every arm that differs from the baseline in more than one respect."""
        base, sentences = self.settings.baseline, []
        joint = self.ablation.joint(base) if self.ablation else []
        if joint:
            sentences.append(
                f"{len(joint)} of the other {len(self.recipes) - 1} arms differ from '{base}' on several axes, as the "
                "design means it: each verdict is about all of these together"
            )
        for label, recipe in self.recipes.items():
            if label in joint:
                continue
            changes = recipe.variant.changes(self.recipes[base].variant)
            variants = [self.recipes[x].variant for x in (label, base)]
            ours, theirs = (_bindings_outside(self.bound[x], *variants) for x in (label, base))
            beside = {f"{selector.split('.')[-1]}.{name}" for selector, name in _respects(ours, theirs)}
            # what was tuned equally for both is part of the method, not a second respect
            changes += sorted(beside - ({PARAMETER} if self.settings.tuned else set()))
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


def prepare_study(files: Sequence[str], bindings: Sequence[str], seeds: Sequence[int] | None = None) -> Study:
    """Read a study from gin and build every arm once, so that every mistake shows before anything runs.

    `seeds` replace those that the config declares.

    Raises `GrpoLabError` for unknown names, for bindings without effect (an arm's own in that arm, shared ones in all
    arms) and for recipes that cannot work.
    """
    given = [] if seeds is None else [f"compare.seeds = {list(seeds)}"]
    with registry.config(files, [*bindings, *given], include_from=[CONFIGS]):
        ablation = declared_ablation()
        settings: StudySettings = build("compare", **_arms(ablation))
        places = registry.places()
        # what only a declaration refers to counts as unused
        used = {key for key in bindings_used() if key[0].removeprefix("settings.") in DECLARING}
        used |= excused()
        shared = {key for key in registry.bindings_in_force() if key[0] != "settings.tune"}  # for another command
        text = run_text()
    if ablation:
        with registry.config(text=text, bindings=ablation.shared, places=places, origin=_origin(places)):
            places |= registry.places()
            shared |= set(registry.bindings_in_force())
            text = run_text()
    if settings.tuned:
        arms = {arm.label: arm.bindings for arm in settings.arms}
        rates = tuned_rates(settings.tuned, arms, text.splitlines(), settings.seeds)
        tuned = tuple(Arm(label, (*own, f"{PARAMETER} = {rates[label]!r}")) for label, own in arms.items())
        settings = replace(settings, arms=tuned)
    recipes: dict[str, Recipe] = {}
    bound: dict[str, Mapping[tuple[str, str], str]] = {}
    for arm in settings.arms:
        try:
            with registry.config(text=text, bindings=arm.bindings, places=places, origin=_origin(places)):
                if ablation is None and not settings.tuned:  # whose arms replace what they are made from
                    registry.refuse_doubled(arm.bindings)
                own = registry.keys_of(arm.bindings)
                recipe: Recipe = build("train")
                bound[arm.label] = {key: repr(value) for key, value in registry.bindings_in_force().items()}
                refuse_unused(own, bindings_used(), recipe.parts, [recipe.variant.name])
                used |= bindings_used() | own
        except GrpoLabError as error:
            raise GrpoLabError(f"arm '{arm.label}': {error}") from error
        recipes[arm.label] = recipe
    parts = [part for recipe in recipes.values() for part in recipe.parts]
    refuse_unused(sorted(shared), used, parts, [r.variant.name for r in recipes.values()], places)
    _check(settings, recipes)
    _refuse_equal_arms(recipes, bound)
    return Study(settings, settings.seeds, text, recipes, bound, ablation)


def _origin(places: Mapping[tuple[str, str], str]) -> str:
    """Where the arms of a config are written down."""
    keys = (("settings.ablate", "axes"), ("settings.compare", "arms"), ("settings.compare", "variants"))
    return next((places[key] for key in keys if key in places), "")


def _arms(ablation: Ablation | None) -> dict[str, Any]:
    """The arms to pass to `compare`: those of an ablation, none where it binds its own (nothing to add), or no arms."""
    bound = {key[1]: value for key, value in registry.bindings_in_force().items() if key[0] == "settings.compare"}
    if ablation is None:
        return {} if "arms" in bound else {"arms": {}}
    for name in ("arms", "variants"):
        if bound.get(name):
            raise GrpoLabError(
                f"this config declares arms twice: by ablate.axes and by compare.{name}; remove one of them (from an "
                f"included file: compare.{name} = {'{}' if name == 'arms' else '[]'})"
            )
    return {"arms": ablation.arms, "variants": ()}


def _check(settings: StudySettings, recipes: Mapping[str, Recipe]) -> None:
    """Refuse what would show only after the runs: budgets, models, suites, too few evaluations.
    --"""
    for name in BUDGETS.values():
        if len({getattr(recipe, name) for recipe in recipes.values()}) > 1:
            raise GrpoLabError(f"the arms differ in train.{name}: the budget must be the same for all")
    recipe = next(iter(recipes.values()))
    if settings.axis and getattr(recipe, BUDGETS[settings.axis]) is None:
        raise GrpoLabError(
            f"compare.axis = '{settings.axis}' needs the budget that runs are to spend: bind "
            f"train.{BUDGETS[settings.axis]}"
        )
    for axis, name in BUDGETS.items():
        if settings.axis not in (None, axis) and axis != "steps" and getattr(recipe, name) is not None:
            raise GrpoLabError(
                f"compare.axis = '{settings.axis}', but train.{name} ends the runs at different steps: remove one of "
                "them"
            )
    suite = settings.metric.split("/")[0]
    for label, recipe in recipes.items():
        locate(recipe.policy.model)
        start(recipe.rewards, recipe.task)
        for split in ("train", *suites_at(recipe, 0)):
            recipe.task.problem(split, recipe.evaluation.seed, 0)
        if suite not in suites_at(recipe, 0):
            raise GrpoLabError(
                f"compare.metric = '{settings.metric}': arm '{label}' has no test suite '{suite}': "
                f"{near(suite, suites_at(recipe, 0))}"
            )
        times = sum(suite in suites_at(recipe, step) for step in range(1, recipe.steps + 1))
        if times < MIN_EVALUATIONS:
            raise GrpoLabError(
                f"compare.metric = '{settings.metric}': '{suite}' would be evaluated {times} times after step 0, and "
                f"the final score is a mean over at least {MIN_EVALUATIONS}: {_evaluate_more(recipe)}. Further suites "
                "are evaluated at the ends only: to judge one, bind evaluation.split to it"
            )
        if settings.reevaluate:
            _check_further(settings.reevaluate, settings.reevaluate_models, recipe, suite)
        if settings.metric.endswith("/adjusted_accuracy") and not recipe.evaluation.surprise:
            raise GrpoLabError(
                f"compare.metric = '{settings.metric}' takes the surprise of every answer: bind evaluation.surprise = "
                "True"
            )
        if recipe.evaluation.final_samples is not None:
            _check_final_samples(settings, recipe, label)


def _evaluate_more(recipe: Recipe) -> str:
    """Which number of steps, or which distance of evaluations, gives enough of them."""
    every, steps = recipe.evaluation.every, recipe.steps
    enough = f"train.steps = {MIN_EVALUATIONS * every} (now {steps})"
    if steps < MIN_EVALUATIONS:
        return f"bind {enough}" if every == 1 else f"bind train.steps = {MIN_EVALUATIONS} and evaluation.every = 1"
    return f"bind evaluation.every = {steps // MIN_EVALUATIONS} (now {every}) or {enough}"


def _check_further(further: int, models: int, recipe: Recipe, suite: str) -> None:
    """Refuse more further questions than there are, and models that no run keeps."""
    if reevaluated(suite) in suites_at(recipe, 0):
        raise GrpoLabError(
            f"compare.reevaluate: the task has a suite '{reevaluated(suite)}' of its own: give it another name"
        )
    size, evaluated = recipe.task.size(suite) if hasattr(recipe.task, "size") else math.inf, recipe.evaluation.questions
    if recipe.evaluation.ema_lag is not None and not recipe.kept_steps:
        raise GrpoLabError(
            f"compare.reevaluate = {further}: what evaluation.ema_lag averages is kept where runs end after "
            "train.steps, not with a budget, and unless evaluation.keep_models = False: leave one of them out"
        )
    if models > 1 and len(recipe.earlier_kept_steps) < models - 1:
        raise GrpoLabError(
            f"compare.reevaluate_models = {models}: models of earlier evaluations are kept where runs end after "
            "train.steps, not with a budget, and unless evaluation.keep_models = False: bind "
            "compare.reevaluate_models = 1, to ask the final models alone"
        )
    if evaluated + further > size:
        raise GrpoLabError(
            f"compare.reevaluate = {further}: '{suite}' has {size} questions, and evaluations ask {evaluated} of them "
            f"(evaluation.questions): give at most {max(0, size - evaluated)}"
        )


def _check_final_samples(settings: StudySettings, recipe: Recipe, label: str) -> None:
    """Refuse samples on which no score would rest."""
    final = f"evaluation.final_samples = {recipe.evaluation.final_samples} of arm '{label}'"
    if settings.scalar != "final":
        raise GrpoLabError(
            f"{final}: with compare.scalar = '{settings.scalar}' a score rests on all evaluations: bind "
            "evaluation.samples, or compare.scalar = 'final'"
        )
    if settings.metric.endswith("/greedy_accuracy"):
        raise GrpoLabError(
            f"{final}: compare.metric = '{settings.metric}' rests on greedy answers, one a question: bind "
            "evaluation.questions, or a metric of sampled answers"
        )


def _refuse_equal_arms(recipes: Mapping[str, Recipe], bound: Mapping[str, Mapping[tuple[str, str], str]]) -> None:
    """Refuse two arms that would run the same: under identical seeds they would be equal to the last bit."""
    seen: dict[Any, str] = {}
    for label, recipe in recipes.items():
        variant = recipe.variant
        rest = _bindings_outside(bound[label], variant)
        shown = (*map(repr, (variant.advantage, variant.objective, variant.aggregator)), *variant.card().items())
        key = (shown, tuple(sorted(rest.items())))
        if key in seen:
            raise GrpoLabError(
                f"arm '{label}' does the same as arm '{seen[key]}': the same axis card and settings; what it binds has "
                "no effect there (a KL estimator at a coefficient of 0, say)"
            )
        seen[key] = label


def _bindings_outside(bound: Mapping[tuple[str, str], str], *variants: Variant) -> dict[tuple[str, str], str]:
    """An arm's bindings but for those of these variants and their parts."""
    maths = {part.selector for v in variants for part in v.parts} | {f"variants.{v.name}" for v in variants}
    fields = {("settings.train", name) for name in ("variant", *LEFT_OPEN)}
    return {k: v for k, v in bound.items() if k[0] not in maths and k not in fields}


def _respects(ours: Mapping[Key, str], theirs: Mapping[Key, str]) -> set[Key]:
    """Bindings that differ, but for those of a part that came or went with another of them: these are one change."""
    apart = {k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)}
    exchanged = {name for k in apart for name in _named(ours.get(k, "")) ^ _named(theirs.get(k, ""))}
    return {k for k in apart if k[0].split(".")[-1] not in exchanged}


def _named(value: str) -> set[str]:
    """The names of the parts that a value refers to, as gin text."""
    return {each.split(".")[-1] for each in re.findall(r"@(?:\w+/)*([\w.]+)", value)}


def _feeds(selector: str, parameter: str) -> tuple[str, ...]:
    """Which hashes of a run a binding can change; the maths, the optimizer and the evaluation change none of them."""
    kind = selector.split(".")[0]
    if selector == "settings.policy":
        return ("initial_weights", "prompts", "first_rollout")
    if kind in ("tasks", "sources") or (selector == "settings.train" and parameter in ("task", "prompts", "source")):
        return ("prompts", "first_rollout")
    sampling = ("generator", "group_size", "max_tokens", "temperature", "top_p", "top_k", "min_p", "threads")
    if kind == "generators" or (selector == "settings.train" and parameter in sampling):
        return ("first_rollout",)
    return ()
