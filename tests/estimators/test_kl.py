"""KL estimators: numbers by hand, then expectations and gradients in full on a small softmax."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import KLS, Part
from core.loop.loss import adapted_coefficient
from estimators.kl import k1, k1_plus, k1_ratio, k2, k3, k3_bounded, k3_plus, k3_ratio, k_abs

every_kl = pytest.mark.parametrize("part", KLS.values(), ids=list(KLS))
ratios = st.floats(-3, 3)


def tensor(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def divergence(part: Part, logps: Tensor, ref: Tensor) -> Tensor:
    extra = {"old_logps": logps.detach()} if part.takes("old_logps") else {}
    values: Tensor = part(logps, ref, **extra)
    return values


def test_values_by_hand() -> None:
    """The policy gives a token twice the reference's probability."""
    logps, ref = tensor(math.log(0.5)), tensor(math.log(0.25))
    assert k1(logps, ref).item() == pytest.approx(math.log(2))
    assert k2(logps, ref).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(logps, ref).item() == pytest.approx(0.5 - 1 + math.log(2))


@given(ratios)
def test_k2_and_k3_are_never_negative_and_zero_only_at_equality(ratio: float) -> None:
    logps, ref = tensor(-1.0), tensor(-1.0 - ratio)
    for part in (k2, k3):
        value = part(logps, ref).item()
        assert value > 0 if abs(ratio) > 1e-3 else value >= 0
    assert k3(logps, ref).item() == pytest.approx(math.exp(-ratio) - 1 + ratio, abs=1e-12)


@pytest.mark.parametrize("ratio", [1e-2, -1e-2])
def test_k3_minus_k2_is_minus_a_sixth_of_the_cube(ratio: float) -> None:
    logps, ref = tensor(-1.0 + ratio), tensor(-1.0)
    assert (k3(logps, ref) - k2(logps, ref)).item() == pytest.approx(-(ratio**3) / 6, rel=1e-2)


def test_k3_keeps_its_digits_near_equality() -> None:
    """exp(-k) - 1 + k in float32 would be all rounding at k = 1e-4; the value is k^2 / 2 = 5e-9."""
    assert k3(torch.tensor([[1e-4]]), torch.tensor([[0.0]])).item() == pytest.approx(5e-9, rel=0.01)


THETA = torch.tensor([0.2, -0.7, 1.1, 0.0], dtype=torch.float64)
REF = torch.tensor([0.9, 0.1, -0.3, 0.4], dtype=torch.float64).log_softmax(0)


def kl_gradient(towards: str) -> Tensor:
    """Gradient of KL(pi || ref) or KL(ref || pi) in the logits."""
    theta = THETA.clone().requires_grad_()
    log_pi = theta.log_softmax(0)
    p, q = (log_pi, REF) if towards == "pi || ref" else (REF, log_pi)
    return torch.autograd.grad((p.exp() * (p - q)).sum(), theta)[0]


def expected_gradient(part: Part) -> Tensor:
    """Mean over the policy's own samples of the gradient of the estimator, samples held fixed."""
    theta = THETA.clone().requires_grad_()
    log_pi = theta.log_softmax(0)
    return torch.autograd.grad((log_pi.exp().detach() * part(log_pi, REF)).sum(), theta)[0]


def test_expected_values() -> None:
    log_pi = THETA.log_softmax(0)
    true = (log_pi.exp() * (log_pi - REF)).sum()
    assert (log_pi.exp() * k1(log_pi, REF)).sum().item() == pytest.approx(true.item())
    assert (log_pi.exp() * k3(log_pi, REF)).sum().item() == pytest.approx(true.item())
    assert abs((log_pi.exp() * k2(log_pi, REF)).sum() - true) > 1e-2


