"""The decorators by which parts are added: each states its signature, checks it, and registers the function.

    @advantage
    def median_baseline(batch: Batch) -> Tensor:
        '''Reward minus the median of its group.'''
        return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)    # [P, G]

Positional parameters are what the core hands in; keyword-only parameters with defaults are hyper-parameters, reachable
from gin as `median_baseline.name = value`.

Every decorator takes three optional descriptions. `axes` states what the part decides, axis by axis, as format strings
over its hyper-parameters. `published` states which defaults are the value that a paper or a library's code gives, and
which. `limits` bound a hyper-parameter, as a `Range` or a pair, both ends included; names that the part lacks are
ignored. What else a value must be is its annotation: `core.parts.settings`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Unpack

from torch import Tensor

from core.errors import GrpoLabError
from core.parts.batch import BATCH_FIELDS, OF_EPISODES, Batch
from core.parts.declaring import (
    Decorator,
    Function,
    bare_or_called,
    check_choice,
    check_defaults,
    check_signature,
    plain,
    where,
)
from core.parts.options import (
    FILLED_FIELDS,
    AdvantageOptions,
    AggregatorOptions,
    CorrectionOptions,
    CreditOptions,
    FieldShape,
    ObjectiveOptions,
    ProviderOptions,
    RewardOptions,
    fillable_fields,
    own_fields,
)
from core.parts.registry import Descriptions, Part, register

ROW_TENSORS: Final = (
    "logps",
    "old_logps",
    "advantages",
    "mask",
    "behaviour_logps",
    "behaviour_entropy",
    "token_age",
    "ref_logps",
    "values",
    "sum_squared_probs",
    "entropy",
    "turns",
    "lengths",
    "truncated",
    "rewards",
    "prepared",
)
"""What an objective may ask for by parameter name, beside providers' own fields [P, G] and [P, G, T]."""
FIELDS_OF_ESTIMATORS: Final = ("old_logps", "behaviour_logps", "behaviour_entropy", "reward_parts", "correct")
"""What an advantage or a credit may need, beside the fields that providers fill."""


@dataclass(frozen=True)
class TokenLoss:
    """An objective's token loss [B, T], with what it wants logged: name to [B, T], averaged over counted tokens."""

    loss: Tensor
    info: Mapping[str, Tensor] = field(default_factory=dict)


@bare_or_called
def advantage(
    function: Function,
    /,
    *,
    needs: tuple[str, ...] = (),
    min_group: int = 2,
    scope: Literal["group", "batch"] = "group",
    state: Callable[[], Any] | None = None,
    target: Function | None = None,
    **descriptions: Unpack[Descriptions],
) -> Part:
    """Register an advantage estimator: `(batch, *, hyper) -> [P, G]` or `[P, G, T]`, no gradient.

    `needs`: batch fields to be filled first, e.g. `("greedy_rewards",)`. `min_group`: smallest group size at which it
    is defined. `scope`: declares whether it reads one group or the whole batch. `state`: makes the initial state of a
    running estimator, then `(batch, state, *, hyper) -> (advantages, state)`; checkpointed. `target`: what a critic is
    to predict, `(batch, *, hyper) -> [P, G, T]`; its hyper-parameters are those of the estimator with the same names.
    """
    check_signature("advantage", function, [("batch", "state")] if state else [("batch",)])
    check_defaults("advantage", function)
    check_choice("advantage", function, "scope", scope, ("group", "batch"))
    if not isinstance(needs, tuple) or min_group < 1:
        raise GrpoLabError(
            f"{where('advantage', function)}: needs={needs!r} must be a tuple of field names, e.g. "
            f'("greedy_rewards",), and min_group={min_group} at least 1'
        )
    _check_needs("advantage", function, needs)
    takes = _target_takes(function, target) if target else frozenset()
    return register(
        "advantage", function, AdvantageOptions(needs, min_group, scope, state, target, takes), **descriptions
    )


