"""All that one run has: what its phases share, and what a run that goes on must know of the one before."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from core.distributed import gather
from core.errors import GrpoLabError
from core.loop.allocator import keep_freed_memory
from core.loop.recipe import Recipe
from core.loop.resume import load_training, save_training
from core.loop.scoring import GraderLog
from core.loop.weight_average import WeightAverage
from core.model.loading import DTYPES
from core.model.policy import Policy, load_policy
from core.model.sharding import configured_sharding, hash_weights
from core.model.trainable import Stateful, Trainable
from core.parts.batch import Batch
from core.parts.options import AdvantageOptions, ProviderOptions
from core.randomness import key
from core.store.integrity import hash_tensors
from core.store.run_folder import RunStore

Backward: TypeAlias = Callable[[Tensor], None]
"""Adds the gradient of a micro-batch's loss to what the policy's optimizer step will follow."""
COUNTED: Final = (
    "failed_updates",
    "seconds",
    "sampled_tokens",
    "kl_coef",
    "skipped_prompts",
    "has_learned",
    "best_reward",
    "had_spread",
    "all_right",
)
"""What a run that goes on must know of the one before, beside its log of graders."""


class Fill(Protocol):
    """Fills a field of a batch: what a provider gives.

    A checkpoint keeps the state of one that is `Stateful`; the weights of one that is `Trainable` can be sharded.
    """

    def __call__(self, batch: Batch, /) -> Tensor:
        """The field, [P], or [P, G, T]."""
        ...


class Spent(NamedTuple):
    """What a run has spent so far, on this rank where passes are meant; differences are what a step has."""

    sampled_tokens: int
    skipped_prompts: int
    updates: int
    """Which is the version of the policy."""
    forward_tokens: int
    """Through the policy and its providers' models; sampling is apart."""
    backward_tokens: int


