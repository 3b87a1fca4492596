"""What CUDA refuses, where it makes the host wait, and which of its kernels are not steady.

Refused are tensors on different devices, but for numbers (0-dim CPU tensors) where CUDA takes them and CPU indices of a
device tensor; device indices of a CPU tensor; CPU indices in gather, scatter, embedding and masked_scatter; a CPU
generator; products of integer matrices; operators without a CUDA kernel. What torch itself says of an operator is read
from native_functions.yaml, which the wheel ships.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torchgen  # type: ignore[import-untyped]
import yaml
from torch import Tensor

from tests.pretend.tensor import NAME, PretendTensor

WAITING: Final = {
    "aten::_assert_async",
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::histc",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave.Tensor",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
"""Operators that wait for the device, since the host needs their value or the size of their result."""
UNSTEADY: Final = {
    "aten::bincount",
    "aten::cumsum.out",
    "aten::histc",
    "aten::index_add.out",
    "aten::index_add_",
    "aten::index_copy.out",
    "aten::kthvalue.values",
    "aten::median.dim_values",
    "aten::put_",
    "aten::scatter_add.out",
    "aten::scatter_add_",
    "aten::scatter_reduce.two_out",
}
"""On torch's list of what is not deterministic on CUDA for floats; it knows no values, and indices that never meet are
harmless.
"""
PRODUCTS: Final = {
    "aten::addmm",
    "aten::addmm.out",
    "aten::addmv.out",
    "aten::baddbmm.out",
    "aten::bmm",
    "aten::bmm.out",
    "aten::dot",
    "aten::mm",
    "aten::mm.out",
    "aten::mv",
}
INDEXED: Final = {
    "aten::_index_put_impl_",
    "aten::_unsafe_index.Tensor",
    "aten::index.Tensor",
    "aten::index.Tensor_out",
    "aten::index_put",
    "aten::index_put_",
}
"""Operators whose second argument, the indices, may be on the CPU."""


@functools.cache
def _entries() -> dict[str, str]:
    """native_functions.yaml by operator, unread."""
    text = (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    return {entry.split("(")[0]: f"- func: {entry}" for entry in text.split("\n- func: ")[1:]}


@functools.cache
def _entry(name: str) -> dict[str, Any]:
    """What torch says of an operator; nothing where it is generated from another entry."""
    told = _entries().get(name)
    read: list[dict[str, Any]] = yaml.safe_load(told) if told else [{}]
    return read[0]


@functools.cache
def is_strict(name: str) -> bool:
    """Whether torch checks that all tensors are on one device, numbers too."""
    entry = _entry(name)
    return bool(entry) and not str(entry.get("device_check", "")).startswith("NoCheck")


@functools.cache
def has_cuda_kernel(name: str) -> bool:
    """Whether there is a kernel for CUDA; what is generated from another entry has that one's."""
    entry = _entry(name)
    if "dispatch" not in entry or "structured_delegate" in entry or entry.get("structured"):
        return True
    keys = {key.strip() for keys in entry["dispatch"] for key in keys.split(",")}
    return any(key == "CUDA" or key.startswith("Composite") for key in keys)


def tensors_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Tensor, Any]]:
    """All tensors among arguments, and by which place or name each came."""
    found: list[tuple[Tensor, Any]] = []
    for place, given in [*enumerate(args), *kwargs.items()]:
        several = given if isinstance(given, list | tuple) else [given]
        found += [(x, place) for x in several if isinstance(x, Tensor)]
    return found


def check(op: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise what CUDA raises."""
    given, plain, generator = tensors_in(args, kwargs), name.removeprefix("aten::"), kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device.type}'")
    if not has_cuda_kernel(plain):
        raise NotImplementedError(f"Could not run '{name}' with arguments from the 'CUDA' backend")
    if name in PRODUCTS and not (given[0][0].is_floating_point() or given[0][0].is_complex()):
        raise NotImplementedError(f'"addmm_cuda" not implemented for {given[0][0].dtype} (in {name})')
    foreign = [(x, place) for x, place in given if not isinstance(x, PretendTensor)]
    if not foreign or len(foreign) == len(given):
        return
    if name in INDEXED:
        _check_indexed(name, args, foreign)
    elif is_strict(plain) or any(x.ndim for x, _ in foreign):
        arguments = op._schema.arguments
        told = {arguments[place].name if isinstance(place, int) else place for _, place in foreign}
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"(when checking argument {', '.join(sorted(told))} in method wrapper_CUDA_{plain})"
        )


def _check_indexed(name: str, args: Sequence[Any], foreign: Sequence[tuple[Tensor, Any]]) -> None:
    if not isinstance(args[0], PretendTensor):
        raise RuntimeError(
            f"indices should be either on cpu or on the same device as the indexed tensor (cpu) (in {name})"
        )
    values = [x for x, place in foreign if place != 1 and x.ndim]
    if values:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got a CPU value of shape {list(values[0].shape)} for "
            f"{name} on {NAME}:0"
        )
