"""A vLLM engine beside the trainer, one in a process at a time."""

import atexit
import copy
import gc
import json
import os
import random
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from core.device import keeping_random_state
from core.distributed import ranks
from core.errors import GrpoLabError
from core.generation.vllm.backend import Answer, Sample
from core.model.loading import DTYPES
from core.model.policy import Policy

TRIED: Final = "0.32."
HEAD_SIZES: Final = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head dimensions that vLLM's attention has kernels for on CPU; with others it fails at the first token."""
ENVIRONMENT: Final = {
    # the engine lives in this process, so that weights are handed over as tensors
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # threads are the recipe's: two engines that each pin and spin on all cores are many times slower than one
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


class Engine:
    """A vLLM engine beside the trainer."""

    def __init__(
        self,
        policy: Policy,
        *,
        max_num_seqs: int,
        kv_cache_gib: float,
        gpu_memory_utilization: float,
        sleep: bool = False,
    ) -> None:
        self.loaded: tuple[weakref.ref[Policy], int] | None = None
        self._sleeps, self._is_asleep = sleep, False
        _check_heads(policy)
        if sleep and policy.device.type == "cpu":
            raise GrpoLabError("vllm.sleep = True gives back memory of a GPU, and the policy is on the CPU: bind False")
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _isolated():
            import vllm as library

        if not library.__version__.startswith(TRIED):
            warnings.warn(
                f"vLLM {library.__version__} was not tried with this version of grpo-lab, which hands weights over by "
                f"internals of {TRIED}x: check that greedy responses equal @native()'s",
                stacklevel=2,
            )
        self._library = library
        self._folder = tempfile.mkdtemp(prefix="grpo-lab-vllm-")
        config = copy.deepcopy(policy.model.config)
        config.architectures = [type(policy.model).__name__]
        if hasattr(config, "quantization_config"):  # a GGUF file's: what is pushed is not quantized
            del config.quantization_config
        config.save_pretrained(self._folder)
        on_gpu = policy.device.type != "cpu"
        memory: dict[str, Any] = (
            {"gpu_memory_utilization": gpu_memory_utilization}
            if on_gpu
            else {"kv_cache_memory_bytes": int(kv_cache_gib * 2**30)}
        )
        with _isolated():
            self._engine = library.LLM(
                self._folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype=_name_of(policy.dtype),
                enforce_eager=not on_gpu,
                max_model_len=policy.context,
                block_size=32 if not on_gpu else None,
                max_num_seqs=max_num_seqs,
                disable_log_stats=True,
                logprobs_mode="processed_logprobs",
                # each rank's engine on the rank's own device
                distributed_executor_backend="external_launcher" if ranks() > 1 else None,
                enable_sleep_mode=sleep,
                seed=0,
                **memory,
            )
        avoid_compiling_ranks()

    def push(self, policy: Policy) -> None:
        """Hand over every weight, and forget what was computed with the old ones."""
        with _isolated():
            if self._is_asleep:  # room for the weights first: while they are handed over, the cache's is still free
                torch.accelerator.empty_cache()
                self._engine.wake_up(tags=["weights"])
            with policy.unsharded():
                self._engine.collective_rpc(load_weights, args=([(n, w.detach()) for n, w in policy.weights()],))
            if self._is_asleep:
                self._engine.wake_up(tags=["kv_cache"])
                self._is_asleep = False
            if not self._engine.reset_prefix_cache():
                raise GrpoLabError(
                    "vLLM did not drop its cache of prompts computed with the old weights: stop this run"
                )

    def rest(self) -> None:
        """Give the GPU's memory back until the next push, where that is asked for; the weights are dropped with it."""
        if self._sleeps:
            self.loaded = None
            with _isolated():
                self._engine.sleep(level=2)
            self._is_asleep = True

    def check(self) -> None:
        """Nothing to check: the engine is this process's alone."""

    def answer(self, samples: Sequence[Sample], end_tokens: Sequence[int]) -> list[Answer]:
        """All in one call."""
        params = [
            self._library.SamplingParams(
                n=1,
                temperature=sample.temperature,
                **vars(sample.truncation),
                seed=sample.seed,
                max_tokens=sample.max_tokens,
                logprobs=0,
                stop_token_ids=list(end_tokens),
                detokenize=False,
            )
            for sample in samples
        ]
        with _isolated():
            outputs = self._engine.generate(
                [{"prompt_token_ids": sample.prompt} for sample in samples], params, use_tqdm=False
            )
        answers = []
        for output in outputs:
            (completion,) = output.outputs
            tokens = list(completion.token_ids)
            logps = [
                float(of_token[token].logprob) for token, of_token in zip(tokens, completion.logprobs, strict=True)
            ]
            answers.append(Answer(tokens, logps, completion.finish_reason == "length"))
        return answers

    def close(self) -> None:
        """Free its memory: a process holds one engine at a time."""
        self._engine.llm_engine.engine_core.shutdown()
        del self._engine
        gc.collect()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _isolated() -> Iterator[None]:
    """Leave the trainer's random numbers, threads and environment as they are.

    vLLM seeds every global generator when it starts, draws from torch's at every token, and on CPU replaces
    `torch.set_num_threads`.
    """
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    python, numpy_state, environment = random.getstate(), np.random.get_state(), dict(os.environ)
    try:
        with keeping_random_state():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)


def load_weights(worker: Any, weights: Sequence[tuple[str, Tensor]]) -> None:
    """In the engine's worker: take over weights named as in transformers."""
    worker.reload_weights(weights_iterator=iter(weights))
    repack_tied_head(worker)


def repack_tied_head(worker: Any) -> None:
    """On CPU an output layer that shares the embeddings keeps a packed copy of its own, which reloading leaves old."""
    model = worker.model_runner.model
    head, embeddings = getattr(model, "lm_head", None), getattr(model.model, "embed_tokens", None)
    if head is None or embeddings is None or head is embeddings:
        return
    if head.weight is embeddings.weight:
        head.quant_method.process_weights_after_loading(head)


def _check_heads(policy: Policy) -> None:
    config = policy.model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if policy.device.type == "cpu" and size not in HEAD_SIZES:
        raise GrpoLabError(
            f"the model's attention heads have {size} dimensions, for which vLLM has no kernel on CPU (it has "
            f"{', '.join(map(str, HEAD_SIZES))}); sample with @native()"
        )


def avoid_compiling_ranks() -> None:
    """Compiling this one line takes seconds at the first response with log-probabilities, and saves nothing on CPU."""
    from vllm.v1.sample import sampler

    def batched_count_greater_than(x: Tensor, values: Tensor) -> Tensor:
        return (x >= values).sum(-1)

    sampler.batched_count_greater_than = batched_count_greater_than


def _name_of(dtype: torch.dtype) -> str:
    return next(name for name, candidate in DTYPES.items() if candidate == dtype)


_engines: dict[Any, Engine] = {}
"""This process's engine by what it was made for; one at most."""


def the_engine(policy: Policy, **settings: Any) -> Engine:
    """This process's engine, made again when model, precision or settings change."""
    config = json.dumps(policy.model.config.to_dict(), sort_keys=True, default=str)
    key = config, policy.dtype, tuple(settings.items())
    if key not in _engines:
        close_engine()
        _engines[key] = Engine(policy, **settings)
    return _engines[key]


@atexit.register
def close_engine() -> None:
    """Free this process's engine, if there is one."""
    while _engines:
        _engines.popitem()[1].close()
