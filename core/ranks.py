"""Several processes of one run: who does which part of the work, and how the parts come together.

Every process (rank) holds the whole rollout, and computes rewards' shaping, filters, advantages and weights on all of
it. Shared out are sampling, grading and the passes through the models: what is shared is gathered or added up at once,
so that no phase but these knows how many processes there are.
"""

from collections.abc import Sequence
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

Item = TypeVar("Item")


def share(accelerator: Accelerator, n: int) -> slice:
    """This rank's part of n things: consecutive ones, sizes equal or one apart."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    return slice(n * rank // ranks, n * (rank + 1) // ranks)


def gather(accelerator: Accelerator, items: Sequence[Item]) -> list[Item]:
    """The items of all ranks, in the order of the ranks; they are pickled, so tensors belong on the CPU."""
    return list(gather_object(list(items))) if accelerator.num_processes > 1 else list(items)