def _check_needs(kind: str, function: Function, needs: tuple[str, ...]) -> None:
    """Refuse a field that no batch has."""
    allowed = (*fillable_fields(), *FIELDS_OF_ESTIMATORS)
    if set(needs) & set(OF_EPISODES):  # unasked, and of others nobody could fill them
        raise GrpoLabError(f"{where(kind, function)} needs {needs}: what episodes alone have is read, and may be None")
    if unknown := set(needs) - set(allowed):
        raise GrpoLabError(
            f"{where(kind, function)} needs {', '.join(sorted(unknown))}, which no batch has and no provider "
            f"fills; it may need: {', '.join(allowed)}, or a field of your own, whose @provider(fills=...) is written "
            "or imported above it"
        )


@bare_or_called
def objective(
    function: Function,
    /,
    *,
    level: Literal["row", "group"] = "row",
    prepare: Function | None = None,
    zero_at_zero_advantage: bool = False,
    **descriptions: Unpack[Descriptions],
) -> Part:
    """Register a policy objective: tensors asked for by name, `(logps, old_logps, advantages, mask, *, hyper)`.

    Returns the token loss [B, T], minimised, or a `TokenLoss`. Everything asked for is [B, T] (`lengths`,
    `truncated` and `rewards` are [B]). `level="group"` hands in and takes back [P, G, T], for losses that couple
    the rows of a group. `prepare` runs once per optimizer step on all rows without gradient; it too asks for tensors by
    name, for a keyed `generator`, and after a bare * for hyper-parameters of the objective; what it returns, [B, T],
    arrives as `prepared`. `zero_at_zero_advantage` declares that a row whose advantages are 0 has no loss and no
    gradient, so that the core may leave it out.
    """
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    allowed = row_tensors()
    unknown = [name for name in names if name not in allowed]
    if unknown or "logps" not in names:
        wrong = f"asks for {', '.join(unknown)}" if unknown else "does not ask for logps"
        raise GrpoLabError(
            f"{where('objective', function)} {wrong}; its positional parameters are logps and any of "
            f"{', '.join(allowed[1:])}; write hyper-parameters after a bare *"
        )
    if (prepare is not None) != ("prepared" in names):
        raise GrpoLabError(f"objective '{function.__name__}': `prepare` and the parameter `prepared` go together")
    check_defaults("objective", function)
    check_choice("objective", function, "level", level, ("row", "group"))
    takes, hyper = _prepare_takes(function, prepare) if prepare else ((), frozenset())
    options = ObjectiveOptions(level, prepare, takes, hyper, zero_at_zero_advantage)
    return register("objective", function, options, **descriptions)


def row_tensors() -> tuple[str, ...]:
    """What an objective may ask for by parameter name."""
    return (*ROW_TENSORS, *(name for name, shape in own_fields().items() if shape != "[P]"))


def _hyper(function: Function) -> frozenset[str]:
    """Names of the keyword-only parameters."""
    return frozenset(p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY)


def _target_takes(function: Function, target: Function) -> frozenset[str]:
    """Hyper-parameters that a `target` names, checked against those of its estimator."""
    names = _hyper(target)
    if wrong := names - _hyper(function):
        raise GrpoLabError(
            f"{where('advantage', function)}: `target` has hyper-parameters that the estimator has not: "
            f"{', '.join(sorted(wrong))}"
        )
    return names


def _prepare_takes(function: Function, prepare: Function) -> tuple[tuple[str, ...], frozenset[str]]:
    """Tensors and hyper-parameters that a `prepare` names, checked against what there is."""
    names = tuple(p.name for p in inspect.signature(prepare).parameters.values() if p.kind is not p.KEYWORD_ONLY)
    hyper = _hyper(prepare)
    allowed = [n for n in row_tensors() if n != "prepared"] + ["generator"]
    wrong = [n for n in names if n not in allowed] + sorted(hyper - _hyper(function))
    if wrong:
        raise GrpoLabError(
            f"{where('objective', function)}: `prepare` asks for {', '.join(wrong)}; it may take "
            f"{', '.join(allowed)}, and after a bare * hyper-parameters of the objective"
        )
    return names, hyper


