"""Tokens a second of sampling and of training, beside what this machine's matrix products would allow.

A token costs 2 operations a parameter where it is sampled, 6 where it is trained on (forward, and twice that backward),
8 with gradient checkpointing (Kaplan et al. 2020, arXiv:2001.08361, section 2.1; attention is left out):

    share = tokens a second * operations a parameter * parameters / (operations a second of a matrix product)
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from experiments.doctor.finding import CAVEAT, WORKS, Finding
from experiments.doctor.models import subject_of
from experiments.doctor.precisions import clock_of, rate, synchronize
from experiments.doctor.training import name
from experiments.doctor.visit import Visit

SAMPLED, TRAINED, CHECKPOINTED = 2, 6, 8
"""Operations a parameter."""
LITTLE: Final = 0.05
"""Share of the matrix rate below which training has something wrong with it."""
SIZES: Final = {False: (4, 8, 32), True: (32, 8, 128)}
"""Prompts, samples and tokens, by whether on a GPU."""


def check_speed(visit: Visit) -> Iterator[Finding]:
    """Sample and train on as many tokens, and compare with the rate of a matrix product in the same process."""
    import torch

    from core.generation.base import Request
    from core.generation.native import native
    from core.model.loading import DTYPES

    subject = subject_of(visit)
    policy = subject.policy()
    device = policy.device.type
    products = rate(DTYPES[subject.dtype], device)
    prompts, samples, tokens = SIZES[subject.on_gpu]
    texts = [torch.randint(policy.vocabulary, (32,), device=policy.device) for _ in range(prompts)]
    parameters = sum(x.numel() for x in policy.model.parameters())

    generator = native()
    (made,) = generator.generate(policy, [Request(texts, samples, tokens, 1.0, 7)])  # warm, and what is trained on
    sampling = _seconds(lambda: generator.generate(policy, [Request(texts, samples, tokens, 1.0, 7)]), device)
    rows = [t[m] for t, m in zip(made.tokens.flatten(0, 1), made.mask.flatten(0, 1), strict=True)]
    owner = [i // samples for i in range(len(rows))]

    def train() -> None:
        for first in range(0, len(rows), samples):  # a group at a time
            some = slice(first, first + samples)
            logps, _ = policy.logps(texts, rows[some], owner[some], width=tokens)
            logps.sum().backward()  # type: ignore[no-untyped-call]

    train()
    before = policy.backward_tokens
    training = _seconds(train, device)
    trained, sampled = (policy.backward_tokens - before) / training, int(made.mask.sum()) / sampling
    shares = {
        "sampling": sampled * SAMPLED * parameters / products,
        "training": trained * TRAINED * parameters / products,
    }
    numbers: dict[str, Any] = {
        "matrix_rate": products,
        "parameters": parameters,
        "sampled_tokens_a_second": sampled,
        "trained_tokens_a_second": trained,
        "shares": shares,
    }
    seen = (
        f"{sampled:,.0f} tokens/s sampled and {trained:,.0f} trained on, {parameters / 1e6:,.1f}M parameters: "
        f"{shares['sampling']:.0%} and {shares['training']:.0%} of {products / 1e9:,.0f} GFLOP/s"
    )
    title = name("speed against matrix products", visit)
    if shares["training"] < LITTLE:
        remedy = (
            "Look for other work on the machine, and for too small a train.micro_tokens; then report it with the file."
        )
        yield Finding(title, CAVEAT, seen, remedy, numbers)
    else:
        yield Finding(title, WORKS, seen, numbers=numbers)


def _seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call, the device waited for."""
    synchronize(device)
    clock = clock_of(device)
    start = clock()
    call()
    synchronize(device)
    return clock() - start
