"""TRL's GRPO trainer with keyed noise, and with a greedy response to each prompt where one is asked for."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.errors import GrpoLabError
from experiments.bridges.trl.sampling import handing, keyed_draws, noise_key, without_sampling

try:
    from trl import GRPOTrainer
except ModuleNotFoundError as error:
    raise GrpoLabError("variants inside TRL need it: pip install 'grpo-lab[trl]'") from error


class GeneratingTrainer(GRPOTrainer):  # type: ignore[misc]
    """Samples by noise that is a function of run seed, rollout, prompt, sample and position, wherever it can."""

    generation_config: Any
    _is_greedy = False
    _evaluated = 0
    """Batches of the present evaluation so far."""

    @property
    def keyed_noise(self) -> bool:
        """Whether responses are drawn by keyed noise, so that runs under one seed can be paired.

        Where transformers generates, without `generation_kwargs` of one's own, tools or a `rollout_func`.
        """
        others = (
            self.use_vllm,
            self.use_transformers_continuous_batching,
            self.args.generation_kwargs,
            self.rollout_func,
            self.tools,
        )
        return not any(others)

    @property
    def _updates(self) -> int:
        """Optimizer steps that one generation serves."""
        steps, passes = self.args.steps_per_generation, self.num_iterations
        return int(steps * passes // self.args.gradient_accumulation_steps)

    @property
    def rollout_number(self) -> int:
        """Of the next rollout or the present one, from 1 on."""
        return int(self.state.global_step // self._updates) + 1

    def evaluation_loop(self, *given: Any, **named: Any) -> Any:
        """TRL's; every evaluation answers by the same noise."""
        self._evaluated = 0
        return super().evaluation_loop(*given, **named)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        given = (prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        if not (self._is_greedy or self.keyed_noise):
            return super()._generate_single_turn(*given)
        draws = [] if self._is_greedy else self._draws(len(prompt_ids), num_generations)
        sampling = self.generation_config
        self.generation_config = without_sampling(sampling)
        try:
            with handing(self.model, draws):
                made = super()._generate_single_turn(*given)
        finally:
            self.generation_config = sampling
        if draws and not draws[-1].has_drawn:
            raise GrpoLabError(
                f"keyed noise did not reach the generation of {type(self.model).__name__}, whose responses would all "
                "be greedy: generate with vLLM, or without compiling or wrapping the model"
            )
        return made

    def _draws(self, rows: int, samples: int) -> list[Any]:
        is_training = self.model.training
        number = self.rollout_number if is_training else self._evaluated
        self._evaluated += not is_training
        base = noise_key(self.args.seed, number, is_training)
        first = self.accelerator.process_index * rows
        return keyed_draws(self.generation_config, base, first, rows, samples, self.accelerator.device)

    def greedy(self, inputs: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the greedy response to each prompt of all ranks: rewards by function [P, K], lengths and truncated [P].

        A rank answers the prompts whose groups begin with it, and as many as the others do, to keep in step.
        """
        first, device = self.accelerator.process_index * len(inputs), self.accelerator.device
        begins = [row for row in range(len(inputs)) if (first + row) % self.num_generations == 0]
        most = int(self.accelerator.gather(torch.tensor([len(begins)], device=device)).max())
        rows = [dict(inputs[row]) for row in (*begins, *[0] * (most - len(begins)))]
        if {"image", "images"} & rows[0].keys():
            raise GrpoLabError("a greedy baseline was not tried with images in TRL: choose another advantage")
        prompts = [row["prompt"] for row in rows]
        with self._unlogged():
            _, ids, _, completions, *_ = self._generate(prompts)
            # the method of TRL's trainer: a subclass may keep what it returns, and that is of the samples
            parts = GRPOTrainer._calculate_rewards(self, rows, prompts, completions, ids)
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        told = [[len(each), each[-1] not in ends, row < len(begins)] for row, each in enumerate(ids)]
        lengths, truncated, is_wanted = self.accelerator.gather(torch.tensor(told, device=device)).unbind(1)
        wanted = is_wanted.bool()
        return parts[wanted], lengths[wanted], truncated[wanted].bool()

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """Generate greedily, and count the tokens, but log neither responses nor rewards."""
        logged = {name: list(values) for name, values in self._metrics["train"].items()}
        self._is_greedy = True
        try:
            yield
        finally:
            self._is_greedy = False
            self._metrics["train"] = defaultdict(list, logged | {"num_tokens": [self.state.num_input_tokens_seen]})
            self._pending_extra_logs.clear()
            self._pending_metrics.clear()
