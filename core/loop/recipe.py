"""Everything that a run needs beside the maths, and the gin root `train` that assembles it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Final, Literal, TypeAlias

from core.errors import GrpoLabError
from core.generation.base import Generator, reports_distributions
from core.loop.chosen_providers import providers_for
from core.loop.evaluation_settings import TRUNCATION, EvaluationSettings, evaluation
from core.loop.scoring import start
from core.loop.source import Source
from core.loop.staleness import Staleness, UniformAge, check_staleness, most_updates
from core.model.optimizer import OptimizerSettings, adamw
from core.model.policy import PolicySettings, policy
from core.model.truncation import WHOLE, Truncation
from core.parts.contracts import setting
from core.parts.options import AdvantageOptions, RewardOptions
from core.parts.problems import Task
from core.parts.registry import REQUIRED, Part, as_part
from core.parts.settings import COUNT, NOT_NEGATIVE, POSITIVE, THREADS, Range
from core.parts.variant import Variant, chain

TrainerSupport: TypeAlias = Literal["full", "truncated"]
LEFT_OPEN: Final = ("correction", "denominator", "anchor")
"""Fields of a variant that `train` fills where the variant declares none."""
LAST_MODELS: Final = 3
"""Models of a run that may be asked further questions: those of its last evaluations."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run's complete description but for its seed."""

    variant: Variant
    task: Task
    policy: PolicySettings
    environment: Part | None
    """What answers the policy between its turns; None: a response is one turn."""
    max_turns: int
    step_seconds: float
    generator: Generator
    source: Source | None
    """Where responses come from; None: from the policy."""
    rewards: tuple[Part, ...]
    reward_weights: tuple[float, ...]
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    steps: int
    token_budget: int | None
    seconds_budget: float | None
    prompts: int
    group_size: int
    max_tokens: int
    temperature: float
    epochs: int
    minibatches: int
    staleness: Staleness
    micro_tokens: int
    threads: int
    checkpoint_every: int
    stored_groups: int
    providers: tuple[Part, ...]
    """What fills the batch fields that the variant's parts ask for."""
    truncation: Truncation = WHOLE
    """Of what is sampled to be trained on."""
    trainer_support: TrainerSupport = "full"
    """What the trainer's log-probabilities are of: whole distributions, or what the truncation left of them."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part in use."""
        environment = () if self.environment is None else (self.environment,)
        return (*self.variant.parts, *self.rewards, *environment, *self.providers)

    @property
    def cuts_trainer(self) -> bool:
        """Whether the trainer's distributions are cut down to the tokens that were kept in sampling."""
        return self.truncation.cuts and self.trainer_support == "truncated"

    def preflight(self) -> dict[str, str]:
        """Descriptions by rewards, generator and source, by name; raises `GrpoLabError` where one cannot work here."""
        descriptions = start(self.rewards, self.task)
        if hasattr(self.generator, "start"):
            descriptions["generator"] = self.generator.start()
        if self.source is not None and hasattr(self.source, "start"):
            descriptions["source"] = self.source.start(self)
        return descriptions

    @property
    def data(self) -> str:
        """Digests of what task, source and policy have read from files, which may change behind a path, or ""."""
        digests = (getattr(each, "digest", "") for each in (self.task, self.source, self.policy))
        return " ".join(digest for digest in digests if digest and isinstance(digest, str))

    @property
    def data_identities(self) -> tuple[str, ...]:
        """What in `preflight` may not change while a run lasts: data, models and principles, by their digests."""
        return ("source", *(part.name for part in self.rewards if RewardOptions.of(part).together))

    @property
    def warning(self) -> str | None:
        """What a result of this recipe would suffer from."""
        is_exact = self.source is not None or getattr(self.generator, "exact", False)  # what it samples is a test only
        if self.variant.corrections or self.variant.anchor == "sampler":
            return None
        if most_updates(self.staleness):
            return (
                f"variant '{self.variant.name}': responses are of older weights than those that learn from them "
                "(train.staleness), and nothing corrects for it: bind train.correction, e.g. @token_truncated"
            )
        if is_exact:
            return None
        return (
            f"variant '{self.variant.name}': the generator's probabilities are not exactly the trainer's, and nothing "
            "corrects for it: bind train.correction, e.g. @token_truncated"
        )

    @property
    def earlier_kept_steps(self) -> tuple[int, ...]:
        """The last steps before the end whose models may be kept; none where a budget ends the run at a step of its
        own.
        """
        return self._kept_steps[:-1]

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Those, and with a moving average the last step: the final model has the weights themselves."""
        return self.earlier_kept_steps if self.evaluation.ema_lag is None else self._kept_steps

    @property
    def _kept_steps(self) -> tuple[int, ...]:
        if self.token_budget is not None or self.seconds_budget is not None or self.evaluation.keep_models is False:
            return ()
        return self.evaluation.final_steps(self.steps)[-LAST_MODELS:]

    @property
    def updates(self) -> int:
        """Optimizer steps per rollout."""
        return self.epochs * self.minibatches


@setting(
    limits={
        "steps": COUNT,
        "token_budget": Range(1),
        "seconds_budget": POSITIVE,
        "prompts": COUNT,
        "group_size": COUNT,
        "max_tokens": COUNT,
        "max_turns": COUNT,
        "step_seconds": POSITIVE,
        "temperature": POSITIVE,
        **TRUNCATION,
        "epochs": COUNT,
        "minibatches": COUNT,
        "staleness": NOT_NEGATIVE,
        "micro_tokens": Range(1),
        "threads": THREADS,
        "checkpoint_every": COUNT,
        "stored_groups": NOT_NEGATIVE,
    }
)
def train(
    *,
    variant: Variant = REQUIRED,
    task: Task = REQUIRED,
    generator: Generator = REQUIRED,
    environment: Annotated[Part, "environment"] | None = None,
    source: Source | None = None,
    correction: Annotated[Part, "correction"] | Sequence[Annotated[Part, "correction"]] | None = None,
    denominator: Literal["all", "kept"] | None = None,
    anchor: Literal["trainer", "sampler", "loglinear"] | None = None,
    rewards: Sequence[Annotated[Part, "reward"]] | None = None,
    reward_weights: Sequence[float] | None = None,
    providers: Sequence[Annotated[Part, "provider"]] = (),
    steps: int = 40,
    token_budget: int | None = None,
    seconds_budget: float | None = None,
    prompts: int = 16,
    group_size: int = 8,
    max_tokens: int = 56,
    max_turns: int = 8,
    step_seconds: float = 30.0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    trainer_support: TrainerSupport = "full",
    epochs: int = 1,
    minibatches: int = 1,
    staleness: int | Annotated[UniformAge, "@uniform_age()"] = 0,
    micro_tokens: int = 16_384,
    threads: int = 1,
    checkpoint_every: int = 20,
    stored_groups: int = 2,
) -> Recipe:
    """The recipe of a run, which `core.loop.train.run` carries out.

    Each of `steps` rollout steps samples `group_size` responses of at most `max_tokens` tokens to `prompts` problems,
    then passes over them `epochs` times in `minibatches` updates. With a `source` the responses are its own instead.
    `staleness`: the updates between the weights that sample a group and the first that learns from it, a multiple of
    `epochs * minibatches`, or `@uniform_age()`, which draws it for every group; until there have been as many, groups
    are those of the first weights. `micro_tokens`: tokens per forward and backward pass, which bounds memory and
    changes the last bits only. `threads`: CPU threads, part of the recipe because they change the last bits.
    `correction` is the variants' that have none of their own, one or a chain: for generators whose probabilities are
    not the trainer's, and for stale responses; and so are `denominator` and `anchor` (`Variant`). `rewards` replaces
    the task's own. `providers` chooses where several fill the same batch field. `stored_groups`: groups per step whose
    responses are kept on disk. `token_budget`: a run ends before the step that would sample more tokens in training
    than this (discarded groups and greedy responses count), at the latest after `steps`; learning-rate schedules go by
    `steps`. `seconds_budget`: a run ends after the step that brings it to so many seconds of training, evaluation
    apart. `top_p`, `top_k`, `min_p`: responses are sampled from distributions cut down so
    (`core.model.truncation.Truncation`). `trainer_support` says what log-probabilities are then of, the sampler's and
    the trainer's alike: whole distributions ("full", log pi), or those that were sampled from ("truncated", log pi',
    which takes a small vocabulary). `environment` answers the policy between turns, the task's own unless given: an
    episode has at most `max_turns` of them and `max_tokens` tokens, those that the environment says included; one that
    takes over `step_seconds` to answer drops the group, as a reward does that fails.
    """
    chosen, weights = _rewards(task, rewards, reward_weights)
    corrections = chain(correction, "correction", "train.correction")
    variant = _completed(variant, corrections, denominator, anchor)
    recipe = Recipe(
        variant=variant.resolved(),
        task=task,
        policy=policy(),
        environment=_environment(task, environment),
        max_turns=max_turns,
        step_seconds=step_seconds,
        generator=generator,
        source=source,
        rewards=tuple(part.resolved() for part in chosen),
        reward_weights=weights,
        optimizer=adamw(),
        evaluation=evaluation(),
        steps=steps,
        token_budget=token_budget,
        seconds_budget=seconds_budget,
        prompts=prompts,
        group_size=group_size,
        max_tokens=max_tokens,
        temperature=temperature,
        epochs=epochs,
        minibatches=minibatches,
        staleness=staleness,
        micro_tokens=micro_tokens,
        threads=threads,
        checkpoint_every=checkpoint_every,
        stored_groups=stored_groups,
        providers=providers_for(variant, providers),
        truncation=Truncation(top_p, top_k, min_p),
        trainer_support=trainer_support,
    )
    return _checked(recipe)


def _checked(recipe: Recipe) -> Recipe:
    """The same; raises `GrpoLabError` where settings do not go together."""
    variant, source, evaluated = recipe.variant, recipe.source, recipe.evaluation
    updates = {"epochs": recipe.epochs, "minibatches": recipe.minibatches}
    sizes = {"prompts": recipe.prompts, "group_size": recipe.group_size, "minibatches": recipe.minibatches}
    _check_budgets(source, recipe.token_budget, recipe.seconds_budget)
    _check_entropies(evaluated, variant, recipe.generator, source)
    _check_truncation(recipe.truncation, recipe.trainer_support, recipe.generator, source)
    _check_final_samples(evaluated, recipe.steps, recipe.token_budget, recipe.seconds_budget)
    check_staleness(recipe.staleness, variant, source, **updates)
    _check_sizes(variant, source, **sizes)
    return recipe


def _completed(variant: Variant, *given: Any) -> Variant:
    """The variant with these values of the fields `LEFT_OPEN` wherever it does not declare any itself."""
    plain = {field.name: field.default for field in fields(Variant)}
    values = zip(LEFT_OPEN, given, strict=True)
    return replace(variant, **{name: x for name, x in values if x and getattr(variant, name) == plain[name]})


def _environment(task: Task, given: Part | None) -> Part | None:
    """What answers between turns: the task's own unless another is given."""
    chosen = getattr(task, "environment", None) if given is None else given
    return None if chosen is None else as_part(chosen, "environment", "train.environment").resolved()


