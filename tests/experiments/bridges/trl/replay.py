"""Recorded rollouts, replayed through TRL's trainer and through our own loop: gradients of every step, last weights."""

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from core import Batch, Variant
from core.environments.tasks.chain_sums import chain_sums, final_digit
from core.generation.base import Request
from core.generation.native import native
from core.loop.clock import Clock
from core.loop.learn import learn
from core.loop.loss import compute_advantages, kl_in_reward, needs_old_logps
from core.loop.recipe import Recipe
from core.loop.rewards import filter_groups, shape
from core.loop.run_state import RunState
from core.loop.update import UpdateMetrics, accumulate_gradients, compute_logps
from core.model.loading import EMBEDDED
from core.model.optimizer import OptimizerSettings
from core.model.policy import PolicySettings, load_policy
from core.parts.registry import config
from experiments.bridges.variant import variant_of
from experiments.setup import import_parts
from experiments.study.configs import CONFIGS, build

STEPS: Final = 3
P, G, MAX_TOKENS = 3, 4, 24
WEIGHTS: Final = (1.0, 0.3)
RATE, EPS, NORM = 0.1, 1.0, 1e9
"""Of AdamW: its epsilon is above every gradient and nothing is clipped, so that a wrong scale shows in the weights."""
FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A variant, and how TRL cuts its steps."""

    variant: str
    bindings: tuple[str, ...] = ()
    accumulation: int = 1
    generation: int = 1
    """Optimizer steps a generation."""
    iterations: int = 1
    behaviour: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of_variant(self) -> Variant:
        with contextlib.chdir(FOLDER):
            return variant_of(self.variant, modules=("users_parts",), bindings=self.bindings)

    @property
    def groups(self) -> int:
        """Of a generation: an optimizer step has the rows of 3 groups, of which two processes share the second."""
        return P * self.generation

    def __str__(self) -> str:
        more = "".join(f" {binding}" for binding in self.bindings)
        return f"{self.variant}{more} ga={self.accumulation} spg={self.generation}ga mu={self.iterations}"


@cache
def record(groups: int) -> list[Batch]:
    """Rollouts of the embedded model, ragged, with holes, as our loop has them before shaping."""
    policy, task = load_policy(PolicySettings("embedded", "float32")), chain_sums()
    draw = torch.Generator().manual_seed(5)
    recorded = []
    for step in range(1, STEPS + 1):
        problems = tuple(task.problem("train", 0, step * 100 + p) for p in range(groups))
        prompts = tuple(policy.tokens(problem) for problem in problems)
        (made,) = native().generate(policy, [Request(prompts, G, MAX_TOKENS, 1.0, noise_key=step)])
        texts = [
            policy.texts([row[keep] for row, keep in zip(rows, masks, strict=True)])
            for rows, masks in zip(made.tokens, made.mask, strict=True)
        ]
        right = [
            [final_digit(problem, text).value for text in row] for problem, row in zip(problems, texts, strict=True)
        ]
        parts = torch.stack([torch.tensor(right), made.mask.sum(-1) % 5 / 5], -1).float()
        hole = torch.rand(made.mask.shape, generator=draw) < 0.2
        recorded.append(
            Batch(
                rewards=parts @ torch.tensor(WEIGHTS),
                reward_parts=parts,
                reward_names=("right", "form"),
                reward_weights=WEIGHTS,
                response_mask=made.mask,
                mask=made.mask & ~hole,
                response_tokens=made.tokens,
                prompt_ids=torch.arange(groups),
                prompt_tokens=prompts,
                problems=problems,
                max_tokens=MAX_TOKENS,
                step=step,
                correct=parts[..., 0] >= 1,
                truncated=made.truncated,
                behaviour_logps=made.logps,
            )
        )
    return recorded


@dataclass
class Outcome:
    """What came of three optimizer steps."""

    gradients: list[dict[str, Tensor]]
    weights: dict[str, Tensor]
    rows: list[Tensor] = field(default_factory=list)
    """Of every optimizer step: which rows of its generation it had, over all ranks."""


def in_trl(case: Case, recorded: Sequence[Batch], folder: Path, trainer_class: Any, **more: Any) -> Outcome:
    """Three optimizer steps of TRL's on the recorded rollouts."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig

    outcome = Outcome([], {})

    class Watched(trainer_class):  # type: ignore[misc]
        """Tells which rows each optimizer step has."""

        generations = 0
        seen: list[Tensor]

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            out = super()._generate_and_score_completions(inputs)
            first = self.accelerator.process_index * len(inputs)
            out["row"] = torch.arange(first, first + len(inputs))
            return out

        def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
            self.seen = [*getattr(self, "seen", []), self.accelerator.gather(inputs["row"])]
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss

    class Watch(TrainerCallback):
        """Notes gradients before each optimizer step."""

        def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
            model = given["model"]
            if any(p.grad.any() for p in model.parameters()):  # else a step in which nothing counts
                outcome.gradients.append({name: p.grad.detach().clone() for name, p in _named(model)})
            outcome.rows.append(torch.cat(trainer.seen))
            trainer.seen = []

    def replayed(prompts: list[str], trainer: Any) -> dict[str, Any]:
        batch = recorded[trainer.generations]
        trainer.generations += 1
        first = trainer.accelerator.process_index * len(prompts)
        rows = range(first, first + len(prompts))
        assert prompts == [batch.problems[row // G].prompt for row in rows]
        masks = batch.rows("response_mask")

        def of(values: Tensor) -> list[list[Any]]:
            return [values.flatten(0, 1)[row][masks[row]].tolist() for row in rows]

        return {
            "prompt_ids": [batch.prompt_tokens[row // G].tolist() for row in rows],
            "completion_ids": of(batch.require("response_tokens")),
            "logprobs": of(batch.require("behaviour_logps")) if case.behaviour else None,
            "env_mask": of(batch.mask.long()),
            "parts": batch.rows("reward_parts")[first : first + len(prompts)].tolist(),
        }

    def right(completions: Any, parts: list[list[float]], **_: Any) -> list[float]:
        return [each[0] for each in parts]

    def form(completions: Any, parts: list[list[float]], **_: Any) -> list[float]:
        return [each[1] for each in parts]

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    names = [problem.prompt for batch in recorded for problem in batch.problems]
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": P * G // case.accumulation // ranks,
        "gradient_accumulation_steps": case.accumulation,
        "steps_per_generation": case.accumulation * case.generation,
        "num_iterations": case.iterations,
        "num_generations": G,
        "max_completion_length": MAX_TOKENS,
        "max_steps": STEPS,
        "reward_weights": list(WEIGHTS),
        "learning_rate": RATE,
        "adam_epsilon": EPS,
        "max_grad_norm": NORM,
        "lr_scheduler_type": "constant",
        "shuffle_dataset": False,
        "beta": 0.0,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
    }
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Watched(
            model,
            [right, form],
            GRPOConfig(**(settings | dict(case.settings))),
            train_dataset=Dataset.from_list([{"prompt": name} for name in names]),
            processing_class=AutoTokenizer.from_pretrained(EMBEDDED),
            callbacks=[Watch()],
            rollout_func=replayed,
            **more,
        )
        trainer.train()
    outcome.weights = {name: p.detach().clone() for name, p in _named(trainer.model)}
    return outcome


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        yield name.removeprefix("module."), parameter


def in_ours(case: Case, recorded: Sequence[Batch], rows: Sequence[Tensor], wanted: int) -> Outcome:
    """The same steps by our loop, `wanted` in number: all of a rollout by `learn`, a part of it by its rows."""
    case.of_variant()  # reads the user's module, where no process has yet
    state = RunState.start(_recipe(case), 0, "cpu")
    outcome = Outcome([], {})
    step = state.optimizer.step

    def noting_step(rate: float) -> float:
        outcome.gradients.append({n: p.grad.clone() for n, p in _named(state.policy.model)})
        norm = float(step(rate))
        if len(outcome.gradients) <= wanted:  # a rollout may serve more
            outcome.weights = {n: p.detach().clone() for n, p in state.policy.model.named_parameters()}
        return norm

    state.optimizer.step = noting_step
    if case.generation == 1:
        for batch in recorded[: -(-STEPS // case.iterations)]:
            kept = filter_groups(state.recipe.variant, shape(state.recipe.variant, batch))
            learn(state, kept if kept.groups else None, Clock())
    else:
        _by_rows(state, case, recorded, rows)
    del outcome.gradients[wanted:]
    return outcome


def _recipe(case: Case) -> Recipe:
    bindings = (
        "policy.dtype = 'float32'",
        f"train.steps = {STEPS}",
        f"train.prompts = {case.groups}",
        f"train.group_size = {G}",
        f"train.max_tokens = {MAX_TOKENS}",
        f"train.epochs = {case.iterations}",
        f"train.variant = @{case.variant}()",
        *case.bindings,
    )
    with contextlib.chdir(FOLDER), config([CONFIGS / "embedded.gin"], bindings):
        recipe: Recipe = build("train")
    return replace(recipe, optimizer=OptimizerSettings(RATE, (0.9, 0.999), EPS, 0.0, 0, "constant", NORM))


def _by_rows(state: RunState, case: Case, recorded: Sequence[Batch], rows: Sequence[Tensor]) -> None:
    """Optimizer steps whose rows TRL has drawn, each as groups of one row."""
    variant, updates = state.recipe.variant, case.generation * case.iterations
    for number, chosen in enumerate(rows):
        if number % updates == 0:
            batch = filter_groups(variant, shape(variant, recorded[number // updates]))
            place = {group: p for p, group in enumerate(batch.prompt_ids.tolist())}
            if needs_old_logps(variant, updates):
                batch = batch.having(old_logps=compute_logps(state.policy, batch, temperature=1.0, micro_tokens=10**9))
            for name, fill in state.providers.items():
                batch = batch.having(**{name: fill(batch)})
            batch = kl_in_reward(variant, batch)
            advantages, state.advantage_state = compute_advantages(variant, batch, state.advantage_state)
        chosen = torch.tensor([place[row // G] * G + row % G for row in chosen.tolist() if row // G in place])
        if not len(chosen):
            continue
        accumulate_gradients(
            state.policy,
            variant,
            _ungrouped(batch, chosen),
            advantages.flatten(0, 1)[chosen][:, None],
            torch.Generator(),
            UpdateMetrics({}),
            temperature=1.0,
            micro_tokens=200,
            backward=state.optimizer.backward,
        )
        state.optimizer.step(RATE)


def _ungrouped(batch: Batch, rows: Tensor) -> Batch:
    """These rows as groups of one."""
    of_rows = {n: x.flatten(0, 1)[rows][:, None] for n, x in batch.tensors().items() if x.ndim > 1}
    return batch.having(
        **of_rows,
        prompt_ids=rows,
        prompt_tokens=tuple(batch.prompt_tokens[row // G] for row in rows.tolist()),
        problems=(),
    )


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest difference between numbers of the same name."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


_DONE: Final[dict[tuple[Any, ...], Outcome]] = {}
"""Our side of comparisons, which several cases share."""


def differences(case: Case, theirs: Outcome) -> dict[str, float]:
    """How far our loop is from what came of it in TRL, and how far there was to go."""
    # of a whole rollout, which rows a step has is known; and how TRL cuts a step is nothing to our loop
    rows = theirs.rows if case.generation > 1 else []
    key = (case.variant, case.bindings, case.generation, case.iterations, str([r.tolist() for r in rows]))
    if key not in _DONE:
        _DONE[key] = in_ours(case, record(case.groups), rows, len(theirs.gradients))
    ours = _DONE[key]
    before = {n: p.detach() for n, p in load_policy(PolicySettings("embedded", "float32")).model.named_parameters()}
    return {
        "gradients": max(distance(*pair) for pair in zip(ours.gradients, theirs.gradients, strict=True)),
        "weights": distance(ours.weights, theirs.weights),
        "moved": distance(ours.weights, before),
    }


def bridged(case: Case, folder: Path) -> Outcome:
    """Three steps of the variant in TRL."""
    from experiments.bridges.trl.trainer import BridgedGRPOTrainer

    return in_trl(case, record(case.groups), folder, BridgedGRPOTrainer, variant=case.of_variant(), correct="right")


METHODS: Final = (
    ("grpo",),
    ("dr_grpo",),
    ("dapo",),
    ("rloo",),
    ("gspo",),
    ("cispo",),
    ("grpo", "grpo.advantage = @median_baseline"),
    ("grpo", "grpo.aggregator = @odd_weights"),
)
FURTHER: Final = (
    ("dapo", "dapo.filter = None"),
    ("gdpo",),
    ("reinforce_pp",),
    ("kl_cov",),
    ("grpo", "grpo.kl_coef = 0.1"),
    ("grpo", "grpo.kl_coef = 0.1", "grpo.kl_place = 'reward'"),
)
CASES: Final = tuple(
    Case(name, tuple(bindings), accumulation, generation)
    for name, *bindings in METHODS
    for accumulation in (1, 2)
    for generation in (1, 2)
)


def main() -> None:
    """One of several processes: every case, and every way to break the bridge that needs several."""
    from tests.experiments.bridges.trl.mutants import MUTANTS, applied

    torch.set_num_threads(1)
    import_parts()
    gc.freeze()  # every training ends with a collection, which would look at all that was imported
    folder, is_first = Path(sys.argv[1]), os.environ["RANK"] == "0"
    for number, case in enumerate(CASES):
        outcome = bridged(case, folder / "out")
        if is_first:
            torch.save(vars(outcome), folder / f"{number}.pt")
    for number, mutant in enumerate(MUTANTS.values()):
        if mutant.processes > 1:
            with applied(mutant):
                outcome = bridged(mutant.case, folder / "out")
            if is_first:
                torch.save(vars(outcome), folder / f"mutant-{number}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    # verl's wheel has a package of this name too
    sys.modules["tests"] = ModuleType("tests")
    sys.modules["tests"].__path__ = [str(FOLDER.parents[2])]
    main()
