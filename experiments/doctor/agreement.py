"""Whether the ways in which one model computes agree: packed and alone, sampler and trainer, native and vLLM."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from experiments.doctor.finding import CAVEAT, FAILS, REPORT, SKIPPED, WORKS, Finding
from experiments.doctor.models import Subject, subject_of
from experiments.doctor.training import name
from experiments.doctor.visit import Visit

if TYPE_CHECKING:
    from torch import Tensor

    from core.generation.base import Generation
    from core.model.policy import Policy

ROUNDING: Final = 5e-4
"""Nats a token: float32 differs by less."""
COARSE: Final = 1e-2
"""Nats a token: what products in TF32 or the like differ by, and no mistake."""
ENGINES_APART: Final = 0.1
"""Nats a token in the mean: in bfloat16 two kernels differ by about 0.04."""
TF32: Final = (
    "Unset what allows TF32 (torch.backends.cuda.matmul.allow_tf32, NVIDIA_TF32_OVERRIDE), or bind train.correction = "
    "@token_truncated."
)
SHAPES: Final = ((5, 3), (4, 7, 9))
"""Tokens of prompts, and of responses: the first two of the first prompt, the last of the second."""
OWNER: Final = (0, 0, 1)


def check_packed(visit: Visit) -> Iterator[Finding]:
    """Log-probabilities of packed rows, against each row alone through the model as transformers has it."""
    import torch

    subject = subject_of(visit)
    policy = subject.policy("float32")
    draw = torch.Generator().manual_seed(0)
    prompts, responses = (
        [torch.randint(policy.vocabulary, (size,), generator=draw).to(policy.device) for size in sizes]
        for sizes in SHAPES
    )
    with torch.no_grad():
        packed, _ = policy.logps(prompts, responses, OWNER, width=max(SHAPES[1]))
    differences = [
        float((row[: len(response)] - alone).abs().max())
        for row, response, alone in zip(packed, responses, _alone(subject, policy, prompts, responses), strict=True)
    ]
    yield _judged(
        name("packed against alone", visit), max(differences), "log-probabilities of packed rows and of rows alone"
    )


def _alone(
    subject: Subject, policy: "Policy", prompts: Sequence["Tensor"], responses: Sequence["Tensor"]
) -> list["Tensor"]:
    """Of every response by itself, with nothing of ours between."""
    import torch

    from core.model.loading import read_model

    model, _ = read_model(subject.model, torch.float32)
    model.to(policy.device).eval()  # type: ignore[arg-type]
    found = []
    with torch.no_grad():
        for owner, response in zip(OWNER, responses, strict=True):
            logits = model(torch.cat([prompts[owner], response])[None]).logits[0, len(prompts[owner]) - 1 : -1]
            found.append(torch.log_softmax(logits.float(), -1).gather(-1, response[:, None])[:, 0])
    return found


def check_sampler(visit: Visit) -> Iterator[Finding]:
    """Log-probabilities of sampled tokens, as the native sampler reports them and as the trainer computes them."""
    policy = subject_of(visit).policy("float32")
    prompts = _prompts(policy)
    sampled = _sampled(policy, prompts)
    difference = float((trainer_logps(policy, prompts, sampled) - sampled.logps).abs().max())
    yield _judged(name("sampler against trainer", visit), difference, "log-probabilities of sampler and trainer")


def _judged(title: str, difference: float, what: str) -> Finding:
    """The row of a difference in float32."""
    seen, numbers = f"{what} differ by at most {difference:.1g} in float32", {"difference": difference}
    if difference <= ROUNDING:
        return Finding(title, WORKS, seen, numbers=numbers)
    if difference <= COARSE:
        return Finding(title, CAVEAT, f"{seen}: products are rounded more than float32 is", TF32, numbers)
    return Finding(title, FAILS, seen, REPORT, numbers)  # NaN, too


def check_vllm(visit: Visit) -> Iterator[Finding]:
    """Greedy text of vLLM and of the native sampler in float32, and vLLM's probabilities against the trainer's."""
    import importlib.util

    title = name("native against vLLM", visit)
    if importlib.util.find_spec("vllm") is None:
        yield Finding(
            title, SKIPPED, "vLLM is not installed (pip install 'grpo-lab[vllm]', in an environment of its own)"
        )
        return
    from core.generation.vllm import vllm

    policy, engine = subject_of(visit).policy("float32"), vllm()
    prompts = _prompts(policy)
    native_text, engine_text = _greedy(policy, prompts), _greedy(policy, prompts, engine)
    sampled = _sampled(policy, prompts, engine)
    apart = (trainer_logps(policy, prompts, sampled) - sampled.logps).abs()
    mean = float(apart.sum() / sampled.mask.sum())
    share = equal_share(native_text, engine_text)
    seen = f"{share:.0%} of greedy tokens equal; probabilities {mean:.1g} nats a token apart in the mean"
    numbers = {"equal": share, "apart": mean}
    if not mean <= ENGINES_APART:
        yield Finding(
            title, FAILS, seen, "Bind train.generator = @native(), and report it with the file attached.", numbers
        )
    elif share < 1:
        yield Finding(
            title, CAVEAT, seen, "Bind train.correction = @token_truncated with train.generator = @vllm().", numbers
        )
    else:
        yield Finding(title, WORKS, seen, numbers=numbers)


def equal_share(one: "Generation", other: "Generation") -> float:
    """The share of the tokens of `one` that stand at their place in `other` too."""
    width = min(one.tokens.shape[-1], other.tokens.shape[-1])
    tokens, masks = ([x[..., :width] for x in pair] for pair in ((one.tokens, other.tokens), (one.mask, other.mask)))
    same = (tokens[0] == tokens[1]) & masks[0] & masks[1]
    return float(same.sum() / one.mask.sum())


def trainer_logps(policy: "Policy", prompts: Sequence["Tensor"], generation: "Generation") -> "Tensor":
    """The trainer's log-probabilities of what was generated: [P, S, T], 0 past the end."""
    import torch

    P, S, T = generation.tokens.shape
    rows = [t[m] for t, m in zip(generation.tokens.flatten(0, 1), generation.mask.flatten(0, 1), strict=True)]
    with torch.no_grad():
        logps, _ = policy.logps(prompts, rows, [p for p in range(P) for _ in range(S)], width=T)
    return logps.view(P, S, T)


def _prompts(policy: "Policy") -> list["Tensor"]:
    from core.parts.problems import Problem

    return [policy.tokens(Problem(text, "", 0)) for text in ("1+2=", "9+9+9+9+9+9=", "3+1+4+1+5+9+2+6+5+3+5+8=")]


def _sampled(policy: "Policy", prompts: Sequence["Tensor"], generator: Any = None) -> "Generation":
    from core.generation.base import Request

    return _generate(policy, Request(prompts, 4, 24, 1.0, 99), generator)


def _greedy(policy: "Policy", prompts: Sequence["Tensor"], generator: Any = None) -> "Generation":
    from core.generation.base import Request

    return _generate(policy, Request(prompts, 1, 24), generator)


def _generate(policy: "Policy", request: Any, generator: Any) -> "Generation":
    from core.generation.native import native

    (made,) = (generator or native()).generate(policy, [request])
    return made  # type: ignore[no-any-return]
