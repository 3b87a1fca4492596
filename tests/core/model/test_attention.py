"""Every kernel of attention gives a policy's log-probabilities and gradients; which one is taken, and what is said."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core import GrpoLabError
from core.generation.base import Request
from core.generation.native import Native
from core.model import attention, flex
from core.model.adapters import LoraSettings
from core.model.attention import choose_kernel, largest_difference
from core.model.packing import Kernel, Packed
from core.model.policy import Policy, PolicySettings, load_policy

CPU = torch.device("cpu")
ROWS: Final = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), min_size=1, max_size=6)
"""Of each response, its prompt and how many tokens it has."""


def tokens(sizes: Sequence[int], seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 15, (size,), generator=draw) for size in sizes]


def numbers(
    policy: Policy, prompts: Sequence[int], rows: Sequence[tuple[int, int]], holes: float = 0.3
) -> list[Tensor]:
    """Log-probabilities and entropies [R, T], and gradients of what a loss with holes in its mask makes of them."""
    width = max(size for _, size in rows) + 2
    draw = torch.Generator().manual_seed(1)
    policy.model.zero_grad()
    owner = [owner for owner, _ in rows]
    logps, entropies = policy.logps(
        tokens(prompts), tokens([size for _, size in rows], 2), owner, width=width, temperature=0.8, entropy=True
    )
    assert entropies is not None
    mask = torch.rand(logps.shape, generator=draw) >= 0.3
    weights = torch.randn(2, *logps.shape, generator=draw) * mask / max(1, int(mask.sum()))
    torch.autograd.backward((weights[0] * logps + weights[1] * entropies).sum())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in policy.trained()]
    return [logps.detach(), entropies.detach(), *gradients]


def assert_equal(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def both(tiny_folder: Path) -> Callable[[], tuple[Policy, Policy]]:
    """The tiny policy under both kernels."""
    loaded = load_policy(PolicySettings(str(tiny_folder)))

    def make() -> tuple[Policy, Policy]:
        return Policy(loaded.model, loaded.tokenizer, "padded"), Policy(loaded.model, loaded.tokenizer, "flex")

    return make


@pytest.mark.usefixtures("flex_on_cpu")
@settings(max_examples=25)
@given(prompts=st.lists(st.integers(1, 20), min_size=3, max_size=3), rows=ROWS)
def test_flex_gives_the_numbers_of_padded_rows_at_ragged_lengths(
    both: Callable[[], tuple[Policy, Policy]], prompts: list[int], rows: list[tuple[int, int]]
) -> None:
    padded, packed = both()
    assert_equal(numbers(packed, prompts, rows), numbers(padded, prompts, rows))


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("large_scores", [0, 1 << 40])
def test_flex_gives_the_numbers_of_both_padded_ways_over_several_blocks(
    embedded: Policy, large_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products with a mask, and whole sequences through the fused kernel: each beside a row of 500 tokens."""
    monkeypatch.setattr("core.model.packing.LARGE_SCORES", large_scores)
    prompts, rows = (
        (30, 7, 45),
        ((0, 50), (0, 1), (2, 40), (1, 64), (2, 50), (0, 50), (2, 33), (1, 60), (0, 2), (1, 64)),
    )
    policy = Policy(copy.deepcopy(embedded.model), embedded.tokenizer)
    expected = numbers(policy, prompts, rows)
    policy.kernel = "flex"
    assert_equal(numbers(policy, prompts, rows), expected)


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
@pytest.mark.parametrize(
    "changes",
    [{"gradient_checkpointing": True}, {"lora": LoraSettings(2, 4, "all-linear")}],
    ids=["checkpointing", "adapters"],
)
def test_with_activations_computed_again_and_with_adapters(changes: dict[str, Any]) -> None:
    policy = load_policy(PolicySettings("embedded", **changes))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.trained():
            if "lora_" in name:  # they begin with a product of 0
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    prompts, rows = (30, 7), ((0, 50), (1, 1), (0, 33), (1, 64))
    expected = numbers(policy, prompts, rows)
    policy.kernel = "flex"
    assert_equal(numbers(policy, prompts, rows), expected)


@pytest.mark.usefixtures("flex_on_cpu")
def test_in_bfloat16_flex_is_as_near_to_float32_as_padded_rows_are() -> None:
    low = load_policy(PolicySettings("embedded", "bfloat16"))
    exact = load_policy(PolicySettings("embedded"))
    exact.model.load_state_dict(low.model.state_dict())

    @torch.no_grad()
    def logps(policy: Policy, kernel: Kernel) -> Tensor:
        policy.kernel = kernel
        return policy.logps(tokens((30, 7)), tokens((50, 33, 64), 2), [0, 1, 0], width=64)[0]

    expected = logps(exact, "padded")
    padded, packed = (logps(low, kernel) for kernel in ("padded", "flex"))
    assert packed.dtype == torch.float32
    assert not packed.equal(padded)
    assert float((packed - expected).abs().mean()) < 1.2 * float((padded - expected).abs().mean())


