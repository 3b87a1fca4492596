"""What a study declares before its first run: arms, metric, test, failure handling, and what it predicts."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import core.parts.registry as registry
from core import GrpoLabError, Part, setting
from core.errors import near, similar
from core.loop.recipe import LAST_MODELS
from core.parts.registry import REQUIRED
from core.parts.settings import COUNT, NOT_NEGATIVE, Range, SettingError, shown
from experiments.statistics.looks import Looks
from experiments.statistics.predictions import Prediction
from experiments.statistics.racing import MIN_SEEDS

MAX_LENGTH_OF_LABEL: Final = 120
"""In bytes: a letter beyond English takes two or more."""
TAKEN: Final = ("study.json", "report.html", "tables", "figures")
"""Names in a study's folder that no arm can have."""
MAX_SEEDS: Final = 100_000
METRICS: Final = ("accuracy", "lenient_accuracy", "greedy_accuracy", "pass_at_k", "adjusted_accuracy")
PREDICTABLE: Final = (
    *(*METRICS, "length", "length_correct", "length_incorrect", "truncated", "entropy"),
    *("turns", "tool_calls", "tool_failures", "turn_rewards"),
)


@dataclass(frozen=True)
class Arm:
    """A label and the gin bindings that set it apart."""

    label: str
    bindings: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """What is expected, and why, declared before the first run."""

    question: str
    source: str
    predictions: tuple[str, ...]


@dataclass(frozen=True)
class StudySettings:
    """What is declared before the first run; anything that is not is exploratory."""

    name: str
    arms: tuple[Arm, ...]
    baseline: str
    metric: str
    scalar: str
    axis: str | None
    family: str
    alpha: float
    margin: float
    margin_declared: bool
    failures: str
    floor: float
    threshold: float | None
    tuned: str | None
    seeds: tuple[int, ...]
    """Where the command line gives none."""
    questions: str
    race: bool
    looks: tuple[tuple[int, float], ...]
    claim: Claim | None
    reevaluate: int | None = None
    reevaluate_models: int = 1

    @property
    def may_end_early(self) -> bool:
        """Whether the study is raced or has looks."""
        return self.race or bool(self.looks)


@setting(
    limits={
        "alpha": Range(0, 0.5, "both"),
        "margin": Range(1e-9, 1),
        "seeds": NOT_NEGATIVE,
        "looks": NOT_NEGATIVE,
        "reevaluate": COUNT,
        "reevaluate_models": Range(1, LAST_MODELS),
    }
)
def compare(
    *,
    name: str = "study",
    variants: Sequence[Annotated[Part, "variant"]] = (),
    arms: Mapping[str, str | Sequence[str]] = REQUIRED,
    baseline: str | None = None,
    metric: str = "test/accuracy",
    scalar: Literal["final", "auc"] = "final",
    axis: Literal["sampled_tokens", "seconds", "steps"] | None = None,
    family: Literal["baseline", "all"] = "baseline",
    alpha: float = 0.05,
    margin: float | None = None,
    failures: Literal["worst", "intersect"] = "worst",
    floor: float = 0.0,
    threshold: float | None = None,
    tuned: str | None = None,
    seeds: int | Sequence[int] = 5,
    questions: Literal["fixed", "population"] = "fixed",
    race: bool = False,
    looks: Sequence[tuple[int, float]] = (),
    reevaluate: int | None = None,
    reevaluate_models: int = 1,
) -> StudySettings:
    """Declare a comparison: `variants` by reference, and `arms` as label to gin bindings.

    `metric` is SUITE/SUMMARY of the evaluations, reduced by `scalar` to `final`, the mean of the last evaluations of a
    run, or to `auc`, its mean over the whole budget. `axis`: what is equal, `sampled_tokens` (the default where
    `train.token_budget` is bound), `seconds` (where `train.seconds_budget` is) or `steps`. `margin` is the smallest
    effect of interest, in the metric's unit.
    `family` is `baseline` (every arm against it) or `all` pairs. `failures`: a run that fails because of the method
    keeps the worse of `floor` and its score before training (`worst`), or its seed leaves every arm (`intersect`).
    `threshold`: also report the budget at which the metric reaches it. `tuned`: the tuned.json that gives each arm its
    learning rate. `seeds`: how many, or which, in the order in which they are run. `questions`: the verdict is about
    these (`fixed`) or about questions like these (`population`). `race`: look after every seed, and stop when all is
    decided; or `looks` after so many seeds, each at its own level: ((8, 0.01), (12, 0.015), (20, 0.025)).
    `reevaluate`: the verdict rests on so many further questions, which every run's final model answers afterwards;
    with `reevaluate_models` 2 or 3 those of its last evaluations do, and a score is the mean over them, where they were
    kept (`evaluation.keep_models`).
    """
    labelled = _labelled(variants, arms)
    check_folder_name("compare.name", name)
    expected = declared_claim(set(labelled), _suite_of(metric))
    planned = check_seeds("compare.seeds", seeds)
    check_sequential(planned, race, looks, alpha)
    _check_together(
        metric.split("/")[1],
        scalar=scalar,
        questions=questions,
        failures=failures,
        sequential=race or bool(looks),
        has_claim=expected is not None,
    )
    _check_further(reevaluate, reevaluate_models, final_alone=scalar == "final" and not (race or looks))
    return StudySettings(
        name=name,
        arms=tuple(Arm(label, tuple(lines(own))) for label, own in labelled.items()),
        baseline=_baseline(baseline, labelled),
        metric=metric,
        scalar=scalar,
        axis=axis,
        family=family,
        alpha=alpha,
        margin=0.01 if margin is None else margin,
        margin_declared=margin is not None,
        failures=failures,
        floor=float(floor),
        threshold=threshold,
        tuned=tuned,
        seeds=planned,
        questions=questions,
        race=race,
        looks=tuple((int(n), float(level)) for n, level in looks),
        claim=expected,
        reevaluate=reevaluate,
        reevaluate_models=reevaluate_models,
    )


