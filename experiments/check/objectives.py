"""What holds of policy objectives. They are called as the loop calls them: with 0 outside the mask."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part, TokenLoss
from core.parts.options import ObjectiveOptions
from experiments.check.checks import Broken, Call, Checks, Inapplicable, finite, same
from experiments.check.steps import Step, make_step, variant_of

CHECKS = Checks("objective")
SIZES = ((1, 2), (2, 3), (3, 4), (4, 1))
"""Groups and samples of the examples; group objectives get no groups of one."""


def steps(part: Part, *, distance: float = 0.1, holes: bool = True, by_token: bool = True) -> Iterator[Step]:
    """Examples, with a row that has no counted token where there are holes."""
    variant = variant_of(objective=part)
    for seed, (groups, samples) in enumerate(SIZES):
        if samples > 1 or not is_group_objective(part):
            yield make_step(
                variant, groups=groups, samples=samples, seed=seed, distance=distance, holes=holes, by_token=by_token
            )


def is_group_objective(part: Part) -> bool:
    """Whether the part sees whole groups at a time."""
    return ObjectiveOptions.of(part).level == "group"


def takes_generator(part: Part) -> bool:
    """Whether the part takes random numbers."""
    return "generator" in ObjectiveOptions.of(part).prepare_takes


def blocks(part: Part, step: Step) -> Iterator[Tensor]:
    """The smallest sets of rows that the loop may pass by themselves."""
    size = step.group_size if is_group_objective(part) else 1
    yield from torch.arange(len(step.logps)).view(-1, size)


def arguments(part: Part, step: Step) -> dict[str, Tensor]:
    """The part's own arguments by name, 0 outside the mask."""
    filled = {"old_logps": step.logps, **step.rows, "logps": step.logps.clone().requires_grad_()}
    mask = step.rows["mask"]
    inside = {n: torch.where(mask, x, 0.0) if x.ndim == 2 and x.is_floating_point() else x for n, x in filled.items()}
    inputs = {name: inside[name] for name in part.parameters}
    if is_group_objective(part):
        inputs = {name: x.view(-1, step.group_size, *x.shape[1:]) for name, x in inputs.items()}
    return inputs


@CHECKS.must("shape and numbers", remedy="return the loss of each token, of the shape of logps, finite; sum nothing up")
def shape_and_numbers(part: Part) -> None:
    """[B, T], finite, in value and gradient."""
    for step in steps(part):
        losses, gradient = step.losses()
        finite(losses, what="loss")
        finite(gradient, what="gradient")


@CHECKS.must("what it logs", remedy="TokenLoss(loss, {name: x}) takes x of the shape of the loss, detached")
def what_it_logs(part: Part) -> str | None:
    """`info` is [B, T] each, without gradient."""
    logged: set[str] = set()
    for step in steps(part):
        inputs = arguments(part, step)
        result = part(**inputs)
        info = result.info if isinstance(result, TokenLoss) else {}
        for name, values in info.items():
            if values.shape != inputs["logps"].shape:
                raise Broken(f"'{name}' is {list(values.shape)} for a loss {list(inputs['logps'].shape)}")
            if values.requires_grad:
                raise Broken(f"'{name}' holds on to the graph")
        logged |= info.keys()
    return ", ".join(sorted(logged)) or "nothing"


@CHECKS.must(
    "gradient", remedy="compute the loss from logps with torch operations, without .detach() or .item() on all"
)
def gradient_reaches_the_policy(part: Part) -> None:
    """The loss depends on logps."""
    for distance in (0.0, 0.1):
        if any(step.losses()[1].ne(0).any() for step in steps(part, distance=distance)):
            return
    raise Broken("the gradient in logps is 0, on-policy and near it")


@CHECKS.must(
    "masked NaN", remedy="take sums and means over torch.where(mask, x, 0.0); 0 / 0 at an uncounted token spreads"
)
def masked_nan(part: Part) -> None:
    """Whatever stands outside the mask changes neither loss nor gradient."""
    for step in steps(part):
        expected, mask = step.losses(), step.rows["mask"]
        finite(torch.stack(expected), given="with uncounted tokens in the rows")
        for junk in (torch.nan, torch.inf, -torch.inf):
            dirty = {n: torch.where(mask, x, junk) for n, x in step.rows.items() if _is_by_token(x)}
            actual = step.having(torch.where(mask, step.logps, junk), **dirty).losses()
            for one, other in zip(actual, expected, strict=True):
                same(one, other, given=f"{junk} outside the mask")


def _is_by_token(x: Tensor) -> bool:
    return x.ndim == 2 and x.is_floating_point()


@CHECKS.must("padding", remedy="use the mask for every mean and sum, never the width of the tensor")
def padding(part: Part) -> None:
    """Columns without a counted token change nothing."""
    if takes_generator(part):
        raise Inapplicable("what it draws depends on the number of columns")
    for step in steps(part):
        widened = {n: torch.nn.functional.pad(x, (0, 3)) for n, x in step.rows.items() if x.ndim == 2}
        wide = step.having(torch.nn.functional.pad(step.logps, (0, 3)), **widened)
        if ObjectiveOptions.of(part).prepare:
            wide = wide.having(prepared=wide.prepared()["prepared"])
        for actual, expected in zip(wide.losses(), step.losses(), strict=True):
            same(actual[:, : expected.shape[1]], expected, given="with three empty columns more")