def _rewards(
    task: Task, rewards: Sequence[Part] | None, reward_weights: Sequence[float] | None
) -> tuple[tuple[Part, ...], tuple[float, ...]]:
    """The reward functions, the task's unless others are given, and the weight of each, 1 unless given."""
    chosen = tuple(as_part(r, "reward", "train.rewards") for r in rewards) if rewards is not None else task.rewards
    weights = tuple(float(w) for w in reward_weights) if reward_weights is not None else (1.0,) * len(chosen)
    if not chosen or len(chosen) != len(weights):
        raise GrpoLabError(
            f"train.rewards has {len(chosen)} functions, train.reward_weights {len(weights)} weights: one each"
        )
    return chosen, weights


def _check_budgets(source: Source | None, token_budget: int | None, seconds_budget: float | None) -> None:
    """Raise where more than one thing, or nothing, would end the run."""
    if seconds_budget is not None and token_budget is not None:
        raise GrpoLabError(
            f"train.seconds_budget = {seconds_budget} and train.token_budget = {token_budget}: a run is ended by one "
            "of them; remove the other"
        )
    if source is not None and token_budget is not None:
        raise GrpoLabError(
            f"train.token_budget = {token_budget}, but with train.source nothing is sampled to be trained on, and it "
            "would end no run: bind train.seconds_budget or train.steps alone"
        )