def _baseline(named: str | None, labelled: Collection[str]) -> str:
    """The arm that the others are compared with; the first, unless one is named."""
    base = next(iter(labelled)) if named is None else named
    if base not in labelled:
        raise GrpoLabError(f"compare.baseline = {shown(base)} is not an arm: {near(base, labelled)}")
    return base


def _suite_of(metric: str) -> str:
    """The suite of the declared metric, which must be one that a study can rest on."""
    if "/" not in metric or metric.split("/")[1] not in METRICS:
        hint = similar(metric, (f"test/{name}" for name in METRICS))
        raise GrpoLabError(
            f"compare.metric = {shown(metric)}: {hint}must be SUITE/NAME with NAME one of {', '.join(METRICS)}"
        )
    return metric.split("/")[0]


def _labelled(variants: Sequence[Part], arms: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The bindings of every arm by its label; at least one arm, no label twice."""
    labelled: dict[str, tuple[str, ...]] = {}
    for part in variants:
        if part.name in labelled:
            raise GrpoLabError(f"compare.variants has '{part.name}' twice: an arm is compared once; remove one")
        labelled[part.name] = (f"train.variant = @{part.name}()",)
    for label, bindings in dict(arms).items():
        if label in labelled:
            raise GrpoLabError(f"compare: two arms are called '{label}'; labels must differ")
        labelled[label] = (bindings,) if isinstance(bindings, str) else tuple(bindings)
    for label in labelled:
        check_folder_name("compare: arm label", label)
    if not labelled:
        raise GrpoLabError(
            "compare has no arms: bind compare.variants = [@grpo, @rloo] or compare.arms = {'label': 'binding'}"
        )
    return labelled


def _check_together(
    summary: str,
    *,
    scalar: str,
    questions: str,
    failures: str,
    sequential: bool,
    has_claim: bool,
) -> None:
    """Refuse settings of `compare` that exclude each other."""
    if sequential and (failures != "worst" or questions != "fixed" or has_claim):
        raise GrpoLabError(
            "a study that may end before its last seed (compare.race, compare.looks) takes failures = 'worst', "
            "questions = 'fixed' and no claim"
        )
    if questions == "population" and (scalar != "final" or summary != "accuracy" or has_claim):
        raise GrpoLabError(
            "compare.questions = 'population' takes compare.scalar = 'final', a metric SUITE/accuracy, and no claim"
        )


def _check_further(reevaluate: int | None, models: int, *, final_alone: bool) -> None:
    """Refuse further questions where the verdict does not rest on what runs end with, and models that nobody asks."""
    if models > 1 and reevaluate is None:
        raise GrpoLabError(
            f"compare.reevaluate_models = {models}: nothing is asked; bind compare.reevaluate, the number of further "
            "questions"
        )
    if reevaluate is not None and not final_alone:
        raise GrpoLabError(
            f"compare.reevaluate = {reevaluate}: final models are asked once all runs have ended, so it takes "
            "compare.scalar = 'final', no compare.race and no compare.looks"
        )


def check_folder_name(what: str, name: str) -> None:
    """Refuse a name that is no folder's, or leads out of the folder that it is in."""
    if name in TAKEN:
        raise GrpoLabError(
            f"{what} {shown(name)}: a study keeps a file or folder of its own under that name; choose another"
        )
    if not re.fullmatch(r"[\w+][\w.,+=-]*", name) or len(name.encode()) > MAX_LENGTH_OF_LABEL:
        raise GrpoLabError(
            f"{what} {shown(name)} names a folder: use at most {MAX_LENGTH_OF_LABEL} letters, digits, '_', '-', '.', "
            f"'=', ',' and '+'{'; ablate.names shortens the names of axes' if 'arm' in what else ''}"
        )


def lines(bindings: Sequence[str]) -> list[str]:
    """Bindings one by one; a string may hold several, a line each."""
    return [line.strip() for binding in bindings for line in binding.splitlines() if line.strip()]


@setting
def claim(*, question: str = REQUIRED, source: str = REQUIRED, predictions: Sequence[str] = REQUIRED) -> Claim:
    """What a study is expected to show: `predictions` such as 'dr_grpo < grpo on test/length_incorrect by 0.5'.

    With <, > or =, and the smallest difference of interest in the metric's unit; `source` says who expects it.
    """
    if not predictions:
        raise GrpoLabError("claim.predictions is empty: ['dapo > grpo on test/accuracy by 0.02']")
    return Claim(question, source, tuple(predictions))


def declared_claim(arms: set[str], suite: str) -> Claim | None:
    """The claim, if one is declared; every prediction must name existing arms and a known metric."""
    if not any(selector == "settings.claim" for selector, _ in registry.bindings_in_force()):
        return None
    declared: Claim = claim()
    for text in declared.predictions:
        try:
            prediction = Prediction.parse(text)
        except ValueError as error:
            raise GrpoLabError(f"claim.predictions: {error}") from None
        for arm in (prediction.arm, prediction.baseline):
            if arm not in arms:
                raise GrpoLabError(
                    f"claim.predictions: {text!r} is about '{arm}', which is not an arm: {near(arm, arms)}"
                )
        known = [f"{suite}/{name}" for name in PREDICTABLE]
        if prediction.metric not in known:
            raise GrpoLabError(f"claim.predictions: {text!r}: unknown metric: {near(prediction.metric, known)}")
    return declared


def check_seeds(where: str, seeds: int | Sequence[int]) -> tuple[int, ...]:
    """A number of seeds, or these: at least one, all different, none negative."""
    if isinstance(seeds, int) and seeds > MAX_SEEDS:
        raise SettingError(where, seeds, f"a number of seeds up to {MAX_SEEDS:,}, or a list of them")
    planned = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not planned or len(set(planned)) != len(planned) or min(planned) < 0:
        raise SettingError(where, seeds, "at least one seed, all different, none negative")
    return planned


def check_sequential(seeds: Sequence[int], race: bool, looks: Sequence[tuple[int, float]], alpha: float) -> None:
    """Refuse a race or looks that need more seeds."""
    if race and looks:
        raise GrpoLabError("a study is raced or has looks, not both: remove compare.race or compare.looks")
    if race and len(seeds) < MIN_SEEDS:
        raise GrpoLabError(
            f"compare.race with {len(seeds)} seeds: a race needs at least {MIN_SEEDS}; with fewer, looking after "
            "every seed costs more power than stopping early saves"
        )
    if looks:
        try:
            last = Looks(tuple((int(n), float(level)) for n, level in looks), alpha).looks[-1][0]
        except TypeError:
            raise GrpoLabError(
                f"compare.looks = {looks!r}: give pairs (seeds, level), e.g. ((8, 0.01), (12, 0.015), (20, 0.025))"
            ) from None
        except ValueError as error:
            raise GrpoLabError(f"compare.looks = {looks!r}: {error}") from None
        if last != len(seeds):
            raise GrpoLabError(f"compare.looks: the last look takes {last} seeds, but {len(seeds)} are declared")