@CHECKS.must("permutation", remedy="let nothing depend on the order of the rows")
def permutation(part: Part) -> None:
    """Rows, or whole groups of them, in another order have the same losses, in that order."""
    if ObjectiveOptions.of(part).prepare:
        raise Inapplicable("it looks at all rows of a step first")
    for seed, step in enumerate(steps(part)):
        rows = list(blocks(part, step))
        shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        order = torch.cat([rows[i] for i in shuffled])
        for actual, expected in zip(step.at(order).losses(), step.losses(), strict=True):
            same(actual, expected[order], given=f"rows in the order {order.tolist()}")


@CHECKS.must(
    "micro-batches", remedy="couple rows in `prepare`, once a step, or declare level='group' to be handed whole groups"
)
def micro_batches(part: Part) -> None:
    """Rows (of a group objective: groups) do not see each other, so any split of the step gives the same losses."""
    for step in steps(part):
        expected = step.losses()
        for rows in blocks(part, step):
            for actual, expected_losses in zip(step.at(rows).losses(), expected, strict=True):
                same(actual, expected_losses[rows], given=f"rows {rows.tolist()} by themselves, from row {rows[0]} on")


def _without_advantage(part: Part) -> None:
    """Raise `Broken` if a row, or a group, whose advantages are 0 has a loss or a gradient."""
    for distance in (0.0, 0.1, 1.0):
        for step in steps(part, distance=distance):
            first = next(blocks(part, step))
            advantages = step.rows["advantages"].clone()
            advantages[first] = 0.0
            step = step.having(advantages=advantages)
            if ObjectiveOptions.of(part).prepare:
                step = step.having(prepared=step.prepared()["prepared"])
            for what, values in zip(("loss", "gradient"), step.losses(), strict=True):
                if values[first].ne(0).any():
                    raise Broken(f"{what} up to {values[first].abs().max():.4g} where every advantage is 0")


@CHECKS.must(
    "no advantage, no loss", remedy="take zero_at_zero_advantage=True back: such rows are left out of the pass"
)
def no_advantage_as_declared(part: Part) -> None:
    """True where it is declared."""
    if not ObjectiveOptions.of(part).zero_at_zero_advantage:
        raise Inapplicable("not declared")
    _without_advantage(part)


@CHECKS.reports("has a loss without advantage, as declared")
def no_advantage_undeclared(part: Part) -> None:
    """Not declared because not true."""
    if ObjectiveOptions.of(part).zero_at_zero_advantage:
        raise Inapplicable("declared")
    try:
        _without_advantage(part)
    except Broken:
        return
    raise Broken("no advantage gives no loss: zero_at_zero_advantage=True could be declared, and saves passes")


def whole_steps(part: Part) -> Iterator[Callable[[], Tensor]]:
    """Loss and gradient of every example, with what the part prepares once a step."""
    for step in steps(part):

        def losses(step: Step = step) -> Tensor:
            if ObjectiveOptions.of(part).prepare:
                step = step.having(prepared=step.prepared()["prepared"])
            return torch.stack(step.losses())

        yield losses


def calls(part: Part) -> Iterator[Call]:
    """The part's own call on every example, and its arguments."""
    for step in steps(part):
        inputs = {name: x.detach() for name, x in arguments(part, step).items()}
        yield partial(part, **inputs), inputs


CHECKS.same_output(whole_steps, remedy="draw in `prepare`, from the generator that it is passed, and nowhere else")
CHECKS.inputs_unchanged(calls)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters, e.g. {eps_low:g}; {{ for a brace")


@CHECKS.reports("on-policy its gradient is REINFORCE's")
def on_policy(part: Part) -> None:
    """At ratio 1 the gradient is -A, for advantages that are constant over a response."""
    for step in steps(part, distance=0.0, by_token=False):
        gradient = step.losses()[1]
        expected = torch.where(step.rows["mask"], -step.rows["advantages"], 0.0)
        same(gradient, expected, given="sum of token losses, one advantage a response", tolerance=1e-4)


@CHECKS.reports("finite however far the policy has moved")
def extreme_ratios(part: Part) -> None:
    """At log-ratios of +-30 and +-100 in float32, in value and gradient."""
    variant = variant_of(objective=part)
    for d in (30.0, -30.0, 100.0, -100.0):
        for sign in (1.0, -1.0):
            step = make_step(variant, groups=2, samples=2, seed=3, holes=False)
            low = torch.where(step.rows["mask"], -abs(d) - 0.5, 0.0)
            high = torch.where(step.rows["mask"], -0.5, 0.0)
            step = step.having(
                high if d > 0 else low, old_logps=low if d > 0 else high, advantages=torch.full_like(low, sign)
            )
            for what, values in zip(("loss", "gradient"), step.losses(), strict=True):
                finite(values, what=what, given=f"at a log-ratio of {d:+g} with advantage {sign:+g}")
