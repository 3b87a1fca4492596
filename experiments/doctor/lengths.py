"""Whether what an update holds grows with the length of responses, and not with its square."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from experiments.doctor.finding import CAVEAT, SKIPPED, WORKS, Finding
from experiments.doctor.models import subject_of
from experiments.doctor.training import name
from experiments.doctor.visit import Visit

if TYPE_CHECKING:
    from core.model.policy import Policy

MIB: Final = 2**20
TITLE: Final = "long responses"
PROMPT: Final = 32
"""Tokens."""
LONGEST: Final = {False: 1920, True: 4096}
"""Tokens of the longer response, by whether on a GPU; the shorter has a quarter."""
SHORTEST: Final = 512
"""Of a longer response: what less takes is too little to be told from what else a process holds."""
TIMES: Final = 4
SLACK: Final = 1.25
"""What goes by blocks, and the library's own."""


def check_lengths(visit: Visit) -> Iterator[Finding]:
    """The peak of a forward and backward pass over one response, above what is held before it, at two lengths."""
    from core.loop.allocator import give_back_freed_memory

    give_back_freed_memory()
    subject = subject_of(visit)
    policy = subject.policy()
    title, longest = name(TITLE, visit), min(LONGEST[subject.on_gpu], policy.context - PROMPT) // TIMES * TIMES
    if longest < SHORTEST:
        yield Finding(title, SKIPPED, f"the model's context of {policy.context} tokens is too short")
        return
    _peak(policy, longest)  # gradients are there from now on
    yield judge_lengths(title, longest, *(_peak(policy, n) for n in (longest // TIMES, longest)))


def _peak(policy: "Policy", length: int) -> int:
    """Bytes of an update on one response of so many tokens, above what is held before."""
    import torch

    from experiments.memory.measure import Meter

    prompt, response = (torch.randint(policy.vocabulary, (n,), device=policy.device) for n in (PROMPT, length))
    meter = Meter()
    logps, _ = policy.logps([prompt], [response], [0], width=length)
    logps.sum().backward()  # type: ignore[no-untyped-call]
    return meter.peak()


def judge_lengths(title: str, longest: int, short: int, long: int) -> Finding:
    """The row of the peaks of an update at a quarter of the length and at the whole."""
    times = long / max(1, short)
    seen = (
        f"an update holds {short / MIB:,.0f} MiB for a response of {longest // TIMES:,} tokens and {long / MIB:,.0f} "
        f"MiB for one of {longest:,}: {times:.1f} times as much for {TIMES} times the length"
    )
    numbers = {"tokens": longest, "short": short, "long": long, "times": times}
    if times <= TIMES * SLACK:
        return Finding(title, WORKS, seen, numbers=numbers)
    remedy = "Look at one run with grpolab memory --measure before training on longer responses than were tried."
    return Finding(title, CAVEAT, seen, remedy, numbers)
