"""What holds of losses of a critic's values."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part
from core.parts.contracts import check_shape
from experiments.check.checks import Broken, Call, Checks, finite, numbers, same

CHECKS = Checks("value_loss")


def rows() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Values, returns, and values before the rollout's updates, [B, T]."""
    for B, T, seed in ((1, 1, 0), (3, 5, 1), (4, 2, 2)):
        draw = torch.Generator().manual_seed(seed)
        old, returns = torch.rand(B, T, generator=draw), torch.rand(B, T, generator=draw)
        yield old + 0.3 * torch.randn(B, T, generator=draw), returns, old


def losses(part: Part, values: Tensor, returns: Tensor, old: Tensor) -> Tensor:
    """Losses [B, T]."""
    result: Tensor = part(values, returns, **({"old_values": old} if "old_values" in part.parameters else {}))
    check_shape(part, result, values.shape)
    return result


@CHECKS.must("shape and numbers", remedy="return one number a token, of the shape of values, finite; sum nothing up")
def shape_and_numbers(part: Part) -> None:
    """[B, T], finite."""
    for triple in rows():
        finite(losses(part, *triple))


@CHECKS.must("least where the value is the return", remedy="a critic's loss is smallest where values == returns")
def least_at_the_return(part: Part) -> None:
    """No other value has a smaller loss, and there is no gradient there."""
    for values, returns, _ in rows():
        leaf = returns.clone().requires_grad_()
        least = losses(part, leaf, returns, returns)
        if not losses(part, values, returns, returns).ge(least - 1e-7).all():
            raise Broken(
                f"loss {numbers(least)} at the return, {numbers(losses(part, values, returns, returns))} off it"
            )
        (gradient,) = torch.autograd.grad(least.sum(), leaf)
        same(gradient, torch.zeros_like(gradient), given="values = returns")


@CHECKS.must("points to the return", remedy="the gradient of the loss has the sign of values - returns, or is 0")
def points_to_the_return(part: Part) -> None:
    """Following the gradient never leads away from the return."""
    for values, returns, old in rows():
        leaf = values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(part, leaf, returns, old).sum(), leaf)
        if (gradient * (values - returns) < 0).any() or not gradient.any():
            raise Broken(f"gradients {numbers(gradient)} at values - returns of {numbers(values - returns)}")


@CHECKS.must("tokens apart", remedy="compute each token from its own value: no mask is handed in")
def tokens_apart(part: Part) -> None:
    """One token's loss depends on no other token."""
    for triple in rows():
        expected = losses(part, *triple)
        place = torch.zeros_like(expected, dtype=torch.bool)
        place[-1, -1] = True
        changed = (torch.where(place, torch.nan, x) for x in triple)
        same(losses(part, *changed), expected, ~place, given=f"NaN at {[len(expected) - 1, expected.shape[1] - 1]}")


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its inputs by name."""
    for triple in rows():
        yield partial(losses, part, *triple), dict(zip(("values", "returns", "old_values"), triple, strict=True))


CHECKS.pure(
    calls,
    same_output="draw nothing; a loss is a function of values and returns",
)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")