@pytest.mark.usefixtures("flex_on_cpu")
def test_prompts_that_are_sampled_from_fill_the_cache_under_any_kernel(tiny: Policy) -> None:
    request = Request(tokens((5, 9)), 3, 8, noise_key=3)
    (expected,) = Native(0.75).generate(tiny, [request])
    tiny.kernel = "flex"
    (ours,) = Native(0.75).generate(tiny, [request])
    assert ours.tokens.equal(expected.tokens)
    assert ours.logps.equal(expected.logps)


def test_copies_attend_as_the_policy_does(tiny: Policy) -> None:
    tiny.kernel = "flex"
    assert tiny.frozen_copy().kernel == "flex"


# --- the choice ------------------------------------------------------------------------------------------------------


def model(kind: str = "cuda", *, width: int = 16) -> Any:
    """What is asked of a model."""
    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=width)
    config.get_text_config = lambda: config
    return SimpleNamespace(config=config, device=torch.device(kind), dtype=torch.bfloat16)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What kernels were tried with; triton is there, and all goes well."""
    asked: list[Any] = []

    def try_out(*arguments: Any) -> float:
        asked.append(arguments)
        return 0.004

    monkeypatch.setattr(attention, "largest_difference", try_out)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return asked


def test_a_cpu_takes_padded_rows_and_nothing_is_tried(tried: list[Any]) -> None:
    assert choose_kernel("auto", model("cpu")) == choose_kernel("padded", model("cpu")) == "padded"
    assert choose_kernel("auto", model("xpu")) == choose_kernel("padded", model("cuda")) == "padded"
    assert not tried
    assert load_policy(PolicySettings("embedded")).kernel == "padded"


def test_cuda_takes_flex_once_it_was_tried_with_the_models_heads(tried: list[Any]) -> None:
    assert choose_kernel("auto", model()) == choose_kernel("flex", model()) == "flex"
    assert tried == 2 * [("flex", 4, 2, 16, torch.bfloat16, torch.device("cuda"))]


def test_flex_on_a_cpu_is_refused_when_the_model_is_loaded() -> None:
    with pytest.raises(GrpoLabError, match=r"policy.attention = 'flex': .* no backward pass on a CPU. Bind .*'padded'"):
        load_policy(PolicySettings("embedded", attention="flex"))


@pytest.mark.parametrize("reason", ["heads", "triton", "raises", "differs"])
def test_where_flex_does_not_work_auto_says_so_and_flex_ends(
    reason: str, tried: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("out of resource: shared memory")

    width, message = 16, "the package triton, which is not installed"
    if reason == "heads":
        width, message = 8, "takes heads of at least 16 numbers, and the model's have 8"
    elif reason == "triton":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    elif reason == "raises":
        monkeypatch.setattr(attention, "largest_difference", fail)
        message = r"does not run for it on cuda \(RuntimeError: out of resource: shared memory\)"
    else:
        monkeypatch.setattr(attention, "largest_difference", lambda *_: float("nan"))
        message = r"gives other numbers on cuda \(relative difference nan\)"
    with pytest.warns(UserWarning, match=f"'auto': attention on padded copies is used, as .*{message}"):
        assert choose_kernel("auto", model(width=width)) == "padded"
    with pytest.raises(GrpoLabError, match=f"policy.attention = 'flex': .*{message}. Bind policy.attention = 'padded'"):
        choose_kernel("flex", model(width=width))


def test_a_full_memory_is_no_reason_to_take_another_kernel(tried: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention, "largest_difference", fail)
    with pytest.raises(torch.OutOfMemoryError):
        choose_kernel("auto", model())


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("key_heads", [1, 4])
def test_the_trial_sees_every_number(key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding alone where both are right; a prompt that is not seen, or a scale that is lost, is no rounding."""
    assert largest_difference("flex", 4, key_heads, 16, torch.float32, CPU) < 1e-5
    assert largest_difference("flex", 4, key_heads, 16, torch.bfloat16, CPU) < attention.TOLERANCE[torch.bfloat16]
    attend, mask = flex.attend, flex.block_mask
    monkeypatch.setattr(flex, "attend", lambda q, k, v, seen, scale: attend(q, k, v, seen, 0.8 * scale))
    assert largest_difference("flex", 4, key_heads, 16, torch.bfloat16, CPU) > attention.TOLERANCE[torch.bfloat16]
    monkeypatch.setattr(flex, "attend", attend)
    monkeypatch.setattr(flex, "block_mask", lambda n, _, device: mask(n, torch.arange(len(n)), device))
    assert largest_difference("flex", 4, key_heads, 16, torch.bfloat16, CPU) > attention.TOLERANCE[torch.bfloat16]


def test_a_mask_is_made_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(flex, "block_mask", lambda lengths, *_: made.append(int(lengths.sum())))
    monkeypatch.setattr(flex, "attend", lambda q, k, v, seen, scale: q)
    packed = Packed(tokens((3, 2)), tokens((4, 1)), [1, 1], kernel="flex")
    q, kv = torch.zeros(10, 4, 8), torch.zeros(10, 2, 8)
    for layer in range(3):
        packed.attend(layer, q, kv, kv, 1.0)
    assert made == [10]
