"""A pretend accelerator: torch takes `pretend:0` for a device of its own, which obeys CUDA's rules.

Values come from torch's own CPU kernels; what is pretended is the place. The dispatch key for private backends is set
up for Python, and every aten operator that has no kernel for it gets one here. Composite and structured operators keep
torch's C++ code, so that TensorIterator's own checks of devices run.

It cannot show speed, the rounding and memory of CUDA's kernels, streams, NCCL, or which attention kernel is taken (here
always the composed one).
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from tests.pretend.kernels import GENERATOR, Kernel, copy
from tests.pretend.tensor import NAME

REMADE: Final = {"aten::_unsafe_view", "aten::alias", "aten::detach", "aten::view.dtype"}
"""Composite operators that reach for a tensor's storage."""
MEMORY: Final = 64 << 30
"""Bytes of the device, all free."""
_library: list[Any] = []


class _Module:
    """`torch.pretend`, as torch asks of every backend."""

    _initialized = True

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def set_device(self, _: Any) -> None: ...

    def device_count(self) -> int:
        return 1

    def synchronize(self, *_: Any) -> None: ...

    def empty_cache(self) -> None: ...

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        GENERATOR.manual_seed(seed)

    manual_seed_all = manual_seed

    def initial_seed(self) -> int:
        return GENERATOR.initial_seed()

    def get_rng_state(self, *_: Any) -> Tensor:
        return GENERATOR.get_state()

    def set_rng_state(self, state: Tensor, *_: Any) -> None:
        GENERATOR.set_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @contextlib.contextmanager
    def device(self, _: Any) -> Iterator[None]:
        yield


def install() -> None:
    """Make the device, for good: once in a process, and before anything else of torch's is asked about devices."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # torch would ask the device's allocator, and one cannot be written in Python
    torch.accelerator.get_memory_info = lambda _=None: (MEMORY, MEMORY)
    torch.accelerator.empty_cache = lambda: None
    # a module moved here keeps its Parameter objects, and so its tied weights, as on CUDA
    torch.__future__.set_swap_module_params_on_conversion(True)
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    _library.append(library)
    for name in torch._C._dispatch_get_all_op_names():
        known = torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "PrivateUse1")
        if not name.startswith("aten::") or (known and name not in REMADE and name != "aten::_copy_from"):
            continue
        base, _, overload = name.removeprefix("aten::").partition(".")
        op = getattr(getattr(torch.ops.aten, base), overload or "default")
        library.impl(op, copy if name == "aten::_copy_from" else Kernel(op, name), "PrivateUse1")