@dataclass
class RunState:
    """A run's recipe, seed and policy, what it has counted so far, and, from `start` on, what it trains with."""

    recipe: Recipe
    seed: int
    policy: Policy
    grader_log: GraderLog = field(default_factory=GraderLog)
    failed_updates: int = 0
    """Updates in a row, up to now, whose gradient was not finite."""
    learners: list[Callable[[Batch, Backward], Mapping[str, float]]] = field(default_factory=list)
    """What else learns from the rows of every optimizer step of the policy's; each returns what is to be logged."""
    seconds: float = 0.0
    """Spent on training so far, evaluation apart."""
    sampled_tokens: int = 0
    """Every token generated for the steps so far: discarded groups and greedy baselines included, evaluation not."""
    skipped_prompts: int = 0
    """Drawn for training so far and passed over, in every arm alike, because they do not fit the context."""
    has_learned: bool = False
    """Whether any step so far had a group to train on."""
    best_reward: float = -math.inf
    """The highest that a response had before the first group was trained on."""
    had_spread: bool = False
    """Whether rewards differed within a group before the first was trained on."""
    all_right: bool = True
    """Whether no response was wrong before the first group was trained on."""
    step: int = 0
    """Steps taken so far."""
    providers: dict[str, Fill] = field(default_factory=dict)
    """By the batch field that each fills."""
    optimizer: Any = None
    """The policy's: a `Stepper`, and `Stateful` unless weights are sharded."""
    advantage_state: Any = None
    """The state of a running advantage estimator."""
    average: WeightAverage | None = None
    """Of the policy's weights, where evaluations ask that."""
    queue: Stateful | None = None
    """What has been sampled for later steps, where there may be that."""
    hashes: dict[str, str] = field(default_factory=lambda: {"initial_weights": "", "prompts": "", "first_rollout": ""})
    """Digests by which runs of one seed are known to have begun alike."""
    _began: float = field(default_factory=time.perf_counter)
    """By the clock: when the run would have begun, had it never been stopped."""
    _cpu_began: float = field(default_factory=time.process_time)
    """The same by the process's CPU time, which does not depend on what else the machine does."""

    @classmethod
    def start(cls, recipe: Recipe, seed: int, device: torch.device | str) -> "RunState":
        """A run before its first step: policy, providers, optimizer and estimator as the recipe has them."""
        torch.set_num_threads(recipe.threads)
        keep_freed_memory()
        torch.manual_seed(key(seed, "init"))
        sharding, settings = configured_sharding(), recipe.policy
        # shards are the float32 masters
        loaded = replace(settings, dtype="float32") if sharding else settings
        state = cls(recipe, seed, load_policy(loaded, device))
        state.providers = make_providers(state)
        if sharding:
            for holder in (state.policy, *(p for p in state.providers.values() if isinstance(p, Trainable))):
                holder.shard(sharding, DTYPES[settings.dtype])
        state.optimizer = state.policy.optimizer(recipe.optimizer)
        state.advantage_state = AdvantageOptions.of(recipe.variant.advantage).first_state()
        state.hashes["initial_weights"] = hash_weights(state.policy.model)
        if recipe.evaluation.ema_lag is not None:
            state.average = WeightAverage(state.policy, recipe.evaluation.ema_lag)
        return state

    def resume(self, store: RunStore) -> None:
        """Go on from the last checkpoint, if there is one; results after it are removed, to be made again."""
        checkpoint = load_training(store, self.policy, self.optimizer)
        if checkpoint is not None:
            if checkpoint["hashes"]["initial_weights"] != self.hashes["initial_weights"]:
                model = self.recipe.policy.model
                raise GrpoLabError(f"{store.folder} was started from other weights than {model!r} has now")
            self.load_state_dict(checkpoint)
        store.rewind(checkpoint)

    def save(self, store: RunStore) -> None:
        """Write a checkpoint to go on from."""
        save_training(store, self.policy, self.optimizer, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All but the policy's weights and their optimizer."""
        return {
            "step": self.step,
            "version": self.policy.version,
            "advantage_state": self.advantage_state,
            "hashes": self.hashes,
            "run": {"grader_log": self.grader_log.state_dict(), **{name: getattr(self, name) for name in COUNTED}},
            "seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "providers": {f: p.state_dict() for f, p in self.providers.items() if isinstance(p, Stateful)},
            **({"average": self.average.state_dict()} if self.average else {}),
            **({"queue": queue} if self.queue and (queue := self.queue.state_dict()) else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step, self.advantage_state, self.hashes = state["step"], state["advantage_state"], state["hashes"]
        self.policy.version = state.get("version", 0)  # older checkpoints: ages are differences, from any origin
        self._began = time.perf_counter() - state["seconds"]
        self._cpu_began = time.process_time() - state.get("cpu_seconds", 0.0)
        self.grader_log.load_state_dict(state["run"]["grader_log"])
        for name in COUNTED:
            if name in state["run"]:
                setattr(self, name, state["run"][name])
        for batch_field, provider in self.providers.items():
            if isinstance(provider, Stateful):
                provider.load_state_dict(state["providers"][batch_field])
        if self.average:
            self.average.load_state_dict(state["average"])
        if self.queue:
            self.queue.load_state_dict(state.get("queue", {}))

    def averaged(self) -> AbstractContextManager[None]:
        """The policy has, meanwhile, the weights that evaluations ask."""
        return self.average.in_place() if self.average else nullcontext()

    @property
    def wall_seconds(self) -> float:
        """Seconds that the run has taken so far, all in all."""
        return time.perf_counter() - self._began

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process that the run has taken so far, all threads together."""
        return time.process_time() - self._cpu_began

    @property
    def kl_coef(self) -> float:
        """The variant's KL coefficient, which may be adapted as the run goes on."""
        return self.recipe.variant.kl_coef

    @kl_coef.setter
    def kl_coef(self, value: float) -> None:
        self.recipe = replace(self.recipe, variant=replace(self.recipe.variant, kl_coef=value))

    @property
    def budget_share(self) -> float:
        """How much of its budget, in steps, tokens or seconds, the run has spent so far, 1 at most."""
        recipe = self.recipe
        spent = [self.step / recipe.steps]
        if recipe.token_budget is not None:
            spent.append(self.sampled_tokens / recipe.token_budget)
        if recipe.seconds_budget is not None:
            spent.append(self.seconds / recipe.seconds_budget)
        return min(1.0, max(spent))

    @property
    def is_over(self) -> bool:
        """Whether the step that was just taken is the last: of `steps`, or because the seconds are spent."""
        budget = self.recipe.seconds_budget
        return self.step == self.recipe.steps or (budget is not None and self.seconds >= budget)

    @property
    def exceeds_token_budget(self) -> bool:
        """Whether more has been sampled than the recipe allows."""
        budget = self.recipe.token_budget
        return budget is not None and self.sampled_tokens > budget

    def give_back(self, before: Spent) -> None:
        """Undo the sampling of a step that is not taken after all; raises `GrpoLabError` where that is the first."""
        self.sampled_tokens = before.sampled_tokens
        if self.step == 0:
            raise GrpoLabError(
                f"train.token_budget = {self.recipe.token_budget} is less than the first step samples; raise it"
            )

    def count_step(self, step: int, seconds: float) -> None:
        """A step has been taken, in so many seconds on this rank."""
        self.step = step
        if self.average:
            self.average.update(step)
        self.seconds = gather([self.seconds + seconds])[0]  # all ranks use one clock

    def note_prompts(self, prompts: Sequence[Tensor], responses: Tensor) -> None:
        """Take a step's prompts into the digest of all; its responses make that of the first rollout, if it is."""
        on_host = torch.split(torch.cat(list(prompts)).cpu(), [len(prompt) for prompt in prompts])  # in one copy
        self.hashes["prompts"] = hash_tensors([torch.tensor(list(self.hashes["prompts"].encode())), *on_host])
        self.hashes["first_rollout"] = self.hashes["first_rollout"] or hash_tensors([responses])

    @property
    def spent(self) -> Spent:
        """What has been spent so far."""
        models = (self.policy, *self.providers.values())
        forward, backward = (sum(getattr(m, f"{way}_tokens", 0) for m in models) for way in ("forward", "backward"))
        return Spent(self.sampled_tokens, self.skipped_prompts, self.policy.version, forward, backward)


def make_providers(run: RunState) -> dict[str, Fill]:
    """A filler for every batch field that the run's variant asks for."""
    return {ProviderOptions.of(part).fills: part(run) for part in run.recipe.providers}
