"""Several processes of one run (ranks): who does which part of the work, and how the parts come together.

Every rank holds the whole rollout, and computes filters, shaping, advantages and weights on all of it. Shared out are
sampling, grading and the passes through the models; what is shared is gathered or added up at once, so that no other
phase knows how many ranks there are.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, TypeVar

import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor

from core.device import be_deterministic, takes_cpu
from core.errors import GrpoLabError

Item = TypeVar("Item")

PATIENCE: Final = timedelta(minutes=30)
"""For which ranks wait for one that grades or writes: gloo's own; NCCL's is a third of it."""
BUCKET_ELEMENTS: Final = 1 << 24
"""Elements that travel together."""


def init() -> Accelerator:
    """Become one of the processes that torchrun or accelerate started, or the only one."""
    try:
        accelerator = Accelerator(cpu=takes_cpu(), kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    except ImportError as error:
        raise GrpoLabError(
            f"accelerate's configuration asks for a package that is not installed: {error}; "
            "for DeepSpeed, pip install 'grpo-lab[deepspeed]'"
        ) from error
    if accelerator.device.type == "cuda":
        be_deterministic()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise GrpoLabError(
            f"{started} processes were started (WORLD_SIZE), but accelerate joins "
            f"{accelerator.num_processes}: start them with torchrun or accelerate launch"
        )
    if accelerator.mixed_precision != "no" or accelerator.gradient_accumulation_steps != 1:
        # accelerate would scale the loss, and nothing would undo it
        raise GrpoLabError(
            "accelerate's configuration: mixed_precision must be 'no' (precision is policy.dtype) and "
            "gradient_accumulation_steps 1 (micro-batches are train.micro_tokens)"
        )
    return accelerator


def ranks() -> int:
    """How many processes make this run."""
    return int(PartialState().num_processes)


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return bool(PartialState().is_main_process)


def local_slice(n: int) -> slice:
    """This rank's part of n things: consecutive ones, as many as any other's or one more or less."""
    rank = PartialState().process_index
    return slice(n * rank // ranks(), n * (rank + 1) // ranks())


def assign_by_cost(turns: Sequence[Item], costs: Sequence[int]) -> list[Item | None]:
    """This rank's turns, in order; None where others have more, since collective work needs all ranks in every turn.

    The costliest first, each to the rank with least to do.
    """
    hands: list[list[int]] = [[] for _ in range(ranks())]
    loads = [0] * len(hands)
    for i in sorted(range(len(turns)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        hands[least].append(i)
        loads[least] += costs[i]
    mine = sorted(hands[PartialState().process_index])
    return [turns[i] for i in mine] + [None] * (max(map(len, hands)) - len(mine))


def gather(items: Sequence[Item]) -> list[Item]:
    """The items of all ranks, in the order of the ranks; they are pickled, so tensors belong on the CPU."""
    return list(gather_object(list(items))) if ranks() > 1 else list(items)


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all ranks; small ones travel together."""
    if ranks() == 1:
        return
    while tensors:
        size, some = 0, list[Tensor]()
        while len(some) < len(tensors) and (not some or size + tensors[len(some)].numel() <= BUCKET_ELEMENTS):
            size += tensors[len(some)].numel()
            some.append(tensors[len(some)])
        # NCCL carries what is on a GPU only
        parcel = torch.cat([tensor.flatten() for tensor in some]).to(PartialState().device)
        torch.distributed.all_reduce(parcel)
        for tensor, total in zip(some, torch.split(parcel, [tensor.numel() for tensor in some]), strict=True):
            tensor.copy_(total.view_as(tensor))
        tensors = tensors[len(some) :]


def barrier() -> None:
    """Go on when every rank has come here."""
    PartialState().wait_for_everyone()


def shutdown() -> None:
    """Part from the other ranks, all together: one that ends while another still talks to it would be aborted."""
    barrier()
    PartialState().destroy_process_group()
