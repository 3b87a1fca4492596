"""What holds of advantage estimators."""

import io
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from core import Batch, Part
from core.loop.loss import compute_advantages
from core.parts.options import AdvantageOptions
from core.store.plain import refuse_more
from experiments.check import examples as ex
from experiments.check.checks import Broken, Call, Checks, Inapplicable, finite, same
from experiments.check.steps import variant_of

CHECKS = Checks("advantage")
STEP_FIELDS = {"token_rewards", "step_ends"}
ROUGHLY = 1e-3
"""Tolerance of identities that an epsilon in a divisor blurs."""
SMALL = 1e-5
"""A sum this small beside the sum of absolute values is 0."""


def batches(part: Part) -> Iterator[Batch]:
    """Examples with groups of at least the declared size."""
    return ex.examples(AdvantageOptions.of(part).min_group, steps=reads_steps(part))


def reads_steps(part: Part) -> bool:
    """Whether the part asks for rewards of steps."""
    return bool(STEP_FIELDS & set(AdvantageOptions.of(part).needs))


def plain_batches(part: Part) -> Iterator[Batch]:
    """Examples in which every token counts and nothing is rewarded by token, for identities."""
    if reads_steps(part):
        raise Inapplicable("it reads rewards of steps")
    min_group = AdvantageOptions.of(part).min_group
    yield ex.make_batch(3, max(min_group, 4), seed=11)
    yield ex.make_batch(1, max(min_group, 3), seed=12)
    yield ex.make_batch(2, max(min_group, 6), seed=13, binary=True)


def run(part: Part, batch: Batch) -> Tensor:
    """The part's own result, from its initial state where it has one."""
    with torch.no_grad():
        make_state = AdvantageOptions.of(part).state
        advantages: Tensor = part(batch, make_state())[0] if make_state else part(batch)
    return advantages


def counted(batch: Batch, advantages: Tensor) -> Tensor:
    """Where an advantage reaches the loss: anywhere in [P, G], on counted tokens in [P, G, T]."""
    return batch.mask if advantages.ndim == 3 else torch.ones_like(batch.rewards, dtype=torch.bool)