@bare_or_called
def aggregator(function: Function, /, *, split_invariant: bool = True, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a loss aggregator: `(mask, *, max_tokens, group_size, turns, hyper) -> weights [B, T]`.

    `mask` holds all rows of ONE optimizer step, `group_size` of each prompt one after the other, and `turns` [B, T] the
    number of each token's turn, from 1; it names what it takes of the three. The loss is always
    `(weights * where(mask, token_loss, 0)).sum()`, so splitting the step into micro-batches changes nothing.
    `split_invariant=False` is declared by an aggregator that is to be computed on each micro-batch by itself, as some
    trainers do.
    """
    check_signature("aggregator", function, [("mask",)])
    supplied = ("max_tokens", "group_size", "turns")
    check_defaults("aggregator", function, supplied)
    if not split_invariant and "group_size" in inspect.signature(function).parameters:
        raise GrpoLabError(
            f"{where('aggregator', function)} takes group_size, and split_invariant=False has it computed on "
            "micro-batches, which may cut a group in two: leave one of them out"
        )
    return register("aggregator", function, AggregatorOptions(split_invariant), supplied, **descriptions)


def check_shape(part: Part, result: object, shape: Sequence[int]) -> None:
    """Refuse what a part returned if it is not a tensor of this shape: broadcasting would hide the mistake."""
    if not isinstance(result, Tensor) or tuple(result.shape) != tuple(shape):
        actual = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise GrpoLabError(f"{part.kind} '{part.name}' ({part.place}) returned {actual}, but must return {list(shape)}")


@bare_or_called
def kl(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register an estimator of the KL from the reference policy: `(logps, ref_logps[, old_logps]) -> [B, T]`."""
    return plain("kl", function, [("logps", "ref_logps"), ("logps", "ref_logps", "old_logps")], descriptions)


@bare_or_called
def correction(
    function: Function,
    /,
    *,
    weights: bool = True,
    scope: Literal["row", "step"] = "row",
    **descriptions: Unpack[Descriptions],
) -> Part:
    """Register a correction of the mismatch between sampler and trainer: tensors asked for by name, as an objective's.

    `(old_logps, behaviour_logps, mask, *, hyper)` to factors [B, T], which multiply the objective and not the KL, or to
    `(factors, keep)`, where `keep` [B, T] bool says which tokens stay in the loss, KL and entropy bonus included. It
    may also ask for `advantages`, `token_age` and any other tensor of the rows but the present policy's; all rows of
    one optimizer step are handed in, before the aggregator weighs them. `weights=False`: it takes tokens out and its
    factors are 1. `scope`: declares whether it reads one row or the whole step.
    """
    names = tuple(p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY)
    allowed = [name for name in row_tensors() if name not in ("logps", "entropy", "prepared")]
    unknown = [name for name in names if name not in allowed]
    if unknown or "mask" not in names:
        wrong = f"asks for {', '.join(unknown)}" if unknown else "does not ask for mask"
        raise GrpoLabError(
            f"{where('correction', function)} {wrong}; its positional parameters are old_logps, behaviour_logps, mask "
            f"and any of {', '.join(n for n in allowed if n not in ('old_logps', 'behaviour_logps', 'mask'))}; "
            "write hyper-parameters after a bare *"
        )
    check_defaults("correction", function)
    check_choice("correction", function, "scope", scope, ("row", "step"))
    return register("correction", function, CorrectionOptions(weights, scope), **descriptions)


@bare_or_called
def credit(function: Function, /, *, needs: tuple[str, ...] = (), **descriptions: Unpack[Descriptions]) -> Part:
    """Register a step of the credit chain: `(batch, advantages, *, hyper) -> advantages [P, G, T]`, no gradient.

    It runs after the advantage estimator, on the whole rollout. `needs`: batch fields to be filled first.
    """
    check_signature("credit", function, [("batch", "advantages")])
    check_defaults("credit", function)
    _check_needs("credit", function, needs)
    return register("credit", function, CreditOptions(needs), **descriptions)


@bare_or_called
def selection(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a selection of responses: `(batch, *, hyper) -> [P, G]` bool, equally many of every group.

    The others are left out of the loss and of every denominator. `Variant.statistics` says whether advantages are those
    among the responses that are left, or among all.
    """
    return plain("selection", function, [("batch",)], descriptions)


@bare_or_called
def value_loss(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a critic's loss: `(values, returns[, old_values], *, hyper) -> [B, T]`, differentiable in `values`.

    `old_values` are those before the rollout's updates.
    """
    return plain("value_loss", function, [("values", "returns"), ("values", "returns", "old_values")], descriptions)


@bare_or_called
def filter(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a group filter: `(batch, *, hyper) -> [P]` bool, the groups to train on."""
    return plain("filter", function, [("batch",)], descriptions)


@bare_or_called
def shaping(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a reward shaping: `(rewards, lengths, truncated, *, max_tokens, hyper) -> rewards`.

    All are [P, G] or, for greedy responses, [P].
    """
    return plain("shaping", function, [("rewards", "lengths", "truncated")], descriptions, ("max_tokens",))


@bare_or_called
def task(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a task: a function of hyper-parameters that returns a `Task`."""
    return plain("task", function, [()], descriptions)


@bare_or_called
def generator(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a generator: a function of hyper-parameters that returns a `Generator`."""
    return plain("generator", function, [()], descriptions)


@bare_or_called
def source(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a source of responses to train on: a function of hyper-parameters that returns a `Source`."""
    return plain("source", function, [()], descriptions)


@bare_or_called
def setting(function: Function, /, **descriptions: Unpack[Descriptions]) -> Part:
    """Register a bundle of settings: a function of hyper-parameters that returns plain data."""
    return plain("setting", function, [()], descriptions)


@bare_or_called
def reward(
    function: Function,
    /,
    *,
    parallel: bool = False,
    together: bool = False,
    start: Callable[..., str] | None = None,
    **descriptions: Unpack[Descriptions],
) -> Part:
    """Register a reward function: `(problem, response, *, hyper) -> float | bool | Score`, one response at a time.

    With a parameter `transcript` after the two it also gets an episode's turns, a tuple of `Turn`; `response` is then
    what the policy wrote last. `together` hands in all P problems with the G responses to each, `(problems, responses,
    *, hyper)`, and takes back P lists of G scores: for models, and for judges that compare the responses of a group.
    NaN means that a response could not be graded, and its group is dropped; a `GrpoLabError` means that nothing can be,
    and stops the run. `parallel` declares that it waits on other processes and may be called from several threads at a
    time. `start` is called once before anything runs, with the hyper-parameters by name, and with the task where it has
    a parameter `task`: it raises `GrpoLabError` where the reward cannot work, and returns a text for the manifest (such
    as the sandbox in force).
    """
    one = ("problems", "responses") if together else ("problem", "response")
    check_signature("reward", function, [one] if together else [one, (*one, "transcript")])
    check_defaults("reward", function)
    return register("reward", function, RewardOptions(parallel, together, start), **descriptions)


def provider(
    *, fills: str, cost: str, shape: FieldShape = "[P, G, T]", **descriptions: Unpack[Descriptions]
) -> Decorator:
    """Register a provider: `(run, *, hyper)`, called once at the start, returns a function from batch to one field.

    `fills` names the field; `cost` states in words what it takes, for reports (e.g. "one greedy response per prompt").
    A field of one's own, under a name that no batch has, is a tensor of this `shape`; an advantage `needs` it and reads
    `batch.require(name)`, an objective asks for it as a parameter. What is returned may have `state_dict()` and
    `load_state_dict()`, and is then checkpointed.
    """

    def add(function: Function) -> Part:
        check_signature("provider", function, [("run",)])
        check_defaults("provider", function)
        if fills not in FILLED_FIELDS:
            _check_own_field(function, fills, shape)
        return register("provider", function, ProviderOptions(fills, cost, shape), **descriptions)

    return add


def _check_own_field(function: Function, fills: str, shape: str) -> None:
    """Refuse a name that means something else already, and a shape that another provider of the field has not."""
    place = where("provider", function)
    if fills in {*BATCH_FIELDS, *dir(Batch), *ROW_TENSORS, "generator"}:
        raise GrpoLabError(
            f"{place} fills '{fills}', which is no field for a provider to fill: the core does; those are "
            f"{', '.join(FILLED_FIELDS)}, or a name of your own"
        )
    if not (isinstance(fills, str) and fills.isidentifier()):
        raise GrpoLabError(f"{place}: fills={fills!r} must be a name, e.g. fills='difficulty'")
    check_choice("provider", function, "shape", shape, ("[P]", "[P, G]", "[P, G, T]"))
    if own_fields().get(fills, shape) != shape:
        raise GrpoLabError(
            f"{place} fills '{fills}' as {shape}, but another provider fills it as {own_fields()[fills]}: "
            "give both the same shape, or one of the fields another name"
        )
