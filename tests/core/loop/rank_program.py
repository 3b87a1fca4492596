"""What the processes of `test_ranks` run: recipes on rollouts that do not depend on the policy, so nothing can part."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from core import SETTINGS
from core.distributed import gather, is_main, shutdown
from core.generation.base import Generation, Request
from core.loop.recipe import Recipe
from core.loop.train import Interrupted, run
from core.model.policy import Policy
from core.parts.contracts import objective, reward
from core.parts.environments import Step, environment
from core.parts.problems import Problem, Score
from core.parts.registry import config
from core.randomness import fold, uniform
from core.store.run_folder import RunStore
from experiments.setup import import_parts, quiet_libraries

LIMIT = 24


@dataclass
class Recorded:
    """Responses of ragged lengths that are a function of (noise key, slot, sample) alone, as if read from a record."""

    policy: Policy | None = None
    seen: list[tuple[int | None, tuple[int, ...], list[list[int]]]] = field(default_factory=list)

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Takes note of what was asked, and of whom."""
        self.policy = policy
        return [self._answer(policy, request) for request in requests]

    def _answer(self, policy: Policy, request: Request) -> Generation:
        self.seen.append((request.noise_key, request.slot_numbers, [p.tolist() for p in request.prompts]))
        P, S = len(request.prompts), request.samples
        keys = request.noise_keys().flatten()
        lengths = (2 + (uniform(fold(keys, 1)) * (LIMIT - 2)).long()).clamp(max=request.max_tokens)
        tokens = (uniform(fold(keys[:, None], 2 + torch.arange(LIMIT))) * (policy.vocabulary - 4)).long() + 4
        mask = torch.arange(LIMIT) < lengths[:, None]
        logps = torch.where(mask, -2.0 - uniform(fold(keys[:, None], 100 + torch.arange(LIMIT))).float(), 0.0)

        def shaped(x: Tensor) -> Tensor:
            return x.view(P, S, *x.shape[1:])

        return Generation(
            tokens=shaped(torch.where(mask, tokens, 0)),
            mask=shaped(mask),
            logps=shaped(logps),
            entropy=shaped(torch.where(mask, 1.0, 0.0)),
            truncated=shaped(lengths == LIMIT - 1),
        )


def register_parts() -> None:
    """Parts of these runs alone: whoever imports this file has none of them among his own."""

    @reward
    def a_quarter(problem: Problem, response: str) -> Score:
        """One for about a quarter of the responses, so that some groups have no spread."""
        right = len(response) % 4 == len(str(problem.prompt)) % 4
        return Score(float(right), right)

    class Halves:
        """Wants a second answer of whoever answered at length, of at most 24 tokens in all."""

        def reset(self, problem: Problem, seed: int) -> str:
            return str(seed % 10)

        def step(self, action: str) -> Step:
            return Step(f"{len(action)}=", reward=len(action) / 100, done=len(action) < 7)

    @environment
    def halves() -> Halves:
        """Of two turns, often."""
        return Halves()

    @objective
    def breaks_on_one_rank(logps: Tensor, advantages: Tensor) -> Tensor:
        """A policy gradient that the last of several ranks cannot compute."""
        if not is_main():
            raise ZeroDivisionError("this rank is out of order")
        return -logps * advantages

    @objective
    def breaks_at_times(logps: Tensor, advantages: Tensor) -> Tensor:
        """A policy gradient that is not finite where all but one of four responses were right."""
        return -logps * advantages.where(advantages > -1.4, torch.nan)


def numbers_held(weight: Tensor) -> int:
    """How many of a weight's numbers are on this rank."""
    if isinstance(weight, DTensor):
        return weight.to_local().numel()
    return weight.numel() + (weight.ds_tensor.numel() if hasattr(weight, "ds_tensor") else 0)


def recipe_of(bindings: Sequence[str], *, recorded: bool) -> Recipe:
    """The recipe for all cases, and what a case binds."""
    common = (
        "train.variant = @dapo()",
        "train.task = @chain_sums()",
        "train.generator = @native()",
        "train.rewards = [@a_quarter]",
        "train.steps = 6",
        "train.prompts = 6",
        "train.group_size = 4",
        f"train.max_tokens = {LIMIT}",
        "train.minibatches = 2",
        "train.micro_tokens = 300",
        "train.checkpoint_every = 2",
        "adamw.learning_rate = 1e-5",
        "evaluation.questions = 3",
        "evaluation.every = 6",
    )
    with config(bindings=[*common, *bindings]):
        recipe: Recipe = SETTINGS["train"]()
    return replace(recipe, generator=Recorded()) if recorded else recipe


def main(folder: Path, cases: dict[str, list[str]], *, recorded: bool, stop_at: int) -> None:
    """Run every case, its store in a folder of its own, until a step at which it is interrupted (0: to the end).

    What each rank was asked to sample, and how much of the weights it holds, is written beside the run.
    """
    import_parts()
    register_parts()
    quiet_libraries()
    for name, bindings in cases.items():
        recipe = recipe_of(bindings, recorded=recorded)

        def watch(record: Mapping[str, Any]) -> None:
            if record["step"] == stop_at:
                raise Interrupted

        with suppress(Interrupted):
            run(recipe, 3, RunStore(folder / name), facts={"identity": {}}, watch=watch)
        if recorded:
            assert isinstance(recipe.generator, Recorded)
            seen = gather([recipe.generator.seen])
            assert recipe.generator.policy
            held = gather([sum(map(numbers_held, recipe.generator.policy.model.parameters()))])
            if is_main():
                (folder / name / "held.json").write_text(json.dumps(held))
                (folder / name / "asked.json").write_text(json.dumps(seen))


def program(line: str) -> None:
    """Take part in what is asked for."""
    request = json.loads(line)
    main(Path(request["folder"]), request["cases"], recorded=request["recorded"], stop_at=request["stop_at"])
    shutdown()


def in_a_fork(line: str) -> None:
    """The same where OMP_NUM_THREADS has not been read."""
    torch.set_num_threads(1)
    program(line)


if __name__ == "__main__":
    program(sys.argv[1])
