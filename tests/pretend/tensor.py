"""A tensor that says it is on the pretend device."""

from typing import Any, Final

import torch
from torch import Tensor

NAME: Final = "pretend"
BELOW: Final = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)
"""Dispatch keys to step aside from, so that torch's own kernels for the device come next."""


class PretendTensor(torch.Tensor):
    """Shape, strides and dtype of `cpu_values`, which has the numbers."""

    cpu_values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "PretendTensor":
        # an empty one may be given any size later
        size: dict[str, Any] = {} if values.numel() else {"storage_size": 1 << 50}
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(f"{NAME}:0"),
            **size,
        )
        made.cpu_values = values
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(BELOW):
            return func(*args, **(kwargs or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def data(self) -> Tensor:
        """The tensor without its history."""
        found: Tensor = torch._C.TensorBase.data.__get__(self)  # type: ignore[attr-defined]
        return found

    @data.setter
    def data(self, new: Tensor) -> None:
        torch._C.TensorBase.data.__set__(self, new)  # type: ignore[attr-defined]
        self.cpu_values = new.cpu_values  # type: ignore[attr-defined]

    def tolist(self) -> Any:
        """As on CUDA: copied to the host first."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused as on CUDA, unless forced."""
        if not force:
            raise TypeError(
                f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
                "memory first."
            )
        return self.detach().cpu().numpy()

    def __array__(self, dtype: Any = None) -> Any:
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    def data_ptr(self) -> int:
        """An address, to tell tensors apart by."""
        return self.cpu_values.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """What views have in common."""
        return self.cpu_values.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            made: Any = PretendTensor(self.cpu_values.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                made._is_param = True
            memo[id(self)] = made
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # a checkpoint is read to the CPU, wherever its tensors were
        return self.cpu_values.__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.cpu_values!r})"
