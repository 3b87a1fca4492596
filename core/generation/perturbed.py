"""A native sampler that differs from the trainer by a stated amount: a controlled mismatch of engine and trainer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from core.distributed import ranks
from core.errors import GrpoLabError
from core.generation.base import Generation, Request
from core.generation.native import Native
from core.model.policy import Policy
from core.model.trainable import restore, weights_of
from core.model.truncation import WHOLE
from core.parts.contracts import generator
from core.parts.settings import SHARE, Range
from core.randomness import key, stream, torch_generator

Rounding: TypeAlias = Literal["bfloat16", "float8_e4m3", "int8"]
NOISE: Final = stream("perturbed_sampler")
"""Of the weights; its part 1 is of the responses by which their noise is scaled."""
RESPONSES: Final = NOISE.part(1)
PROMPTS: Final = 16
"""Of a rollout, at whose responses the divergence is measured."""
SAMPLES: Final = 2
"""Responses to each."""
FIRST_SCALE: Final = 4.0
"""Standard deviation of the first noise, relative to that of the weights, for a divergence of 1."""
TRIES: Final = 20
CLOSE: Final = 1.15
"""Factor between measured and stated divergence at which the search ends."""
MAX_CHANGE: Final = 10.0
"""Factor by which the noise changes from one try to the next, at most."""
FLOAT8_MAX: Final = 448.0


@dataclass(frozen=True)
class Perturbed(Native):
    """See `perturbed`."""

    round: Rounding | None
    divergence: float | None

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Its probabilities are not the trainer's, on purpose."""
        return self.divergence == 0

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """See `core.generation.Generator`: requests for training by other weights, all others by the policy's own."""
        if not any(map(self._perturbs, requests)):
            return super().generate(policy, requests)
        answers: list[Generation] = []
        for request in requests:
            if self._perturbs(request):
                with self._other_weights(policy, request):
                    answers += super().generate(policy, [request])
            else:
                answers += super().generate(policy, [request])
        return answers

    def _perturbs(self, request: Request) -> bool:
        return request.for_training and request.noise_key is not None and self.divergence != 0

    @contextmanager
    def _other_weights(self, policy: Policy, request: Request) -> Iterator[None]:
        """The policy samples by perturbed weights meanwhile; then it has its own again, bit for bit."""
        if policy.sharding or (self.divergence is not None and ranks() > 1):
            raise GrpoLabError(
                "train.generator = @perturbed() perturbs whole weights, and measures divergences in one process: run "
                "without --accelerate"
            )
        own = {name: weight.clone() for name, weight in weights_of(policy.model.named_parameters()).items()}
        try:
            if self.round is not None:
                _round(policy, self.round)
            else:
                assert self.divergence is not None
                few = _few(request)
                (drawn,) = super().generate(policy, [few])
                tokens, mask = drawn.tokens.flatten(0, 1), drawn.mask.flatten(0, 1)
                responses = [row[valid] for row, valid in zip(tokens, mask, strict=True)]
                _add_noise(policy, own, few, responses, self.divergence)
            yield
        finally:
            restore(policy.model.named_parameters(), own)


@generator(limits={"retire_at": SHARE, "divergence": Range(0, 1)})
def perturbed(*, round: Rounding | None = None, divergence: float | None = None, retire_at: float = 0.75) -> Perturbed:
    """Decoding as `native` does, for training by weights that are rounded, or that carry noise: a stated mismatch.

    Either of two. `round`: "bfloat16" rounds all weights; "float8_e4m3" and "int8" those of linear layers but the
    output layer, to nearest, with one scale a row (its largest weight is 448 or 127); activations are never rounded.
    `divergence` d: every matrix W becomes W + s rms(W) z with normal noise z, and s such that

        mean over tokens of KL(sampler || trainer) = d    in nats a token, at the sampling temperature

    on responses of the policy itself to 16 of the rollout's prompts, two each, before any truncation; 0 is no noise.
    The noise is that of the rollout's noise key: the same direction in every arm of a seed, a new one every rollout.
    `sampler_kl` in the metrics is an estimate of the same quantity on what was sampled.

    The trainer's weights stay as they are. Only what is trained on is sampled so; greedy responses and evaluations are
    the policy's own, so that scores of arms differ by what was learned and not by how they are asked.
    """
    if (round is None) == (divergence is None):
        raise GrpoLabError(
            f"perturbed.round = {round!r} and perturbed.divergence = {divergence}: bind one of the two, e.g. "
            "perturbed.divergence = 1e-3"
        )
    return Perturbed(retire_at, round, divergence)


