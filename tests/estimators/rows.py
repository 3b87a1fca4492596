"""What tests of objectives share: small tensors, losses and gradients."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from core import Part, TokenLoss

seeds = st.integers(0, 1000)
eps = st.floats(0.01, 0.9)


def tensor(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def loss_of(part: Part, *args: Tensor, **hyper: Any) -> Tensor:
    result = part(*args, **hyper)
    loss: Tensor = result.loss if isinstance(result, TokenLoss) else result
    return loss


def info_of(part: Part, *args: Tensor, **hyper: Any) -> dict[str, Tensor]:
    return dict(part(*args, **hyper).info)


def value_and_gradient(part: Part, rows: "Rows", weights: Tensor, *more: Tensor, **hyper: Any) -> tuple[Tensor, Tensor]:
    """The weighted sum of a part's losses, and its gradient in the log-probs."""
    logps = rows.logps.clone().requires_grad_()
    tensors = {"logps": logps, "old_logps": rows.old, "advantages": rows.advantages, "mask": rows.mask}
    arguments = [tensors[name] for name in part.parameters if name in tensors]
    loss = (weights * torch.where(rows.mask, loss_of(part, *arguments, *more, **hyper), 0.0)).sum()
    return loss.detach(), torch.autograd.grad(loss, logps)[0]


class Rows:
    """Log-probs, old log-probs, advantages and a mask with holes, float64; 0 outside the mask, as the core hands in."""

    def __init__(self, seed: int, *, by_token: bool = False, spread: float = 0.5, B: int = 5, T: int = 6) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.mask = torch.rand(B, T, generator=draw) < 0.7
        self.mask[:, 0] = True

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.logps = (noise(B, T) - 3).where(self.mask, 0.0)
        self.old = (self.logps + spread * noise(B, T)).where(self.mask, 0.0)
        self.advantages = noise(B, T) if by_token else noise(B, 1).expand(B, T).clone()
        self.n = self.mask.sum(1, keepdim=True)


def close(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Value and gradient."""
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
