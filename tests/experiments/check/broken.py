"""Parts that each break one contract, which `test_contracts` must see refused."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from core import (
    ADVANTAGES,
    AGGREGATORS,
    OBJECTIVES,
    REWARDS,
    Batch,
    Part,
    Problem,
    TokenLoss,
    Variant,
)
from core.errors import GrpoLabError
from core.parts.options import (
    AdvantageOptions,
    AggregatorOptions,
    CorrectionOptions,
    CreditOptions,
    ObjectiveOptions,
    Options,
    RewardOptions,
)
from experiments.check.checks import Outcome
from experiments.check.suite import CHECKS

OPTIONS: dict[str, Callable[..., Options]] = {
    "advantage": AdvantageOptions,
    "objective": ObjectiveOptions,
    "aggregator": AggregatorOptions,
    "correction": CorrectionOptions,
    "credit": CreditOptions,
    "reward": RewardOptions,
}
BROKEN: dict[tuple[str, str], list[tuple[Part, str]]] = {}
"""(kind, check) to parts that the check must refuse, and a piece of what it must say."""


BINDINGS: dict[Part, tuple[str, ...]] = {}
"""What is bound while a part is checked, where something must be."""


def part_of(kind: str, function: Callable[..., Any], axes: dict[str, str] | None = None, **options: Any) -> Part:
    """A part that is not registered."""
    supplied = frozenset(("max_tokens", "group_size") if kind in ("aggregator", "shaping") else ())
    # resolved: what is not registered has no config to ask
    made = OPTIONS[kind](**options) if kind in OPTIONS else None
    return Part(kind, function, made, axes or {}, supplied=supplied, is_resolved=True)


def breaks(
    kind: str, check: str, reason: str = "", bindings: tuple[str, ...] = (), **options: Any
) -> Callable[[Callable[..., Any]], Part]:
    """Note down a part that breaks a contract."""

    def add(function: Callable[..., Any]) -> Part:
        part = part_of(kind, function, **options)
        BINDINGS[part] = bindings
        BROKEN.setdefault((kind, check), []).append((part, reason))
        return part

    return add


def outcome(part: Part, name: str) -> Outcome:
    """The outcome of the check of this name."""
    (check,) = [check for check in CHECKS[part.kind] if check.name == name]
    return check(part)


# advantages that break a contract


@breaks("advantage", "shape and numbers", r"\[1\] for P, G, T")
def one_for_a_group(batch: Batch) -> Tensor:
    return batch.rewards.mean(1)


@breaks("advantage", "shape and numbers", "dtype torch.int64")
def integers(batch: Batch) -> Tensor:
    return batch.rewards.argsort(1).argsort(1)


@breaks("advantage", "shape and numbers", "nan at")
def no_epsilon(batch: Batch) -> Tensor:
    centred = batch.rewards - batch.rewards.amin(1, keepdim=True)
    return centred / batch.rewards.std(1, keepdim=True)


@breaks("advantage", "shape and numbers", "ZeroDivisionError: .*broken.py")
def raises(batch: Batch) -> Tensor:
    return batch.rewards * (1 / 0)


@breaks("advantage", "smallest group", "nan .*groups of 1", min_group=1)
def others_of_one(batch: Batch) -> Tensor:
    others = (batch.rewards.sum(1, keepdim=True) - batch.rewards) / (batch.group_size - 1)
    return batch.rewards - others


@breaks("advantage", "no gradient", "kept in the state", state=list)
def keeps_a_graph(batch: Batch, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        mean = batch.rewards.mean()
    return batch.rewards - mean, [*state, mean]


@breaks("advantage", "permutation", "reordered rewards")
def minus_the_first(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards[:, :1]


@breaks("advantage", "permutation", "reordered rewards")
def ties_broken_by_place(batch: Batch) -> Tensor:
    best = torch.zeros_like(batch.rewards)
    return best.scatter(1, batch.rewards.argmax(1, keepdim=True), 1.0) - 1 / batch.group_size


@breaks("advantage", "padding", "three empty columns")
def by_width(batch: Batch) -> Tensor:
    return batch.rewards / batch.mask.shape[-1]


@breaks("advantage", "masked NaN", "nan outside the responses", needs=("old_logps",))
def product_with_the_mask(batch: Batch) -> Tensor:
    return batch.rewards + (batch.require("old_logps") * batch.response_mask).sum(-1)


@breaks("advantage", "same input, same output", "second call")
def noisy(batch: Batch) -> Tensor:
    return batch.rewards + torch.rand(batch.rewards.shape)


@breaks("advantage", "same input, same output", "global random generator")
def draws_for_nothing(batch: Batch) -> Tensor:
    torch.rand(3)
    return batch.rewards


@breaks("advantage", "inputs left alone", "rewards was changed in place")
def in_place(batch: Batch) -> Tensor:
    return batch.rewards.sub_(batch.rewards.mean(1, keepdim=True))


@breaks("advantage", "groups apart, as declared", "group . (alone|beside other groups)")
def mean_of_all(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards.mean()


@breaks("advantage", "groups apart, as declared", "alone")
def over_the_number_of_groups(batch: Batch) -> Tensor:
    return batch.rewards / batch.groups


@breaks("advantage", "declares what it reads", "greedy_rewards was not filled")
def undeclared(batch: Batch) -> Tensor:
    return batch.rewards - batch.require("greedy_rewards")[:, None]


@breaks("advantage", "state can be saved", "is of type builtins.function", state=lambda: {"mean": lambda: 0.0})
def unsaved(batch: Batch, state: Any) -> tuple[Tensor, Any]:
    return batch.rewards - state["mean"](), state


MEANS: dict[int, tuple[dict[str, float], float]] = {}
"""Beside the state, by its identity: lost in a checkpoint."""


@breaks("advantage", "state can be saved", "after saving and loading", state=dict, scope="batch")
def forgets(batch: Batch, state: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
    _, mean = MEANS.get(id(state), (state, 0.0))
    after: dict[str, float] = {}
    MEANS[id(after)] = (after, float(batch.rewards.mean()) + 1)
    return batch.rewards - mean, after


@breaks("advantage", "axes", "eps", axes={"std": "+ {eps:g}"})
def bad_axes(batch: Batch) -> Tensor:
    return batch.rewards


@breaks("advantage", "no spread, not nearly 0", "rewards of 1 get 0")
def float32_mean(batch: Batch) -> Tensor:
    return batch.rewards - batch.rewards.mean(1, keepdim=True)


@breaks("advantage", "no spread, not nearly 0", "for . rewards of", scope="batch")
def nearly_zero(batch: Batch) -> Tensor:
    centred = (batch.rewards - batch.rewards.double().mean(1, keepdim=True)).masked_fill(batch.no_spread[:, None], 0.0)
    return centred + 1e-17


@breaks("advantage", "no spread, not nearly 0", "the only group.*rewards of 1 get 0", scope="batch")
def whitened_in_float32(batch: Batch) -> Tensor:
    return (batch.rewards - batch.rewards.mean()) / (batch.rewards.std() + 1e-9)


# objectives


@breaks("objective", "shape and numbers", r"returned \[\], but must return")
def summed(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages * logps).sum()


@breaks("objective", "shape and numbers", "loss nan at")
def log_of_a_log(logps: Tensor) -> Tensor:
    return logps.log()


@breaks("objective", "what it logs", "'ratio' is ")
def logs_a_number(logps: Tensor, advantages: Tensor) -> TokenLoss:
    return TokenLoss(-advantages * logps, {"ratio": logps.mean()})


@breaks("objective", "what it logs", "'ratio' holds on to the graph")
def logs_a_graph(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> TokenLoss:
    ratio = torch.exp(logps - old_logps)
    return TokenLoss(-advantages * ratio, {"ratio": ratio})


@breaks("objective", "gradient", "is 0")
def detached(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps.detach()


@breaks("objective", "masked NaN", "nan at")
def quotient_of_zeros(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    return (logps / old_logps).sum(-1, keepdim=True) * mask


@breaks("objective", "padding", "three empty columns")
def mean_over_the_width(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps.mean(-1, keepdim=True)


@breaks("objective", "permutation", "rows in the order")
def by_place(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * torch.arange(len(logps))[:, None]


@breaks("objective", "permutation", "rows in the order", level="group")
def first_group_twice(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * (1 + (torch.arange(len(logps)) == 0).float()[:, None, None])


@breaks("objective", "micro-batches", "by themselves")
def centred_over_the_step(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages - advantages.mean()) * logps


@breaks("objective", "micro-batches", "by themselves", level="group")
def centred_over_groups(logps: Tensor, advantages: Tensor) -> Tensor:
    return -(advantages - advantages.mean()) * logps


@breaks("objective", "no advantage, no loss", "where every advantage is 0", zero_at_zero_advantage=True)
def with_a_penalty(logps: Tensor, old_logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps + (logps - old_logps).square()


@breaks("objective", "same input, same output", "second call")
def noisy_loss(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps * torch.rand(logps.shape)


@breaks("objective", "inputs left alone", "advantages was changed in place")
def clamps_in_place(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages.clamp_(min=0) * logps


@breaks("objective", "axes", "missing", axes={"clip": "{missing}"})
def objective_bad_axes(logps: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logps


# aggregators


@breaks("aggregator", "shape and numbers", "dtype torch.int64")
def whole_numbers(mask: Tensor) -> Tensor:
    return mask.long()


@breaks("aggregator", "shape and numbers", "negative")
def below_zero(mask: Tensor) -> Tensor:
    return -mask.float()


@breaks("aggregator", "shape and numbers", "outside the mask")
def everywhere(mask: Tensor) -> Tensor:
    return torch.ones(mask.shape) / mask.shape[0]


@breaks("aggregator", "shape and numbers", "must return")
def reduced(mask: Tensor) -> Tensor:
    return mask.float().mean()


@breaks("aggregator", "nothing counted", "nan")
def divides_by_nothing(mask: Tensor) -> Tensor:
    return mask.float() / mask.sum()


@breaks("aggregator", "padding", "three empty columns")
def over_the_width(mask: Tensor) -> Tensor:
    return mask.float() / mask.numel()


@breaks("aggregator", "permutation", "rows in the order")
def later_rows_more(mask: Tensor) -> Tensor:
    return mask.float() * (1 + torch.arange(len(mask)))[:, None]


@breaks("aggregator", "same input, same output", "second call")
def random_weights(mask: Tensor) -> Tensor:
    return mask * torch.rand(mask.shape)


@breaks("aggregator", "inputs left alone", "mask was changed in place")
def clears_the_mask(mask: Tensor) -> Tensor:
    weights = mask.float()
    mask.zero_()
    return weights


@breaks("aggregator", "axes", "missing", axes={"aggregation": "{missing}"})
def aggregator_bad_axes(mask: Tensor) -> Tensor:
    return mask.float()


# KLs


@breaks("kl", "shape and numbers", "must return")
def of_the_row(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return (logps - ref_logps).sum(-1)


@breaks("kl", "0 where the policies are equal", "0.5 instead of 0")
def never_zero(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps + 0.5


@breaks("kl", "tokens apart", "log-probabilities of -9")
def minus_the_row_mean(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps - (logps - ref_logps).mean(-1, keepdim=True)


@breaks("kl", "same input, same output", "second call")
def noisy_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return (logps - ref_logps) * torch.rand(logps.shape)


@breaks("kl", "inputs left alone", "ref_logps was changed in place")
def negates_in_place(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps + ref_logps.neg_()


@breaks("kl", "axes", "missing", axes={"KL": "{missing}"})
def kl_bad_axes(logps: Tensor, ref_logps: Tensor) -> Tensor:
    return logps - ref_logps


# value losses


@breaks("value_loss", "shape and numbers", "must return")
def mean_of_the_row(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square().mean(-1)


@breaks("value_loss", "least where the value is the return", "off it")
def away_from_the_return(values: Tensor, returns: Tensor) -> Tensor:
    return -(values - returns).square()


@breaks("value_loss", "points to the return", "gradients")
def towards_the_old_value(values: Tensor, returns: Tensor, old_values: Tensor) -> Tensor:
    return (values - returns).square() + 3 * (values - old_values).square()


@breaks("value_loss", "tokens apart", "NaN at")
def minus_the_mean_error(values: Tensor, returns: Tensor) -> Tensor:
    errors = values - returns
    return (errors - errors.mean(-1, keepdim=True)).square() + errors.square()


@breaks("value_loss", "same input, same output", "second call")
def noisy_square(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square() * torch.rand(values.shape)


@breaks("value_loss", "inputs left alone", "returns was changed in place")
def adds_in_place(values: Tensor, returns: Tensor) -> Tensor:
    return (values + returns.neg_()).square()


@breaks("value_loss", "axes", "missing", axes={"value loss": "{missing}"})
def value_loss_bad_axes(values: Tensor, returns: Tensor) -> Tensor:
    return (values - returns).square()


# corrections


@breaks("correction", "shape and numbers", "must return")
def one_factor_a_row(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, old_logps - behaviour_logps, 0.0).sum(-1, keepdim=True).exp()[:, :0]


@breaks("correction", "shape and numbers", "factors")
def log_ratio(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return 1 + torch.where(mask, old_logps - behaviour_logps, 0.0)


@breaks("correction", "1 where sampler and trainer agree", "2 instead of 1")
def doubled(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return 2 * torch.where(mask, old_logps - behaviour_logps, 0.0).exp()


@breaks("correction", "masked NaN", "outside the mask")
def times_the_mask(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.exp((old_logps - behaviour_logps) * mask)


@breaks("correction", "micro-batches", "by itself")
def over_the_mean(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    factors = torch.where(mask, old_logps - behaviour_logps, 0.0).exp()
    return factors / factors.mean()


@breaks("correction", "padding", "three empty columns")
def mean_of_the_width(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, old_logps - behaviour_logps, 0.0).mean(-1, keepdim=True).exp().expand(mask.shape)


@breaks("correction", "same input, same output", "second call")
def noisy_correction(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.exp((old_logps - behaviour_logps) * torch.rand(mask.shape))


@breaks("correction", "inputs left alone", "old_logps was changed in place")
def subtracts_in_place(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return old_logps.sub_(behaviour_logps).exp()


@breaks("correction", "axes", "missing", axes={"correction": "{missing}"})
def correction_bad_axes(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    return torch.ones(mask.shape)


@breaks("correction", "factors of 1 with weights=False", "instead of 1", weights=False)
def weighs_all_the_same(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(mask, old_logps - behaviour_logps, 0.0).exp(), mask


# steps of the credit chain


@breaks("credit", "shape and numbers", "must return")
def one_credit_a_response(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages.mean(-1)


@breaks("credit", "permutation", "reordered")
def credit_by_place(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages * (1 + torch.arange(batch.group_size))[:, None]


@breaks("credit", "masked NaN", "outside the mask")
def credit_of_all_columns(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages - advantages.mean(-1, keepdim=True)


@breaks("credit", "same input, same output", "second call")
def noisy_credit(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages * torch.rand(advantages.shape)


@breaks("credit", "inputs left alone", "advantages was changed in place")
def credit_in_place(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages.mul_(2)


@breaks("credit", "axes", "missing", axes={"credit": "{missing}"})
def credit_bad_axes(batch: Batch, advantages: Tensor) -> Tensor:
    return advantages


# selections


@breaks("selection", "as many of every group", "must choose equally many")
def the_right_ones(batch: Batch) -> Tensor:
    return batch.require("correct")


@breaks("selection", "as many of every group", "dtype torch.float32")
def as_weights(batch: Batch) -> Tensor:
    return torch.ones_like(batch.rewards)


@breaks("selection", "groups in another order", "reordered")
def rotating(batch: Batch) -> Tensor:
    return torch.arange(batch.groups)[:, None] % batch.group_size == torch.arange(batch.group_size)


@breaks("selection", "same input, same output", "global random generator")
def noisy_selection(batch: Batch) -> Tensor:
    best = torch.rand(batch.rewards.shape).argmax(1, keepdim=True)
    return torch.zeros_like(batch.rewards, dtype=torch.bool).scatter(1, best, True)


@breaks("selection", "inputs left alone", "rewards was changed in place")
def selection_in_place(batch: Batch) -> Tensor:
    batch.rewards.mul_(2)
    return torch.ones_like(batch.rewards, dtype=torch.bool)


@breaks("selection", "axes", "missing", axes={"selection": "{missing}"})
def selection_bad_axes(batch: Batch) -> Tensor:
    return torch.ones_like(batch.rewards, dtype=torch.bool)


# filters


@breaks("filter", "shape", "dtype torch.float32")
def as_numbers(batch: Batch) -> Tensor:
    return batch.rewards.mean(1)


@breaks("filter", "shape", "must return")
def each_sample(batch: Batch) -> Tensor:
    return batch.rewards > 0


@breaks("filter", "shape", "old_logps was not filled")
def reads_too_early(batch: Batch) -> Tensor:
    return batch.require("old_logps").sum((1, 2)) < 0


@breaks("filter", "permutation", "reordered rewards")
def first_sample_right(batch: Batch) -> Tensor:
    return batch.rewards[:, 0] > 0


@breaks("filter", "masked NaN", "nan outside the responses")
def sums_everything(batch: Batch) -> Tensor:
    return batch.require("behaviour_logps").sum((1, 2)) < 0


@breaks("filter", "same input, same output", "second call")
def at_random(batch: Batch) -> Tensor:
    return torch.rand(batch.groups) < 0.5


@breaks("filter", "inputs left alone", "rewards was changed in place")
def clamps_rewards(batch: Batch) -> Tensor:
    return batch.rewards.clamp_(min=0).sum(1) > 0


@breaks("filter", "axes", "missing", axes={"filter": "{missing}"})
def filter_bad_axes(batch: Batch) -> Tensor:
    return ~batch.no_spread


# shapings


@breaks("shaping", "shape and numbers", "must return")
def one_reward(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards.mean()


@breaks("shaping", "shape and numbers", "IndexError")
def only_for_groups(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards - lengths / lengths.amax(1, keepdim=True)


@breaks("shaping", "shape and numbers", "nan")
def length_over_nothing(rewards: Tensor, lengths: Tensor, truncated: Tensor, *, max_tokens: int) -> Tensor:
    return rewards + (max_tokens - lengths).log() * 0


@breaks("shaping", "permutation", "reordered")
def later_samples_less(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards - torch.arange(rewards.shape[-1])


@breaks("shaping", "same input, same output", "second call")
def noisy_rewards(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards + torch.rand(rewards.shape)


@breaks("shaping", "inputs left alone", "rewards was changed in place")
def punishes_in_place(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards.sub_(lengths / 100)


@breaks("shaping", "axes", "missing", axes={"shaping": "{missing}"})
def shaping_bad_axes(rewards: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
    return rewards


# variants


def composed(**parts: Any) -> Variant:
    """GRPO's parts but for these."""
    usual = {
        "advantage": ADVANTAGES["group_mean"],
        "objective": OBJECTIVES["clip"],
        "aggregator": AGGREGATORS["token_mean"],
    }
    return Variant(**usual | parts)


