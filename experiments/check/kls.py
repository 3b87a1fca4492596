"""What holds of estimators of the divergence from the reference policy."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from core import Part
from core.parts.contracts import check_shape
from experiments.check.checks import Broken, Call, Checks, finite, numbers, same

CHECKS = Checks("kl")


def rows() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities [B, T] of the policy, of the reference, and of the policy before its last updates."""
    for B, T, seed in ((1, 1, 0), (3, 5, 1), (4, 2, 2)):
        draw = torch.Generator().manual_seed(seed)
        logps, ref = (-0.05 - 3 * torch.rand(B, T, generator=draw) for _ in range(2))
        yield logps, ref, logps + 0.1 * torch.randn(B, T, generator=draw)


def divergence(part: Part, logps: Tensor, ref: Tensor, old: Tensor | None = None) -> Tensor:
    """Values [B, T]; without `old` the policy is as it sampled."""
    extra = {"old_logps": logps.detach() if old is None else old} if part.takes("old_logps") else {}
    values: Tensor = part(logps, ref, **extra)
    check_shape(part, values, logps.shape)
    return values


@CHECKS.must("shape and numbers", remedy="return one number a token, of the shape of logps, finite; sum nothing up")
def shape_and_numbers(part: Part) -> None:
    """[B, T], finite."""
    for logps, ref, old in rows():
        finite(divergence(part, logps, ref, old))


@CHECKS.must("0 where the policies are equal", remedy="an estimator of a divergence is 0 where logps == ref_logps")
def equal_policies(part: Part) -> None:
    """No divergence from oneself."""
    for logps, _, old in rows():
        same(divergence(part, logps, logps.clone(), old), torch.zeros_like(logps), given="logps = ref_logps")


@CHECKS.must("tokens apart", remedy="compute each token from its own log-probabilities: no mask is handed in")
def tokens_apart(part: Part) -> None:
    """One token's divergence depends on no other token."""
    for logps, ref, old in rows():
        expected = divergence(part, logps, ref, old)
        for value in (-9.0, torch.nan):
            place = torch.zeros_like(logps, dtype=torch.bool)
            place[-1, -1] = True
            changed = (torch.where(place, value, x) for x in (logps, ref, old))
            given = f"log-probabilities of {value} at {[len(logps) - 1, logps.shape[1] - 1]}"
            same(divergence(part, *changed), expected, ~place, given=given)


def calls(part: Part) -> Iterator[Call]:
    """A call on every example, and its inputs by name."""
    for triple in rows():
        yield partial(divergence, part, *triple), dict(zip(("logps", "ref_logps", "old_logps"), triple, strict=True))


CHECKS.pure(
    calls,
    same_output="draw nothing; a divergence is a function of log-probabilities",
)
CHECKS.axes(remedy="write axes as format strings over hyper-parameters; {{ for a brace")


@CHECKS.reports("never negative")
def never_negative(part: Part) -> None:
    """At every token."""
    for logps, ref, old in rows():
        values = divergence(part, logps, ref, old)
        if values.lt(0).any():
            i, t = values.lt(0).nonzero()[0].tolist()
            raise Broken(f"{values[i, t]:.4g} for logps {logps[i, t]:.4g} and ref_logps {ref[i, t]:.4g}")


@CHECKS.reports("as a loss it has a gradient")
def has_gradient(part: Part) -> None:
    """The gradient flows to logps, so that it can be a term of the loss."""
    for logps, ref, old in rows():
        leaf = logps.clone().requires_grad_()
        values = divergence(part, leaf, ref, old)
        if not values.requires_grad or torch.autograd.grad(values.sum(), leaf)[0].eq(0).all():
            raise Broken("none in logps: only for kl_place='reward'")


THETA = torch.tensor([0.2, -0.7, 1.1, 0.0], dtype=torch.float64)
REF = torch.tensor([0.9, 0.1, -0.3, 0.4], dtype=torch.float64).log_softmax(0)


def _bandit() -> tuple[Tensor, Tensor]:
    """Logits of a policy over four tokens, and its log-probabilities."""
    theta = THETA.clone().requires_grad_()
    return theta, theta.log_softmax(0)


@CHECKS.reports("expected value is KL(pi || ref)")
def expected_value(part: Part) -> None:
    """In full on a softmax of four tokens."""
    _, logps = _bandit()
    true = (logps.exp() * (logps - REF)).sum().item()
    estimate = (logps.exp() * divergence(part, logps[None], REF[None])[0]).sum().item()
    if abs(estimate - true) > 1e-6:
        raise Broken(f"{estimate:.4g} where the KL is {true:.4g}")


@CHECKS.reports("expected gradient")
def expected_gradient(part: Part) -> str:
    """Of which divergence the mean over the policy's own samples is the gradient, samples held fixed."""
    theta, logps = _bandit()
    values = divergence(part, logps[None], REF[None])[0]
    if not values.requires_grad:
        raise Broken("none")
    estimate = torch.autograd.grad((logps.detach().exp() * values).sum(), theta)[0]
    for name, gradient in (("0, no use as a loss", torch.zeros(4)), *_true_gradients()):
        if (estimate - gradient).abs().max() < 1e-6:
            return name
    raise Broken(
        f"{numbers(estimate)} in four logits, of neither KL; of KL(pi || ref): {numbers(_true_gradients()[0][1])}"
    )


def _true_gradients() -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    gradients = []
    for forward in (True, False):
        theta, logps = _bandit()
        p, q = (logps, REF) if forward else (REF, logps)
        gradients.append(torch.autograd.grad((p.exp() * (p - q)).sum(), theta)[0])
    return ("that of KL(pi || ref)", gradients[0]), ("that of KL(ref || pi)", gradients[1])


@CHECKS.reports("finite however far apart the policies are")
def extreme_ratios(part: Part) -> None:
    """At log-ratios of +-30 and +-100 in float32."""
    for d in (30.0, -30.0, 100.0, -100.0):
        low, high = torch.full((1, 2), -abs(d) - 0.5), torch.full((1, 2), -0.5)
        logps, ref = (high, low) if d > 0 else (low, high)
        leaf = logps.requires_grad_()
        values = divergence(part, leaf, ref)
        finite(values, given=f"logps - ref_logps = {d:+g}")
        if values.requires_grad:
            finite(torch.autograd.grad(values.sum(), leaf)[0], what="gradient", given=f"logps - ref_logps = {d:+g}")
