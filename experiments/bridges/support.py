"""What of a variant holds inside another trainer, exactly, approximately or not at all, from what was registered."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from core.errors import GrpoLabError
from core.parts.options import (
    AdvantageOptions,
    AggregatorOptions,
    CorrectionOptions,
    CreditOptions,
    ObjectiveOptions,
)
from core.parts.registry import Part
from core.parts.variant import Variant

Engine: TypeAlias = Literal["trl", "verl"]
Degree: TypeAlias = Literal["exact", "approximate", "not possible"]
ENGINES: Final[tuple[Engine, ...]] = get_args(Engine)
TITLES: Final[Mapping[Engine, str]] = MappingProxyType({"trl": "TRL", "verl": "verl"})


@dataclass(frozen=True)
class Line:
    """One part, or one setting, of a variant inside an engine."""

    subject: str
    """What it is about, e.g. `advantage remax needs greedy_rewards`."""
    degree: Degree
    why: str = ""
    """What it takes where that is anything, by what it is approximate, or why it is not possible."""


@dataclass(frozen=True)
class Answer:
    """How far an engine goes in one respect, and what is to be said about it."""

    degree: Degree
    why: str = ""


EXACT: Final = Answer("exact")
NO_CRITIC: Final = Answer("not possible", "the bridge trains no critic")
OWN_LOOP: Final = Answer("not possible", "a provider of the bench's loop fills it, and here the loop is another's")
FIELDS: Final[Mapping[Engine, Mapping[str, Answer]]] = {
    "trl": {
        "reward_parts": EXACT,
        "behaviour_logps": Answer("exact", "with use_vllm, or a rollout_func that returns logprobs"),
        "ref_logps": Answer("exact", "TRL loads a reference; beta is set to the variant's kl_coef"),
        "correct": Answer("exact", "--correct names the reward function whose value, from 1 up, is the verdict"),
        "greedy_rewards": Answer("exact", "one more greedy response to each prompt"),
        "sum_squared_probs": Answer("exact", "one more forward pass for each response"),
        "values": NO_CRITIC,
        "returns": NO_CRITIC,
        "token_rewards": Answer("not possible", "TRL's rewards are numbers for whole responses"),
        "step_ends": Answer("not possible", "TRL's rewards are numbers for whole responses"),
    },
    "verl": {
        "behaviour_logps": Answer("exact", "with actor_rollout_ref.rollout.calculate_log_probs=True"),
        "ref_logps": Answer("exact", "with actor_rollout_ref.actor.use_kl_loss=True, which loads the reference"),
        "correct": Answer("exact", "the reward function's `acc` above 0.5"),
        "reward_parts": Answer(
            "exact",
            "name them in actor_rollout_ref.grpolab.reward_parts; the reward function returns them beside score",
        ),
        "greedy_rewards": Answer("not possible", "verl trains on every response that it samples"),
        "sum_squared_probs": Answer("exact", "with actor_rollout_ref.model.use_fused_kernels=False"),
        "values": NO_CRITIC,
        "returns": NO_CRITIC,
        "token_rewards": Answer("not possible", "the bridge reads the sum of verl's rewards over a response"),
        "step_ends": Answer("not possible", "verl does not say where a step of a response ends"),
    },
}
"""Batch fields that not every rollout has, by engine; others than these and `PLAIN` are of a user's own providers."""
PLAIN: Final = frozenset(
    ("logps", "old_logps", "advantages", "mask", "lengths", "truncated", "rewards", "entropy", "prepared", "generator")
)
"""What is there in any trainer, and gets no line."""
GROUP_LEVEL: Final[Mapping[Engine, Answer]] = {
    "trl": Answer("exact", "with steps_per_generation = 1 and whole groups on every process: it reads a group at once"),
    "verl": Answer(
        "not possible",
        "verl spreads the rows of a group over processes and micro-batches, and the loss of one needs the others",
    ),
}
PREPARED: Final[Mapping[Engine, Answer]] = {
    "trl": Answer("exact", "one more forward pass for each response and optimizer step"),
    "verl": Answer(
        "approximate",
        "its preparation before each optimizer step sees the log-probabilities before the first step on a rollout; "
        "exact where there is one step to a rollout",
    ),
}
BLIND: Final = Answer("exact", "it reads neither advantages nor rewards: it imitates whatever is sampled, good or bad")
STATE: Final = Answer("exact", "what it remembers is saved in the trainer's checkpoints")
LOCAL: Final = Answer("not possible", "it averages over micro-batches, whose rows and number are the trainer's affair")
SPREAD: Final = Answer("not possible", "it counts by groups, and rows of a group may be in several optimizer steps")
WHOLE_STEP: Final = Answer(
    "not possible", "it reads, or recounts, all rows of an optimizer step, which here come in micro-batches"
)
NOT_SELECTED: Final = Answer("not possible", "the trainer trains on every response that it samples")
KL_TARGET: Final = Answer("exact", "the coefficient is saved in the trainer's checkpoints")
NOT_SAMPLED_ANEW: Final = Answer(
    "approximate",
    "groups that it leaves out are not sampled anew: such a step has fewer rows (as with filter_rounds=1)",
)