def _check_final_samples(
    settings: EvaluationSettings, steps: int, token_budget: int | None, seconds_budget: float | None
) -> None:
    """Raise where it is not known beforehand which evaluations are the last, and for fewer samples than without."""
    final = settings.final_samples
    if final is None:
        return
    budgets = {"train.token_budget": token_budget, "train.seconds_budget": seconds_budget}
    for name, budget in budgets.items():
        if budget is not None:
            raise GrpoLabError(
                f"evaluation.final_samples = {final} and {name} = {budget}: which evaluations are the last is known "
                "once the budget is spent. Bind evaluation.samples instead, or compare.reevaluate: it asks the final "
                "models further questions"
            )
    scored = len(settings.final_steps(steps))
    if final < scored * settings.samples:
        raise GrpoLabError(
            f"evaluation.final_samples = {final}: the final score is a mean of {scored} evaluations with "
            f"evaluation.samples = {settings.samples} each, so it rests on {scored * settings.samples} samples a "
            "question already: give as many or more"
        )


def _check_entropies(
    settings: EvaluationSettings, variant: Variant, generator: Generator, source: Source | None
) -> None:
    """Raise where the entropies of what tokens are drawn from are asked of who does not know them."""
    needs = "behaviour_entropy" in variant.needs
    if needs and source is not None:
        raise GrpoLabError(
            f"variant '{variant.name}' needs behaviour_entropy, but with train.source nobody knows what the responses "
            "were drawn from: leave out the part that asks for it"
        )
    if (settings.surprise or needs) and not reports_distributions(generator):
        asks = "evaluation.surprise = True" if settings.surprise else f"variant '{variant.name}'"
        raise GrpoLabError(
            f"{asks} takes the entropies of what tokens are drawn from, which this train.generator does not give: bind "
            "train.generator = @native(), or leave it out"
        )