@CHECKS.must("shape and numbers", remedy="return a floating-point tensor [P, G] or [P, G, T] without NaN or infinity")
def shape_and_numbers(part: Part) -> None:
    """[P, G] or [P, G, T], floating, finite."""
    for batch in batches(part):
        advantages = run(part, batch)
        allowed = (batch.rewards.shape, batch.mask.shape)
        if not isinstance(advantages, Tensor) or advantages.shape not in allowed:
            got = list(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
            raise Broken(f"{got} for P, G, T = {list(batch.mask.shape)}")
        if not advantages.is_floating_point():
            raise Broken(f"dtype {advantages.dtype}")
        finite(advantages, counted(batch, advantages), given=ex.rewards_of(batch))


@CHECKS.must("smallest group", remedy="declare the group size from which it is defined: @advantage(min_group=...)")
def smallest_group(part: Part) -> str:
    """Finite at the group size that it declares."""
    min_group = AdvantageOptions.of(part).min_group
    needs_steps = reads_steps(part)
    for groups in (1, 2, 3):
        for binary in (False, True):
            batch = ex.make_batch(groups, min_group, seed=groups, binary=binary, steps=needs_steps)
            advantages = run(part, batch)
            finite(advantages, counted(batch, advantages), given=f"groups of {min_group}, {ex.rewards_of(batch)}")
    return f"G = {min_group}"


@CHECKS.must("no gradient", remedy="detach what is returned and what is kept in the state")
def no_gradient(part: Part) -> None:
    """Neither the advantages nor the state hold on to a graph."""
    for batch in batches(part):
        floating = {n: x.requires_grad_() for n, x in batch.tensors().items() if x.is_floating_point()}
        try:
            state = AdvantageOptions.of(part).first_state()
            advantages, state = compute_advantages(variant_of(advantage=part), batch.having(**floating), state)
        except RuntimeError as error:
            if "requires grad" not in str(error):
                raise
            # numpy and the like refuse a tensor that has a gradient, so none can get through
            raise Inapplicable("it leaves torch") from error
        if advantages.requires_grad or any(x.grad_fn is not None for x in _tensors_in(state)):
            raise Broken("a graph is kept in the " + ("advantages" if advantages.requires_grad else "state"))


def _tensors_in(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        yield from _tensors_in(list(state.values()))
    elif isinstance(state, list | tuple):
        for item in state:
            yield from _tensors_in(item)


@CHECKS.must("permutation", remedy="let nothing depend on the order of samples or prompts; break ties by value")
def permutation(part: Part) -> None:
    """Samples and groups in another order have the same advantages, in that order."""
    for seed, batch in enumerate(batches(part)):
        groups, samples = ex.orders(batch, seed)
        expected = run(part, batch)[torch.arange(batch.groups)[:, None], samples][groups]
        other = ex.shuffled_samples(batch, samples).select(groups)
        same(run(part, other), expected, counted(other, expected), given="reordered " + ex.rewards_of(other))


@CHECKS.must("padding", remedy="sum over the mask, never over the width of the tensor")
def padding(part: Part) -> None:
    """Columns without a token change nothing."""
    for batch in batches(part):
        before, after = run(part, batch), run(part, ex.padded(batch, 3))
        after = after[..., : before.shape[-1]] if before.ndim == 3 else after
        same(after, before, counted(batch, before), given="with three empty columns more")


@CHECKS.must(
    "masked NaN", remedy="use torch.where(batch.response_mask, x, 0.0) before sums, not a product with the mask"
)
def masked_nan(part: Part) -> None:
    """Whatever stands outside the responses changes no counted token."""
    for batch in batches(part):
        expected = run(part, batch)
        for junk in (torch.nan, torch.inf, -torch.inf):
            actual = run(part, ex.with_junk(batch, junk))
            same(actual, expected, counted(batch, expected), given=f"{junk} outside the responses")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and the fields of its batch."""
    for batch in batches(part):
        yield partial(run, part, batch), batch.tensors()


CHECKS.pure(calls, same_output="draw nothing; an advantage is a function of its batch")


@CHECKS.must(
    "groups apart, as declared", remedy="declare @advantage(scope='batch'), or take statistics over dim=1 only"
)
def groups_apart(part: Part) -> None:
    """With scope "group" a group's advantages do not depend on other groups."""
    if AdvantageOptions.of(part).scope != "group":
        raise Inapplicable("its scope is the batch")
    _read_one_group(part)


@CHECKS.reports("reads the whole batch, as declared")
def reads_the_batch(part: Part) -> None:
    """With scope "batch" it really does."""
    if AdvantageOptions.of(part).scope != "batch":
        raise Inapplicable("its scope is the group")
    try:
        _read_one_group(part)
    except Broken:
        return
    raise Broken("it does not read other groups: scope='group' would do")


def _read_one_group(part: Part) -> None:
    steps = reads_steps(part)
    G = max(AdvantageOptions.of(part).min_group, 4)
    for groups, binary, spread in ((2, False, True), (3, True, True), (4, False, False)):
        batch = ex.make_batch(groups, G, seed=21, binary=binary, holes=True, steps=steps)
        other = ex.make_batch(groups, G, seed=22, binary=binary, spread=spread, holes=True, steps=steps)
        expected = run(part, batch)
        for p in range(groups):
            actual = run(part, ex.with_other_groups(batch, other, kept=p))
            single = run(part, batch.select(torch.tensor([p])))
            for values, how in ((actual[p], "beside other groups"), (single[0], "alone")):
                given = f"group {p} {how}, its {ex.rewards_of(batch, p)}"
                same(values, expected[p], counted(batch, expected)[p], given=given)


@CHECKS.must("declares what it reads", remedy="name the field where the part is registered: @advantage(needs=(...,))")
def declares_what_it_reads(part: Part) -> None:
    """Works on a batch in which nothing is filled that it did not ask for."""
    may_be_missing = (*ex.optional_fields(), "behaviour_logps", "reward_parts", "correct")
    missing = [name for name in may_be_missing if name not in AdvantageOptions.of(part).needs]
    for batch in batches(part):
        lean = ex.without(batch, missing)
        advantages = run(part, lean)
        finite(advantages, counted(lean, advantages), given="on a batch with what it declares and no more")


@CHECKS.must("state can be saved", remedy="keep numbers, tensors, lists and dicts in the state, nothing else")
def state_can_be_saved(part: Part) -> None:
    """A state that was written and read again goes on like the one that was not."""
    make_state = AdvantageOptions.of(part).state
    if make_state is None:
        raise Inapplicable("it has no state")
    first, second = list(batches(part))[1:3]
    file = io.BytesIO()
    with torch.no_grad():
        _, state = part(first, make_state())
        torch.save(refuse_more(state), file)
        file.seek(0)
        # a checkpoint is read like this too
        restored = torch.load(file, weights_only=True)
        expected, _ = part(second, state)
        actual, _ = part(second, restored)
    same(actual, expected, counted(second, expected), given="after saving and loading the state", tolerance=0.0)


CHECKS.axes(remedy="write axes as format strings over hyper-parameters, e.g. {eps:g}; {{ for a brace")


EXACT_LEVELS = ((0.0, 1.0, -2.0), (0.5, 3.0, 8.0))
"""Their means are exact in float32 for groups of any size."""
ROUNDED_LEVELS = ((0.1, 0.3, 0.7), (-123.456, 1e-8, 0.9))
NEARLY = 1e-6
"""An advantage up to this, where rewards of another group differ by about 1, is rounding."""


def _largest(part: Part, sets_of_levels: tuple[tuple[float, ...], ...], *, alone: bool) -> tuple[float, str]:
    """The largest advantage in groups of equal rewards (the greedy one equal too), and where.

    A group is `alone`, or beside others, one of which has spread.
    """
    if reads_steps(part):
        raise Inapplicable("it reads rewards of steps")
    largest, where = 0.0, ""
    for levels, size in product(sets_of_levels, (2, 3, 5, 6, 7, 11, 13)):
        G = max(AdvantageOptions.of(part).min_group, size)
        batch = ex.with_equal_rewards(ex.make_batch(4, G, seed=G), levels)
        for groups in [[p] for p in range(len(levels))] if alone else [[0, 1, 2, 3]]:
            chosen = batch.select(torch.tensor(groups))
            advantages = run(part, chosen)
            counts = counted(chosen, advantages)
            for place, p in enumerate(groups[: len(levels)]):
                most = float(advantages[place][counts[place]].abs().nan_to_num(nan=torch.inf).max())
                if most > largest:
                    largest, where = most, f"an advantage of {most:.3g} for {G} rewards of {levels[p]:g}"
    return largest, where + (", the only group" if alone else "")


@CHECKS.reports("no spread, no advantage")
def no_spread(part: Part) -> None:
    """A group whose rewards are all equal (the greedy one too) gets exactly 0."""
    largest, where = _largest(part, EXACT_LEVELS, alone=False)
    if largest:
        raise Broken(where)


@CHECKS.must(
    "no spread, not nearly 0", remedy="test max == min (Batch.no_spread) and put 0 there, or compute in float64"
)
def no_spread_in_float32(part: Part) -> None:
    """Where equal rewards are to give 0, rounding does not make it something else: float32 rounds 0.7."""
    applies = False
    for alone in (False, True):
        exact, where = _largest(part, EXACT_LEVELS, alone=alone)
        if exact > NEARLY:
            continue
        applies = True
        if exact:
            raise Broken(f"{where}, all of it rounding")
        rounded, where = _largest(part, ROUNDED_LEVELS, alone=alone)
        if rounded:
            raise Broken(f"{where}, all of it rounding: rewards of 1 get 0")
    if not applies:
        raise Inapplicable("a group without spread has advantages anyway")


@CHECKS.reports("sums to zero over a group")
def sums_to_zero(part: Part) -> None:
    """sum_i A_i = 0."""
    for batch in plain_batches(part):
        advantages = _per_sample(batch, run(part, batch))
        _zero(advantages.sum(1), advantages, batch)


@CHECKS.reports("sums to zero over tokens")
def sums_to_zero_over_tokens(part: Part) -> str:
    """sum_i n_i A_i = 0 over each group, or over the batch."""
    try:
        for batch in plain_batches(part):
            tokens = _per_token(batch, run(part, batch))
            _zero(tokens.sum((1, 2)), tokens, batch)
        return "of each group"
    except Broken:
        for batch in plain_batches(part):
            tokens = _per_token(batch, run(part, batch))
            total = tokens.sum()
            if total.abs() > SMALL * tokens.abs().sum().clamp(min=1):
                raise Broken(f"the sum over {int(batch.mask.sum())} tokens is {total:.4g}") from None
        return "of the batch"


def _per_token(batch: Batch, advantages: Tensor) -> Tensor:
    spread = advantages if advantages.ndim == 3 else advantages[..., None].expand(batch.mask.shape)
    return torch.where(batch.mask, spread.double(), 0.0)


def _per_sample(batch: Batch, advantages: Tensor) -> Tensor:
    """[P, G]; `Inapplicable` where advantages differ within a response."""
    if advantages.ndim == 2:
        return advantages.double()
    first = advantages[..., :1].double()
    if ((advantages - first).abs() > ROUGHLY * (1 + first.abs()))[batch.mask].any():
        raise Inapplicable("advantages differ from token to token")
    return first[..., 0]


def _zero(sums: Tensor, terms: Tensor, batch: Batch) -> None:
    over = sums.abs() > SMALL * terms.abs().sum().clamp(min=1)
    if over.any():
        p = int(over.nonzero()[0])
        raise Broken(f"the sum is {sums[p]:.4g} ({ex.rewards_of(batch, p)})")


@CHECKS.reports("adding a constant to the rewards changes nothing")
def shift(part: Part) -> None:
    """A(r + b) = A(r)."""
    for batch in plain_batches(part):
        expected = run(part, batch)
        shifted = run(part, ex.affine(batch, 1.0, 2.0))
        same(shifted, expected, counted(batch, expected), given="rewards + 2", tolerance=ROUGHLY)


@CHECKS.reports("scaling the rewards")
def scaling(part: Part) -> str:
    """A(a r) is A(r), or a A(r), or neither."""
    pairs = [(batch, run(part, batch), run(part, ex.affine(batch, 3.0, 0.0))) for batch in plain_batches(part)]
    findings = []
    for degree, finding in ((0, "changes nothing"), (1, "scales the advantages alike (degree 1)")):
        try:
            for batch, before, after in pairs:
                same(after, before * 3.0**degree, counted(batch, before), tolerance=ROUGHLY)
            return finding
        except Broken as difference:
            findings.append(str(difference))
    raise Broken(f"rewards x 3 neither leave the advantages alone nor triple them; {findings[1]}")


@CHECKS.reports("flipping the sign of the rewards flips the advantages")
def sign_flip(part: Part) -> None:
    """A(-r) = -A(r)."""
    for batch in plain_batches(part):
        before, after = run(part, batch), run(part, ex.affine(batch, -1.0, 0.0))
        same(after, -before, counted(batch, before), given=f"against {ex.rewards_of(batch)}", tolerance=ROUGHLY)
