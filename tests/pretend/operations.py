"""Single operations on the device: what CUDA refuses, takes, waits for and does unsteadily."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F

from tests.pretend.ledger import LEDGER

Operation = Callable[[torch.Tensor], Any]

REFUSED: Final[Mapping[str, Operation]] = {
    "a CPU operand": lambda x: x + torch.ones(3),
    "device indices of a CPU tensor": lambda x: torch.ones(3)[x.long()],
    "CPU indices of an embedding": lambda x: F.embedding(torch.zeros(1, dtype=torch.long), x[:, None]),
    "a CPU mask of masked_scatter": lambda x: x.masked_scatter(torch.ones(3, dtype=torch.bool), x),
    "CPU indices of gather": lambda x: x.gather(0, torch.zeros(1, dtype=torch.long)),
    "numpy": lambda x: x.numpy(),
    "a CPU generator": lambda x: x.exponential_(generator=torch.Generator()),
    "a CPU condition": lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
    "CPU values to put": lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1)),
    "a product of integer matrices": lambda x: x.long()[None] @ x.long()[:, None],
}
TAKEN: Final[Mapping[str, Operation]] = {
    "a CPU number": lambda x: x + torch.tensor(1.0),
    "CPU indices": lambda x: x[torch.tensor([0, 1])],
    "a CPU mask": lambda x: x[torch.ones(3, dtype=torch.bool)],
    "a CPU number to put": lambda x: x.index_put_((torch.tensor([0]),), torch.tensor(2.0)),
    "a copy from the CPU": lambda x: x.copy_(torch.ones(3)),
    "a CPU number to choose": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "a product": lambda x: x[None] @ x[:, None],
    "a deep copy of a module": lambda x: __import__("copy").deepcopy(torch.nn.Linear(3, 1, device=x.device))(x),
}
WAITS: Final[Mapping[str, tuple[int, Operation]]] = {
    "arithmetic": (0, lambda x: (x * 2 + 1).sum()),
    "a number to the host": (1, lambda x: float(x.sum())),
    "a list": (1, lambda x: x.tolist()),
    "a branch": (1, lambda x: bool((x > 0).all())),
    "a device mask": (1, lambda x: x[x > 0]),
    "a copy to the host": (1, lambda x: x.cpu()),
    "a copy from the host": (1, lambda x: torch.ones(2).to(x.device)),
    "one that nobody waits for": (0, lambda x: torch.ones(2).to(x.device, non_blocking=True)),
    "a copy within the device": (0, lambda x: x.clone()),
}
UNSTEADY: Final[Mapping[str, tuple[bool, Operation]]] = {
    "scatter_add": (True, lambda x: x.scatter_add(0, x.long(), x)),
    "index_add": (True, lambda x: x.index_add(0, x.long(), x)),
    "cumsum": (True, lambda x: x.cumsum(0)),
    "cumsum of whole numbers": (False, lambda x: x.long().cumsum(0)),
    "the gradient of an embedding": (False, lambda x: F.embedding(x.long(), x[:, None].requires_grad_()).sum()),
}


def refusals(operations: Mapping[str, Operation] | None = None) -> dict[str, str]:
    """Of each operation how it is refused; nothing of one that is taken. None: those of `REFUSED` and `TAKEN`."""
    found = {}
    for name, operation in (operations or {**REFUSED, **TAKEN}).items():
        x = torch.zeros(3, device="pretend")
        try:
            operation(x)
            found[name] = ""
        except (RuntimeError, TypeError) as error:
            found[name] = str(error)
    return found


def counts() -> dict[str, dict[str, int]]:
    """How often each of `WAITS` waits, and how often each of `UNSTEADY` is unsteady."""
    waits, unsteady = {}, {}
    for name, (_, operation) in WAITS.items():
        x = torch.zeros(3, device="pretend")
        LEDGER.clear()
        operation(x)
        waits[name] = LEDGER.waits.total()
    for name, (_, operation) in UNSTEADY.items():
        x = torch.zeros(3, device="pretend")
        LEDGER.clear()
        operation(x)
        unsteady[name] = LEDGER.unsteady.total()
    return {"waits": waits, "unsteady": unsteady}


def own_arithmetic() -> bool:
    """Whether the device is taken for one that runs can compute on."""
    from core.device import takes_cpu

    return not takes_cpu()