@breaks("variant", "builds", "must be a registered objective")
def wrong_kind() -> Variant:
    return composed(objective=AGGREGATORS["token_mean"])


@breaks("variant", "builds", "returned dict")
def no_variant() -> Any:
    return {"advantage": ADVANTAGES["group_mean"]}


@breaks("variant", "axis card", "nothing under baseline")
def empty_axes() -> Variant:
    return composed(advantage=part_of("advantage", lambda batch: batch.rewards, axes={"baseline": " "}))


@breaks("variant", "a whole step", "loss nan")
def not_a_number() -> Variant:
    return composed(objective=part_of("objective", log_of_a_log.function))


@breaks("variant", "a whole step", "the gradient is 0")
def learns_nothing() -> Variant:
    return composed(advantage=part_of("advantage", lambda batch: torch.zeros_like(batch.rewards)))


@breaks("variant", "a whole step", "does not depend on the policy")
def without_a_policy() -> Variant:
    return composed(objective=part_of("objective", detached.function))


@breaks("variant", "smallest step", "NaN")
def too_small() -> Variant:
    return composed(advantage=others_of_one)


@breaks("variant", "nothing counted", "loss nan")
def divides_by_no_token() -> Variant:
    return composed(aggregator=divides_by_nothing)


# rewards


def _that_returns(value: Any) -> Callable[..., Any]:
    def returning(problem: Any, response: str) -> Any:
        """The same of everything."""
        return value

    return returning


