"""How the pretend device computes: every operator is checked, counted, and done by torch's CPU kernel."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from tests.pretend.ledger import LEDGER, place
from tests.pretend.rules import UNSTEADY, WAITING, check
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


class Kernel:
    """One operator on the device."""

    def __init__(self, op: Any, name: str) -> None:
        self._op, self._name = op, name
        arguments = op._schema.arguments
        self._draws = any(argument.name == "generator" for argument in arguments)
        kinds = [str(argument.type) for argument in arguments]
        self._tensors = {i for i, kind in enumerate(kinds) if kind in ("Tensor", "Optional[Tensor]")}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute on the values inside, and put the result on the device."""
        check(self._op, self._name, args, kwargs)
        self._count(args)
        wrapped: dict[int, PretendTensor] = {}
        args = tuple(_unwrapped(x, wrapped) for x in args)
        kwargs = {key: _unwrapped(x, wrapped) for key, x in kwargs.items()}
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if self._draws and kwargs.get("generator") is None:
            kwargs["generator"] = GENERATOR
        # a number that stands for a tensor arrives as a number: another overload takes it
        numbers = any(isinstance(x, int | float) and i in self._tensors for i, x in enumerate(args))
        found = (self._op._overloadpacket if numbers else self._op)(*args, **kwargs)
        for x in wrapped.values():
            if x.shape != x.cpu_values.shape:  # an empty out= that grew
                assert not x.numel(), f"{self._name} changed its argument's size"
                with torch._C._ExcludeDispatchKeyGuard(BELOW):
                    torch.ops.aten.as_strided_(x, x.cpu_values.shape, x.cpu_values.stride(), 0)
        return _wrapped(found, wrapped)

    def _count(self, args: Sequence[Any]) -> None:
        name = self._name
        if name in WAITING:
            LEDGER.waits[place(), name] += 1
        if name in UNSTEADY and any(isinstance(x, Tensor) and x.is_floating_point() for x in args):
            LEDGER.unsteady[place(), name] += 1
        LEDGER.launches[name] += name not in FREE


def _unwrapped(given: Any, wrapped: dict[int, PretendTensor]) -> Any:
    if isinstance(given, PretendTensor):
        wrapped[id(given.cpu_values)] = given
        return given.cpu_values
    if isinstance(given, list | tuple):
        return [_unwrapped(x, wrapped) for x in given]
    return CPU if isinstance(given, torch.device) else given


def _wrapped(found: Any, wrapped: Mapping[int, PretendTensor]) -> Any:
    if isinstance(found, Tensor):
        return wrapped.get(id(found)) if id(found) in wrapped else PretendTensor(found)
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
