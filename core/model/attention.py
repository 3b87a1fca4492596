"""Which kernel packed rows attend by: chosen by device, and tried before it is used.

`padded` runs everywhere and is what a CPU takes. `flex` is torch's flex attention, compiled for the device: it reads
each prompt once for all its responses, pads nothing, and forms no scores of pairs of tokens.
"""

import importlib.util
import warnings
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.errors import GrpoLabError, brief, cause_of
from core.model.packing import Kernel, Packed

Attention: TypeAlias = Literal["auto", "padded", "flex"]
SMALLEST_HEAD: Final = 16
"""Numbers in a head from which flex attention has kernels."""
TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest relative difference of results and gradients that counts as rounding."""
PIECES: Final = ((150, 20, 1), ((200, 0), (37, 0), (260, 1), (9, 2)))
"""Tokens of the prompts, and of the responses with the number of their prompt, on which a kernel is tried."""


def wanted_kernel(choice: str, kind: str) -> Kernel:
    """The kernel that a choice means on a kind of device, where it works there."""
    return "flex" if choice == "flex" or (choice == "auto" and kind == "cuda") else "padded"


def choose_kernel(choice: str, model: PreTrainedModel) -> Kernel:
    """The kernel for a model where it is: `auto` is flex on CUDA where it works, else padded, with a warning of why.

    Raises `GrpoLabError` where `flex` is asked for and does not work.
    """
    if wanted_kernel(choice, model.device.type) == "padded":
        return "padded"
    reason = _why_not(model)
    if reason is None:
        return "flex"
    if choice == "flex":
        raise GrpoLabError(
            f"policy.attention = 'flex': {reason}. Bind policy.attention = 'padded', which works everywhere, or 'auto'"
        )
    warnings.warn(f"policy.attention = 'auto': attention on padded copies is used, as {reason}", stacklevel=2)
    return "padded"


def _why_not(model: PreTrainedModel) -> str | None:
    """Why flex attention cannot be used for a model, in a clause; None where it can."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kind = model.device.type
    if kind == "cpu":
        return "torch's flex attention has no backward pass on a CPU"
    if width < SMALLEST_HEAD:
        return f"torch's flex attention takes heads of at least {SMALLEST_HEAD} numbers, and the model's have {width}"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch compiles flex attention by the package triton, which is not installed"
    try:
        difference = largest_difference("flex", heads, key_heads, width, model.dtype, model.device)
    except Exception as error:  # of the compiler, the driver or a kernel that is too large for the device
        if cause_of(error) == "infrastructure":
            raise
        return f"torch's flex attention does not run for it on {kind} ({type(error).__name__}: {brief(error)})"
    if not difference <= TOLERANCE[model.dtype]:
        return f"torch's flex attention gives other numbers on {kind} (relative difference {difference:.2g})"
    return None


def largest_difference(
    kernel: Kernel, heads: int, key_heads: int, width: int, dtype: torch.dtype, device: torch.device
) -> float:
    """How far a kernel is from the padded one on a few pieces: relative, the largest of results and gradients."""
    draw = torch.Generator().manual_seed(0)
    prompts, responses = PIECES
    N = sum(prompts) + sum(size for size, _ in responses)
    inputs = [torch.randn(N, h, width, generator=draw).to(device, dtype) for h in (heads, key_heads, key_heads)]
    weights = torch.randn(N, heads, width, generator=draw).to(device, dtype)

    def numbers(kernel: Kernel) -> list[Tensor]:
        sizes = (prompts, [size for size, _ in responses])
        before, after = ([torch.zeros(n, dtype=torch.long, device=device) for n in part] for part in sizes)
        layout = Packed(before, after, [owner for _, owner in responses], kernel=kernel)
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        with torch.enable_grad():
            out = layout.attend(0, q, k, v, width**-0.5)
            return [out.detach(), *torch.autograd.grad(out, (q, k, v), weights)]

    pairs = zip(numbers(kernel), numbers("padded"), strict=True)
    return max(float((ours.float() - theirs.float()).norm() / theirs.float().norm()) for ours, theirs in pairs)