for _value, _reason in (
    (None, "not None"),
    ("1.0", "not '1.0'"),
    ([1.0], r"not \[1.0\]"),
    (torch.ones(2), "not tensor"),
):
    breaks(
        "reward", "returns a number, a bool or a Score", f"must return a number, a bool or a Score, {_reason}.*, for"
    )(_that_returns(_value))
breaks("reward", "returns a number, a bool or a Score", "^inf for '4'")(_that_returns(math.inf))
breaks("reward", "returns a number, a bool or a Score", "no verdict, for every response")(_that_returns(math.nan))


@breaks("reward", "returns a number, a bool or a Score", r"\[1.0\] for one response to one problem", together=True)
def _one_row_short(problems: Any, responses: Any) -> Any:
    """A list of scores instead of a list of lists."""
    return [1.0 for _ in problems]


# tasks


NUMBERS = {"train": 5, "test": 4, "tune": 6}


@dataclass(frozen=True)
class Sums:
    """Sums of one digit, each split with a number of its own."""

    rewards: tuple[Part, ...] = (REWARDS["math_answer"],)
    suites: tuple[str, ...] = ("test",)
    patterns: Mapping[str, str] = field(default_factory=dict)
    answer: Callable[[int], Any] = str
    prompt: Callable[[str, int], Any] = lambda split, n: f"{n}+{NUMBERS[split]}="
    extra: int = 0

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Sum `index` of a split."""
        answer = self.answer(index % 50 + NUMBERS[split])
        return Problem(self.prompt(split, index % 50), answer, index + self.extra)


for _sums, _reason in (
    (Sums(rewards=()), "no reward judges"),
    (Sums(suites=("train",)), r"suites = \('train',\), which are no names of test splits"),
    (Sums(patterns={"steps": "("}), "the pattern 'steps' is no regular expression"),
    (Sums(answer=int), "the answer of problem 0 of train is 5, no text"),
    (Sums(prompt=lambda split, n: ""), "the prompt of problem 0 of train is empty"),
    (Sums(prompt=lambda split, n: [{"role": "user"}]), "neither text nor chat messages: message 1 .user. has"),
    (Sums(extra=1), "problem 0 of train says that its index is 1"),
    (None, "NoneType has no rewards"),
):
    breaks("task", "gives problems", _reason)(lambda made=_sums: made)


@breaks("task", "same problem every time", "problem 19 of test under seed 1: .* .asked a second time.")
def counts() -> Sums:
    """A number for every call."""
    calls = count()
    return Sums(prompt=lambda split, n: f"{n}+{NUMBERS[split]}={next(calls)}")


@breaks("task", "same problem every time", "problem 19 of test .* .in a task made anew.")
def drawn_when_made() -> Sums:
    """Other numbers in every process."""
    offset = random.random()
    return Sums(prompt=lambda split, n: f"{n}+{NUMBERS[split]}+{offset}=")


@breaks("task", "splits apart", "problem 0 of train and problem 0 of test ask the same: '0 ")
def one_for_all() -> Sums:
    """Asks in the test what was trained on, with another blank."""
    return Sums(prompt=lambda split, n: f"{n} + {' ' * (split == 'test')}1=")


@breaks("task", "rewards can start", "it needs what is not there")
def never_started() -> Sums:
    """A reward that refuses before a run."""
    return Sums(rewards=(part_of("reward", lambda p, text: 1.0, start=_refuses),))


def _refuses(**_: object) -> str:
    raise GrpoLabError("it needs what is not there")


@breaks("task", "gold answers are right", "4 of 20 are taken for wrong, the first in problem 3 of train: 'none'")
def sometimes_without() -> Sums:
    """Some answers are none."""
    return Sums(rewards=(part_of("reward", lambda p, text: float("none" not in text)),), answer=_none_for_8_and_9)


def _none_for_8_and_9(right: int) -> str:
    return "none" if right in (8, 9) else str(right)


@breaks(
    "task",
    "prompts fit the model",
    "8 of 400 do not: problem 49 of train has 260 tokens, where train.max_tokens leaves 206",
    bindings=("policy.model = 'embedded'", "train.max_tokens = 50"),
)
def too_long() -> Sums:
    """One that no context has room for, in every fifty."""
    return Sums(prompt=lambda split, n: "1+" * (129 * (n == 49)) + f"{n}+{NUMBERS[split]}="[-2 - 3 * (n < 49) :])


@breaks(
    "task",
    "prompts fit the model",
    "the tokenizer of the model has no chat template",
    bindings=("policy.model = 'embedded'",),
)
def chats() -> Sums:
    """Asks in messages."""
    return Sums(prompt=lambda split, n: [{"role": "user", "content": f"{n}+{NUMBERS[split]}="}])