def _check_truncation(
    truncation: Truncation, trainer_support: TrainerSupport, generator: Generator, source: Source | None
) -> None:
    """Raise where nothing is sampled that could be cut, and where what is kept is asked of who does not know it."""
    if truncation.cuts and source is not None:
        raise GrpoLabError(
            f"{truncation.bound('train')}, but with train.source nothing is sampled to be trained on: leave it out"
        )
    if truncation.cuts and trainer_support == "truncated" and not reports_distributions(generator):
        raise GrpoLabError(
            f"{truncation.bound('train')} and train.trainer_support = 'truncated', but this train.generator does not "
            "tell which tokens it kept, and with others the trainer's probabilities would be of another distribution "
            "than the sampler's: bind train.trainer_support = 'full', or train.generator = @native()"
        )


def _check_sizes(variant: Variant, source: Source | None, *, prompts: int, group_size: int, minibatches: int) -> None:
    """Raise where a rollout of so many groups of so many responses is not what the parts can do with."""
    if minibatches > prompts:
        raise GrpoLabError(f"train.minibatches = {minibatches} is more than the {prompts} groups of a rollout")
    if source is not None and source.group_size != group_size:
        raise GrpoLabError(
            f"train.group_size = {group_size}, but train.source has {source.group_size} responses to a prompt: bind "
            f"train.group_size = {source.group_size}"
        )
    if variant.kl_target is not None and variant.kl_horizon <= prompts * group_size / 5:
        raise GrpoLabError(
            f"variant '{variant.name}': with kl_horizon={variant.kl_horizon} and {prompts * group_size} responses a "
            f"rollout the KL coefficient could fall to 0 at once: raise it, well above {prompts * group_size / 5:g}"
        )
    chosen = variant.selection.settings().get("k") if variant.selection is not None else None
    if chosen is not None and chosen.value > group_size:
        raise GrpoLabError(
            f"train.group_size = {group_size}, but selection {variant.selection!r} is to choose {chosen.value} of "
            "them: raise train.group_size or lower its k"
        )
    least = AdvantageOptions.of(variant.advantage).min_group
    if group_size < least:
        raise GrpoLabError(
            f"train.group_size = {group_size}, but advantage '{variant.advantage.name}' of variant '{variant.name}' is "
            f"defined from {least} samples per prompt up; raise train.group_size or choose another advantage"
        )
