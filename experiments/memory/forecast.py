"""The most memory that one process of a run will hold, from the recipe and the model's configuration alone.

A run goes through moments in which different things are held at once; its peak is that of the largest moment, not the
sum of all. Responses are taken to be as long as `train.max_tokens` allows, prompts as long as those of a few training
problems, and every response as trained on.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from core.device import takes_cpu
from core.generation.native import Native, most_samples
from core.generation.noise import SMALL_VOCABULARY
from core.generation.perturbed import Perturbed
from core.loop.recipe import Recipe
from core.loop.staleness import most_updates
from core.model.adapters import LoraSettings
from core.model.attention import wanted_kernel
from core.model.decoding import can_lay_out
from core.model.loading import DTYPES, locate
from core.model.policy import MANY_TOKENS, PolicySettings
from core.parts.options import ObjectiveOptions, ProviderOptions
from experiments.memory.activations import (
    FLOAT,
    Pass,
    cache,
    held_by_draw,
    held_by_layer,
    held_by_logits,
    noise_table,
    saved_beside_layers,
    saved_by_layer,
)
from experiments.memory.architecture import Architecture, meta_model, read_architecture
from experiments.memory.prompts import Prompts, measure_prompts

TOKEN_AHEAD: Final = 77
"""Bytes of a token that waits for its step: as it was sampled, in the batch of its round, and as it was filtered."""


@dataclass(frozen=True)
class Moment:
    """What is held at once: bytes by purpose."""

    phase: str
    """`load`, `sample` or `train`."""
    name: str
    parts: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Forecast:
    """Bytes that one process of a run holds above what its libraries take."""

    moments: Mapping[str, Moment]
    """The largest of each phase."""
    total: int
    """Parameters of the policy, adapters included."""
    trainable: int
    prompts: Prompts
    critic: "CriticSize | None" = None

    @property
    def parts(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes by phase and purpose."""
        return {phase: moment.parts for phase, moment in self.moments.items()}

    @property
    def phase(self) -> str:
        """The phase that decides."""
        return max(self.moments, key=lambda phase: self.moments[phase].bytes)

    @property
    def peak(self) -> int:
        """Bytes at the most."""
        return self.moments[self.phase].bytes


@dataclass(frozen=True)
class Parameters:
    """Counts of parameters."""

    total: int
    trainable: int


def count_parameters(a: Architecture, adapters: LoraSettings | None) -> Parameters:
    """All parameters, and those that are trained: all of them, or the adapters'."""
    if adapters is None:
        return Parameters(a.parameters, a.parameters)
    added = a.adapter_parameters(adapters.rank, adapters.targets)
    return Parameters(a.parameters + added, added)


def forecast(recipe: Recipe, *, processes: int = 1, sharded: bool = False) -> Forecast:
    """The forecast for each of `processes`, among which responses are shared out, and with `sharded` the weights too.

    Raises `GrpoLabError` when the model's configuration or the task's problems cannot be read.
    """
    model = meta_model(recipe.policy)
    run = _Run(recipe, read_architecture(model), critic_of(recipe), measure_prompts(recipe, model), processes, sharded)
    moments = list(run.moments())
    phases = dict.fromkeys(moment.phase for moment in moments)
    largest = {
        phase: max((m for m in moments if m.phase == phase), key=lambda moment: moment.bytes) for phase in phases
    }
    counts = run.counts
    return Forecast(largest, counts.total, counts.trainable, run.prompts, run.critic)


@dataclass(frozen=True)
class CriticSize:
    """A critic's transformer; its head is too small to count."""

    architecture: Architecture
    parameters: int
    trainable: int
    adapters: LoraSettings | None


def critic_of(recipe: Recipe) -> CriticSize | None:
    """The transformer that a recipe trains to predict rewards; None where there is none beside the policy's."""
    settings = next((p.set_values for p in recipe.providers if ProviderOptions.of(p).fills == "values"), {})
    if settings.get("trunk") != "own":
        return None
    other = settings["model"]
    lora = recipe.policy.lora if other is None else None
    a = read_architecture(meta_model(PolicySettings(other or recipe.policy.model)))
    # an output layer of its own is neither copied nor computed
    without_output = a.parameters - (0 if a.tied else a.embedding)
    adapters = a.adapter_parameters(lora.rank, lora.targets) if lora else 0
    return CriticSize(a, without_output + adapters, adapters or without_output, lora)


