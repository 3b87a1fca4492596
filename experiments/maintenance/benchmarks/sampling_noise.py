"""What sampling noise costs for a large vocabulary, and how well each kind couples two similar policies.

    python -m experiments.maintenance.benchmarks.sampling_noise --model FOLDER

Cost: milliseconds to draw one token for each of 64 rows, on one thread. Coupling: how often two policies, the model and
itself with slightly perturbed weights, draw the same token under the same noise; no coupling reaches more than 1 - TV,
the total variation distance between them. Kinds: `direct`, Gumbel noise for every token; `table`, a slice of one Gumbel
table at a keyed offset; `inverse`, one uniform number through the cumulative distribution.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from core.generation.noise import DirectNoise, TableNoise
from core.model.packing import Packed
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.problems import Problem
from core.randomness import fold, row_keys, uniform
from experiments.maintenance.benchmarks.step_time import questions
from experiments.setup import quiet_libraries

ROWS = 64
DRAWS = 40


@torch.no_grad()
def next_logits(policy: Policy) -> Tensor:
    """Logits [ROWS, V] at the ends of the questions and of some continuations."""
    prompts = [policy.tokens(Problem([{"role": "user", "content": q}], a, 0)) for q, a in questions()]
    texts = ["The", "The answer", "The answer is", "It is", "1", "12 +", "Let"]
    starts = [torch.tensor(policy.tokenizer(t)["input_ids"]) for t in texts]
    rows = [torch.cat([prompt, start]) for prompt in prompts for start in starts] + prompts
    packed = Packed(rows)
    return policy.logits(policy.hidden(packed.input_ids, packed.positions, packed)[packed.prompt_end])[:ROWS]


def by_gumbel(noise: DirectNoise | TableNoise) -> Callable[[Tensor, int], Tensor]:
    """Draw position `t` for every row."""
    return lambda logits, t: (logits + noise.at(t)).argmax(-1)


def by_inverse(keys: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Draw position `t` for every row from one uniform number."""

    def draw(logits: Tensor, t: int) -> Tensor:
        cumulative = logits.softmax(-1).cumsum(-1)
        u = uniform(fold(keys, t)).float()[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, u).clamp(max=logits.shape[-1] - 1)[:, 0]

    return draw


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--perturbation", type=float, default=0.01, help="relative to each weight matrix's std")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    policy = load_policy(PolicySettings(options.model, "float32"))
    ours = next_logits(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.ndim == 2:
                weight.add_(
                    torch.randn(weight.shape, generator=generator), alpha=options.perturbation * float(weight.std())
                )
    theirs = next_logits(policy)
    distance = (ours.softmax(-1) - theirs.softmax(-1)).abs().sum(-1).mean() / 2
    print(f"largest possible agreement (1 - total variation): {1 - distance:.4f}")
    keys = row_keys(1, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.long))
    V = ours.shape[1]
    kinds = {
        "direct": by_gumbel(DirectNoise(keys, V)),
        "table": by_gumbel(TableNoise(keys, V, seed=1)),
        "inverse": by_inverse(keys),
    }
    for name, draw in kinds.items():
        agreement = torch.stack([draw(ours, t) == draw(theirs, t) for t in range(DRAWS)]).float().mean()
        seconds = []
        for t in range(10):
            start = time.perf_counter()
            draw(ours, t)
            seconds.append(time.perf_counter() - start)
        print(f"{name:8} agreement {agreement:.4f}   {1000 * min(seconds):6.1f} ms for {ROWS} rows")


if __name__ == "__main__":
    main()