def support(engine: Engine, variant: Variant) -> list[Line]:
    """A line for every part and setting of a variant that acts, in the order of its card; needs no engine installed."""
    return [
        *_advantage(engine, variant.advantage),
        *_objective(engine, variant.objective),
        _line(variant.aggregator, _weighing(variant.aggregator)),
        *_kl(engine, variant),
        *_other_parts(engine, variant),
        *_settings(variant),
    ]


def refuse_impossible(engine: Engine, variant: Variant) -> None:
    """Raise `GrpoLabError` with everything of a variant that is not possible inside an engine, if anything is."""
    impossible = [line for line in support(engine, variant) if line.degree == "not possible"]
    if impossible:
        reasons = "; ".join(f"{line.subject}: {line.why}" for line in impossible)
        raise GrpoLabError(f"variant '{variant.name}' cannot be trained inside {TITLES[engine]}: {reasons}")


def reads_verdict(part: Part) -> bool:
    """Whether an advantage says that it needs `Batch.correct`, or a filter's code has the name."""
    if part.kind == "advantage":
        return "correct" in AdvantageOptions.of(part).needs
    code = inspect.unwrap(part.function).__code__
    return "correct" in (*code.co_names, *code.co_consts)


def _line(part: Part, answer: Answer, what: str = "") -> Line:
    return Line(f"{part.kind} {part.name}{what and f' {what}'}", answer.degree, answer.why)


def _needs(engine: Engine, part: Part, fields: tuple[str, ...]) -> Iterator[Line]:
    """A line for each batch field that is not there of itself."""
    for field in fields:
        if field not in PLAIN:
            yield _line(part, FIELDS[engine].get(field, OWN_LOOP), f"needs {field}")


def _advantage(engine: Engine, part: Part) -> Iterator[Line]:
    options = AdvantageOptions.of(part)
    yield _line(part, EXACT)
    yield from _needs(engine, part, options.needs)
    if options.scope == "batch":
        yield _line(part, Answer("exact", "over all processes"), "reads the whole rollout")
    if options.state is not None:
        yield _line(part, STATE, "remembers")


def _objective(engine: Engine, part: Part) -> Iterator[Line]:
    options = ObjectiveOptions.of(part)
    if options.level == "group":
        yield _line(part, GROUP_LEVEL[engine])
    else:
        blind = not {"advantages", "rewards"} & {*part.parameters, *options.prepare_takes}
        yield _line(part, PREPARED[engine] if options.prepare else BLIND if blind else EXACT)
    yield from _needs(engine, part, tuple(dict.fromkeys((*part.parameters, *options.prepare_takes))))


def _weighing(part: Part) -> Answer:
    if not AggregatorOptions.of(part).split_invariant:
        return LOCAL
    return SPREAD if part.takes("group_size") else EXACT


def _kl(engine: Engine, variant: Variant) -> Iterator[Line]:
    if variant.uses_kl:
        assert variant.kl is not None
        yield _line(variant.kl, FIELDS[engine]["ref_logps"], f"in the {variant.kl_place}")
    if variant.kl_target is not None:
        yield Line("kl_target", KL_TARGET.degree, KL_TARGET.why)


def _other_parts(engine: Engine, variant: Variant) -> Iterator[Line]:
    if variant.value_loss is not None:
        yield _line(variant.value_loss, NO_CRITIC)
    for part in variant.corrections:
        of_step = CorrectionOptions.of(part).scope == "step" or variant.denominator == "kept"
        yield _line(part, WHOLE_STEP if of_step else FIELDS[engine]["behaviour_logps"])
        yield from _needs(engine, part, tuple(name for name in part.parameters if name != "behaviour_logps"))
    if variant.anchor != "trainer":
        answer = FIELDS[engine]["behaviour_logps"] if variant.anchor == "sampler" else OWN_LOOP
        yield Line(f"anchor = {variant.anchor!r}", answer.degree, answer.why)
    for part in variant.credits:
        yield _line(part, EXACT)
        yield from _needs(engine, part, CreditOptions.of(part).needs)
    if variant.selection is not None:
        yield _line(variant.selection, NOT_SELECTED)
    if variant.filter is not None:
        yield _line(variant.filter, NOT_SAMPLED_ANEW if variant.filter_rounds > 1 else EXACT)
        if reads_verdict(variant.filter):
            yield from _needs(engine, variant.filter, ("correct",))
    for part in variant.shaping:
        yield _line(part, EXACT)


def _settings(variant: Variant) -> Iterator[Line]:
    """Those that act: they are tensors' affair in any trainer."""
    if variant.truncated == "mask":
        yield Line("truncated = 'mask'", "exact")
    if variant.entropy_coef:
        yield Line("entropy_coef", "exact")
    if variant.reward_clip is not None:
        yield Line("reward_clip", "exact")