def test_expected_gradients() -> None:
    torch.testing.assert_close(expected_gradient(k1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient(k2), kl_gradient("pi || ref"))
    torch.testing.assert_close(expected_gradient(k3), kl_gradient("ref || pi"))
    assert not torch.allclose(kl_gradient("pi || ref"), kl_gradient("ref || pi"), atol=1e-2)


@every_kl
def test_shape_and_gradient_to_the_policy(part: Part) -> None:
    draw = torch.Generator().manual_seed(0)
    logps = torch.randn(3, 4, generator=draw).requires_grad_()
    values = divergence(part, logps, torch.randn(3, 4, generator=draw))
    assert values.shape == (3, 4)
    assert torch.autograd.grad(values.sum(), logps)[0].ne(0).all()


# forms with another gradient, bounds, and control


def test_the_plus_forms_have_their_own_value_and_the_gradient_of_k2() -> None:
    ref = torch.randn(2, 3, dtype=torch.float64)
    logps = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    expected = torch.autograd.grad(k2(logps, ref).sum(), logps)[0]
    for part, value in ((k1_plus, k1), (k3_plus, k3)):
        actual = part(logps, ref)
        torch.testing.assert_close(actual, value(logps, ref))
        torch.testing.assert_close(torch.autograd.grad(actual.sum(), logps)[0], expected)


OLD = torch.tensor([0.0, 0.3, -0.5, 0.8], dtype=torch.float64).log_softmax(0)


@pytest.mark.parametrize("part", [k1_ratio, k3_ratio], ids=lambda part: part.name)
def test_times_the_ratio_both_are_unbiased_for_samples_of_any_policy(part: Part) -> None:
    """Enumerated: the samples are the old policy's, the divergence is the present one's."""
    theta = THETA.clone().requires_grad_()
    log_pi = theta.log_softmax(0)
    loss = (OLD.exp() * part(log_pi, REF, OLD)).sum()
    true = (log_pi.exp() * (log_pi - REF)).sum()
    assert loss.item() == pytest.approx(true.item())
    torch.testing.assert_close(torch.autograd.grad(loss, theta)[0], kl_gradient("pi || ref"))


@pytest.mark.parametrize("part", [k2, k1_plus, k3_plus], ids=lambda part: part.name)
def test_on_policy_these_follow_the_divergence(part: Part) -> None:
    torch.testing.assert_close(expected_gradient(part), kl_gradient("pi || ref"))


def test_the_ratio_by_hand() -> None:
    args = tensor(math.log(0.5)), tensor(math.log(0.25)), tensor(math.log(0.125))
    assert k1_ratio(*args).item() == pytest.approx(4 * math.log(2))
    assert k3_ratio(*args).item() == pytest.approx(4 * (0.5 - 1 + math.log(2)))


def test_bounds_by_hand() -> None:
    ref = tensor(0.0, 3.0, 30.0, -30.0)
    logps = tensor(0.0, 0.0, 0.0, 0.0).requires_grad_()
    bounded = k3_bounded(logps, ref)
    # e^3 - 1 - 3 = 16.1 is over 10; -30 counts as -20: e^-20 - 1 + 20 = 19, over 10 as well
    assert bounded[0].tolist() == [0, 10, 10, 10]
    wide = k3_bounded(logps, ref, max_value=math.inf)
    assert wide[0, 1].item() == pytest.approx(math.exp(3) - 4)
    assert wide[0, 2].item() == pytest.approx(math.exp(20) - 21)
    assert wide[0, 3].item() == pytest.approx(math.exp(-20) + 19)
    assert torch.autograd.grad(wide.sum(), logps)[0][0, 2:].tolist() == [0, 0]
    assert k3_bounded(logps, ref, max_log_ratio=2.0)[0, 1].item() == pytest.approx(math.exp(2) - 3)


def test_size_of_the_log_ratio() -> None:
    assert k_abs(tensor(1.0, 2.0), tensor(2.0, 0.0)).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target: unchanged
        (6.6, 0.1 * (1 + 0.1 * 256 / 10_000)),
        (60.0, 0.1 * (1 + 0.2 * 256 / 10_000)),  # an error of at most a fifth
        (0.0, 0.1 * (1 - 0.2 * 256 / 10_000)),
    ],
)
def test_the_adapted_coefficient(kl: float, expected: float) -> None:
    coefficient = adapted_coefficient(0.1, kl, target=6.0, horizon=10_000, samples=256)
    assert coefficient == pytest.approx(expected, rel=1e-12)