class _Run:
    """The arithmetic of one run."""

    def __init__(
        self,
        recipe: Recipe,
        a: Architecture,
        critic: CriticSize | None,
        prompts: Prompts,
        processes: int,
        sharded: bool,
    ) -> None:
        self.recipe, self.a, self.critic, self.prompts = recipe, a, critic, prompts
        self._processes, self._sharded = processes, sharded
        self._b = DTYPES[recipe.policy.dtype].itemsize
        self._adapters = recipe.policy.lora
        self.counts = count_parameters(a, self._adapters)
        self._shards = processes if sharded else 1
        kind = "cpu" if takes_cpu() else str(torch.accelerator.current_accelerator())
        self._device = "cpu" if kind == "cpu" else "other"
        self._kernel = wanted_kernel(recipe.policy.attention, kind)

    def moments(self) -> Iterator[Moment]:
        """Every moment that may be the largest."""
        weights = self.a.parameters * (FLOAT if self._sharded else self._b)  # sharded once they are read
        from_gguf = locate(self.recipe.policy.model)[1] is not None
        # GGUF is unpacked as a whole before it is copied in; otherwise a digest of one weight at a time is next
        beside = self.a.parameters * self._b if from_gguf else self.a.embedding * self._b
        yield Moment("load", "reading the model", {"weights": weights, "copies": beside})
        if isinstance(self.recipe.generator, Native):  # another engine's memory is its own
            settings = self.recipe.evaluation
            if self.recipe.source is None:
                yield from self._sampling(
                    self.recipe.prompts,
                    self.recipe.group_size,
                    self.recipe.temperature,
                    self._perturbation(),
                    cut=self.recipe.truncation.cuts,
                    with_support=self.recipe.cuts_trainer,
                )
            own = 0 if settings.ema_lag is None else self.counts.trainable * (FLOAT if self._adapters else self._b)
            cut, samples = settings.truncation.cuts, self._answers_together()
            yield from self._sampling(settings.questions, samples, settings.temperature, own, cut=cut)
        yield from self._training()

    def _held(self) -> dict[str, int]:
        """What is held from the second step on, whatever the phase."""
        b, counts = self._b, self.counts
        frozen = counts.total - counts.trainable
        masters = self._adapters is None and b < FLOAT and not self._sharded
        has_reference = "ref_logps" in self.recipe.variant.needs and self._adapters is None
        width = FLOAT if self._sharded else b  # sharded weights are their own masters
        weights = frozen * width + counts.trainable * (FLOAT if self._adapters else width)
        held = {
            "weights": weights,
            "master weights": FLOAT * counts.trainable if masters else 0,
            "optimizer state": 2 * FLOAT * counts.trainable,
            "reference": self.a.parameters * width if has_reference else 0,
            "moving average": 0 if self.recipe.evaluation.ema_lag is None else FLOAT * counts.trainable,
        }
        if self.critic:
            # masters of what is kept in less; adapters are float32 themselves
            per_parameter = 2 * FLOAT + (FLOAT if self.critic.adapters else b + (FLOAT if b < FLOAT else 0))
            still = self.critic.parameters - self.critic.trainable
            held["critic and its optimizer"] = still * b + self.critic.trainable * per_parameter
        shares = {purpose: -(-count // self._shards) for purpose, count in held.items()}
        return shares | {"rollouts sampled ahead": self._ahead()}  # whole on every process

    def _ahead(self) -> int:
        """What is sampled for later steps, at the most."""
        recipe = self.recipe
        steps = min(most_updates(recipe.staleness) // recipe.updates, recipe.steps - 1)
        cut = 3 * (FLOAT * recipe.truncation.cuts + self.a.vocabulary * recipe.cuts_trainer)
        return steps * recipe.prompts * recipe.group_size * recipe.max_tokens * (TOKEN_AHEAD + cut)

    def _answers_together(self) -> int:
        """Answers a question that an evaluation samples at once: those of small requests share a batch."""
        settings, a = self.recipe.evaluation, self.a
        if a.vocabulary > SMALL_VOCABULARY or settings.temperature != 1:
            return settings.samples
        further = settings.samples_at(self.recipe.steps, self.recipe.steps) - settings.samples
        columns = self.prompts.longest + self.recipe.max_tokens
        most = most_samples(settings.questions, columns, a.layers, a.hidden)
        return max(settings.samples, min(most, max(settings.samples + 1, further)))

    def _perturbation(self) -> int:
        """The policy's own weights while it samples by others, and the noise in these."""
        made = self.recipe.generator
        if not isinstance(made, Perturbed) or made.divergence == 0:
            return 0
        return self.a.parameters * (self._b + (FLOAT if made.divergence else 0))

    def _laid_out(self, tokens: int) -> int:
        """A copy of the weights for sampling so many tokens."""
        a, dtype = self.a, DTYPES[self.recipe.policy.dtype]
        if not a.known_blocks or self._adapters or self._sharded or tokens < MANY_TOKENS:
            return 0
        weights = a.parameters - (0 if a.tied else a.embedding)
        return weights * self._b if can_lay_out(self._device, dtype) else 0

    def _sampling(
        self,
        prompts: int,
        samples: int,
        temperature: float,
        set_aside: int = 0,
        *,
        cut: bool = False,
        with_support: bool = False,
    ) -> Iterator[Moment]:
        """`set_aside`: bytes of the weights that others stand in for."""
        a, b = self.a, self._b
        prompts = -(-prompts // self._processes)
        rows, longest = prompts * samples, self.prompts.longest
        tempered = temperature != 1
        table, making = noise_table(a, self._device)
        kept = {
            **self._held(),
            "gathered weights": a.parameters * b if self._sharded else 0,
            "weights set aside": set_aside,
            "weights laid out": self._laid_out(rows * self.recipe.max_tokens),
            "noise table": table,
            # a byte a token of the vocabulary; joined from those of every step
            "tokens kept": 2 * with_support * rows * self.recipe.max_tokens * a.vocabulary,
        }
        cached = cache(a, prompts, samples, longest, self.recipe.max_tokens, b)
        full = {**kept, "key-value cache": cached}
        prefill = Pass.of(prompts, 0, prompt=self.prompts.mean, longest=longest, response=0)
        logits = rows * a.vocabulary * b
        retire_at = self.recipe.generator.retire_at if isinstance(self.recipe.generator, Native) else 0.0
        # all keys are copied before the old ones go, then all values
        copied = math.ceil(retire_at * cached / 2)
        yield Moment("sample", "drawing the noise table", {**kept, "copies": making})
        yield Moment("sample", "reading the prompts", {**full, "activations": held_by_layer(a, prefill, b)})
        yield Moment(
            "sample",
            "drawing tokens",
            {**full, "logits": held_by_draw(a, rows, b, tempered=tempered, cut=cut, device=self._device)},
        )
        yield Moment("sample", "retiring finished rows", {**full, "logits": logits, "copies": copied})

    def _training(self) -> Iterator[Moment]:
        micros = self._micro_batches()
        # before the first of a step there are no gradients; each process takes one of as many
        yield from self._micro_batch(*micros[0], several=False)
        later = micros[self._processes :]
        if later:
            yield from self._micro_batch(*max(later), several=True)

    def _micro_batch(self, rows: int, prompts: int, *, several: bool) -> Iterator[Moment]:
        """The backward pass of one micro-batch; `several`: gradients of others are there already."""
        recipe, a, b, adapters = self.recipe, self.a, self._b, self._adapters
        p = Pass.of(
            prompts,
            rows,
            prompt=self.prompts.mean,
            longest=self.prompts.longest,
            response=recipe.max_tokens,
            kernel=self._kernel,
        )
        layer = saved_by_layer(a, p, b, adapters)
        checkpointed = bool(recipe.policy.gradient_checkpointing)
        per_layer = p.tokens * a.hidden * b if checkpointed else layer
        activations = a.layers * per_layer + saved_beside_layers(a, p, b, adapters)

        gradients = -(-FLOAT * self.counts.trainable // self._shards)
        before = gradients if several else 0
        head = a.embedding * b if adapters is None else 0
        # embedding and output layer, two decoder layers: the one at work and the next
        gathered = b * ((a.embedding if a.tied else 2 * a.embedding) + 2 * a.layer_parameters) if self._sharded else 0
        held = {**self._held(), "gathered weights": gathered}
        needs_entropy = recipe.variant.entropy_coef != 0 or "entropy" in recipe.variant.objective.parameters
        logits = held_by_logits(a, p, b, tempered=recipe.temperature != 1, entropy=needs_entropy, device=self._device)
        yield Moment(
            "train",
            "backward through the output layer",
            {**held, "gradients": before, "activations": activations, "logits": logits},
        )
        # each tensor that is kept has a gradient of its size, and a checkpointed layer is computed again
        inside = layer * (2 if checkpointed else 1)
        yield Moment(
            "train",
            "backward through the layers",
            {**held, "gradients": before + head, "activations": activations + inside},
        )
        last = self._last_gradients(gradients, several)
        yield Moment("train", "the last gradients", {**held, "gradients": last})
        if self.critic:
            yield from self._critic_batch(self.critic, p, {**held, "gradients": gradients}, several=several)

    def _critic_batch(self, critic: CriticSize, p: Pass, held: dict[str, int], *, several: bool) -> Iterator[Moment]:
        """The critic's backward pass of one micro-batch, while the policy's gradients wait for their step."""
        a, b, adapters = critic.architecture, self._b, critic.adapters
        of_policy = held.pop("gradients")
        gradients = FLOAT * critic.trainable
        layer = saved_by_layer(a, p, b, adapters)
        checkpointed = bool(self.recipe.policy.gradient_checkpointing)
        per_layer = p.tokens * a.hidden * b if checkpointed else layer
        activations = a.layers * per_layer + saved_beside_layers(a, p, b, adapters)
        inside = layer * (2 if checkpointed else 1)
        before = gradients if several else 0
        yield Moment(
            "train",
            "backward through the critic",
            {**held, "gradients": of_policy + before, "activations": activations + inside},
        )
        adding = FLOAT * a.embedding if several and adapters is None else 0
        yield Moment("train", "the critic's last gradients", {**held, "gradients": of_policy + gradients + adding})

    def _last_gradients(self, gradients: int, several: bool) -> int:
        """Gradients at the end of a backward pass, summed in float32; below it, the new ones come on top."""
        a, b = self.a, self._b
        if self._adapters is not None:
            return gradients
        if b < FLOAT and not self._sharded:
            return gradients + several * (a.parameters * b + FLOAT * a.embedding)
        # a tied weight's two gradients meet at the end; what is added to a sum is there beside it
        return gradients + FLOAT * a.embedding * (a.tied + several)

    def _micro_batches(self) -> list[tuple[int, int]]:
        """Rows and prompts of every micro-batch of an optimizer step, split as `core.loop.update` splits them."""
        recipe, prompt, response = self.recipe, self.prompts.mean, self.recipe.max_tokens
        groups, size = -(-recipe.prompts // recipe.minibatches), recipe.group_size
        limit = recipe.micro_tokens
        if self._processes > 1:  # small enough that every process has something to do
            limit = min(limit, -(-groups * (prompt + size * response) // self._processes))
        unit = size if ObjectiveOptions.of(recipe.variant.objective).level == "group" else 1
        micro_batches: list[tuple[int, int]] = []
        rows = prompts = used = 0
        for first in range(0, groups * size, unit):
            starts_group = first % size == 0
            cost = unit * response + prompt * starts_group
            if rows and used + cost > limit:
                micro_batches.append((rows, prompts))
                rows = prompts = used = 0
                starts_group, cost = True, unit * response + prompt
            rows, prompts, used = rows + unit, prompts + starts_group, used + cost
        return [*micro_batches, (rows, prompts)]
