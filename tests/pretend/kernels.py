"""How the pretend device computes: every operator is checked, counted, and done by torch's CPU kernel."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from tests.pretend.ledger import LEDGER, place
from tests.pretend.rules import PRODUCTS, UNSTEADY, WAITING, check, has_cuda_kernel
from tests.pretend.tensor import BELOW, PretendTensor

FREE: Final = {
    "aten::_local_scalar_dense",
    "aten::_reshape_alias",
    "aten::_unsafe_view",
    "aten::alias",
    "aten::as_strided",
    "aten::detach",
    "aten::empty.memory_format",
    "aten::empty_strided",
    "aten::resize_",
    "aten::unfold",
    "aten::view",
    "aten::view.dtype",
}
"""Operators without a kernel: views, allocations and what is only read."""
GENERATOR: Final = torch.Generator()
"""The device's own random numbers: no draw on it moves the CPU's."""
CPU: Final = torch.device("cpu")
NUMBERS: Final = {bool, float, int}
PLAIN: Final = {*NUMBERS, type(None), torch.dtype}
"""Kinds of arguments that are the same everywhere: most are of these."""


class Kernel:
    """One operator on the device."""

    def __init__(self, op: Any, name: str) -> None:
        self._op, self._name = op, name
        arguments = op._schema.arguments
        self._draws = any(argument.name == "generator" for argument in arguments)
        kinds = [str(argument.type) for argument in arguments]
        self._tensors = [i for i, kind in enumerate(kinds) if kind in ("Tensor", "Optional[Tensor]")]
        self._is_free, self._waits, self._is_unsteady = name in FREE, name in WAITING, name in UNSTEADY

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute on the values inside, and put the result on the device."""
        inside = _Inside()
        values = [inside.of(x) for x in args]
        named = {key: inside.of(x) for key, x in kwargs.items()}
        if inside.has_foreign or self._is_always_checked:
            check(self._op, self._name, args, kwargs)
        self._count(args)
        if named.get("pin_memory"):
            named["pin_memory"] = False
        if self._draws and named.get("generator") is None:
            named["generator"] = GENERATOR
        # a number that stands for a tensor arrives as a number: another overload takes it
        numbers = any(type(values[i]) in NUMBERS for i in self._tensors if i < len(values))
        found = (self._op._overloadpacket if numbers else self._op)(*values, **named)
        for x in inside.wrapped.values():
            if x.shape != x.cpu_values.shape:  # an empty out= that grew
                assert not x.numel(), f"{self._name} changed its argument's size"
                with torch._C._ExcludeDispatchKeyGuard(BELOW):
                    torch.ops.aten.as_strided_(x, x.cpu_values.shape, x.cpu_values.stride(), 0)
        return _wrapped(found, inside.wrapped)

    @functools.cached_property
    def _is_always_checked(self) -> bool:
        """Whether CUDA may refuse it whatever its tensors are on."""
        return self._draws or self._name in PRODUCTS or not has_cuda_kernel(self._name.removeprefix("aten::"))

    def _count(self, args: Sequence[Any]) -> None:
        if self._waits:
            LEDGER.waits[place(), self._name] += 1
        if self._is_unsteady and any(isinstance(x, Tensor) and x.is_floating_point() for x in args):
            LEDGER.unsteady[place(), self._name] += 1
        if not self._is_free:
            LEDGER.launches[self._name] += 1


class _Inside:
    """What CPU kernels compute on in place of an operator's arguments."""

    def __init__(self) -> None:
        self.wrapped: dict[int, PretendTensor] = {}
        self.has_foreign = False
        """Whether there are tensors of another device."""

    def of(self, given: Any) -> Any:
        """The values of an argument."""
        kind = type(given)
        if kind in PLAIN:
            return given
        if kind is list or kind is tuple:
            return given if given and type(given[0]) is int else [self.of(x) for x in given]
        if isinstance(given, PretendTensor):
            self.wrapped[id(given.cpu_values)] = given
            return given.cpu_values
        if isinstance(given, Tensor):
            self.has_foreign = True
        return CPU if kind is torch.device else given


def _wrapped(found: Any, wrapped: Mapping[int, PretendTensor]) -> Any:
    if isinstance(found, Tensor):
        return wrapped[id(found)] if id(found) in wrapped else PretendTensor(found)
    return type(found)(_wrapped(x, wrapped) for x in found) if isinstance(found, list | tuple) else found


def copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """From one place to the other, or within the device.

    torch waits for a copy to the host, and for one from it unless that is `non_blocking`: then it is enough that the
    bytes have been taken out of host memory, which CUDA does before it returns.
    """
    ours = isinstance(source, PretendTensor), isinstance(target, PretendTensor)
    if ours == (True, True):
        LEDGER.launches["copy"] += 1
    elif ours[0]:
        LEDGER.waits[place(), "device to host"] += 1
    elif not non_blocking:
        LEDGER.waits[place(), "host to device"] += 1
    values, into = (x.cpu_values if isinstance(x, PretendTensor) else x for x in (source, target))
    into.copy_(values)
    return target