def _few(request: Request) -> Request:
    """A few of the request's prompts, to be answered by other noise and by whole distributions."""
    return replace(
        request,
        prompts=request.prompts[:PROMPTS],
        slots=request.slot_numbers[:PROMPTS],
        samples=SAMPLES,
        noise_key=key(request.noise_key or 0, RESPONSES),
        truncation=WHOLE,
        with_support=False,
        episodes=None,
    )


@torch.no_grad()
def _round(policy: Policy, rounding: Rounding) -> None:
    """Round the policy's weights in place."""
    if rounding == "bfloat16":
        if policy.dtype == torch.bfloat16:
            raise GrpoLabError(
                "perturbed.round = 'bfloat16' and policy.dtype = 'bfloat16': the trainer's weights are so already"
            )
        for weight in policy.model.parameters():
            weight.copy_(weight.to(torch.bfloat16))
        return
    head = policy.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for layer in policy.model.modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            layer.weight.copy_(rounded(layer.weight.float(), rounding))


def rounded(weight: Tensor, rounding: Literal["float8_e4m3", "int8"]) -> Tensor:
    """A matrix in float32, each row of it to the nearest numbers of 8 bits times one scale."""
    largest = FLOAT8_MAX if rounding == "float8_e4m3" else 127.0
    scale = weight.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(weight.dtype).tiny) / largest
    scaled = weight / scale
    return (scaled.to(torch.float8_e4m3fn).to(weight.dtype) if rounding == "float8_e4m3" else scaled.round()) * scale


@torch.no_grad()
def _add_noise(
    policy: Policy, own: Mapping[str, Tensor], request: Request, responses: Sequence[Tensor], divergence: float
) -> None:
    """Add noise to the policy's `own` weights, so much that at `responses` to `request` it diverges as stated.

    The divergence grows with the square of small noise: a scale is corrected by the root of what it was off by, and by
    bisection once one is known to be too small and another too large.
    """
    noise = _noise(own, request.noise_key or 0)
    owner = [p for p in range(len(request.prompts)) for _ in range(request.samples)]

    def log_probs() -> Tensor:
        """Of the present weights at every token of the responses, [N, V]."""
        counted = policy.forward_tokens
        hidden, _ = policy.predicting(request.prompts, responses, owner, max(map(len, responses)))
        policy.forward_tokens = counted  # what sampling takes is not counted
        return torch.log_softmax(policy.logits(hidden).double() / request.temperature, -1)

    trainer, scale, measured = log_probs(), FIRST_SCALE * math.sqrt(divergence), 0.0
    too_little, too_much = 0.0, math.inf
    if not trainer.isfinite().all():
        return  # the training has broken down, which its updates notice
    for _ in range(TRIES):
        for name, weight in policy.model.named_parameters():
            if name in noise:
                weight.copy_(own[name] + scale * noise[name])
        sampler = log_probs()
        measured = float((sampler.exp() * (sampler - trainer)).sum(-1).mean())
        if 1 / CLOSE <= measured / divergence <= CLOSE:
            return
        too_little, too_much = (scale, too_much) if measured < divergence else (too_little, scale)
        if too_little > 0 and too_much < math.inf:
            scale = math.sqrt(too_little * too_much)
        else:
            factor = math.sqrt(divergence / max(measured, 1e-300))
            scale *= min(max(factor, 1 / MAX_CHANGE), MAX_CHANGE)
    raise GrpoLabError(
        f"perturbed.divergence = {divergence:g}: after {TRIES} tries noise in the weights gives {measured:.3g} nats a "
        "token: state another divergence"
    )


def _noise(weights: Mapping[str, Tensor], noise_key: int) -> dict[str, Tensor]:
    """Normal noise for every matrix, with the root mean square of its weights."""
    draw = torch_generator(noise_key, NOISE)
    return {
        name: torch.randn(weight.shape, generator=draw).to(weight.device) * weight.float().pow(2).mean().sqrt()
        for name, weight in weights.items()
        if weight.ndim > 1
    }
