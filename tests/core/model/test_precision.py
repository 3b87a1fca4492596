"""What is computed in which precision where weights are bfloat16: the table in docs/scaling.md, and each operation."""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.generation.base import Request
from core.generation.native import Native
from core.model.logps import token_logps
from core.model.optimizer import Optimizer, OptimizerSettings, adamw
from core.model.packing import Packed
from core.model.policy import Policy, PolicySettings, load_policy

LOW, FULL = torch.bfloat16, torch.float32
PROMPTS: Final = [torch.tensor([3, 1, 4]), torch.tensor([5, 9])]
RESPONSES: Final = [torch.tensor(r) for r in ([3, 5, 8], [9, 1], [7, 9, 3, 2])]
OWNER: Final = [0, 1, 1]
SENSITIVE: Final = {
    *("softmax", "log_softmax", "softmax_backward_data", "logsumexp", "exp", "log", "rsqrt", "pow", "mean", "cumsum"),
    *("cos", "sin", "argmax"),
}
"""What loses most in 8 bits: exponents, logarithms, norms, and sums over many numbers."""


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Precisions of the first tensor of every operation, by its name; each operation is carried out as it is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: defaultdict[str, set[torch.dtype]] = defaultdict(set)
        self.autocast = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = next((x for x in args if isinstance(x, Tensor)), None)
        if first is not None and first.is_floating_point():
            self.seen[func.overloadpacket.__name__.strip("_")].add(first.dtype)
        self.autocast |= torch.is_autocast_enabled("cpu")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def low() -> Policy:
    return load_policy(PolicySettings("embedded", "bfloat16"))


def logps(policy: Policy) -> Tensor:
    values, entropies = policy.logps(PROMPTS, RESPONSES, OWNER, width=4, temperature=0.7, entropy=True)
    assert entropies is not None
    return values + entropies


def training(policy: Policy) -> None:
    torch.autograd.backward(logps(policy).sum())


def sampling(policy: Policy) -> None:
    Native(0.75).generate(policy, [Request(PROMPTS, 2, 4, noise_key=1, temperature=0.7)])


@pytest.mark.parametrize("work", [training, sampling])
def test_what_loses_most_is_float32_and_large_products_are_not(low: Policy, work: Callable[[Policy], None]) -> None:
    policy = Policy(copy.deepcopy(low.model), low.tokenizer)
    with Watched() as watched:
        work(policy)
    found = {name: watched.seen[name] for name in SENSITIVE if name in watched.seen}
    assert found.keys() >= {"softmax", "exp", "rsqrt", "mean"}
    assert {name: kinds for name, kinds in found.items() if not kinds <= {FULL, torch.float64}} == {}
    assert LOW in watched.seen["mm"]
    assert FULL not in watched.seen["mm"] | watched.seen["addmm"]
    assert not watched.autocast


def test_log_probabilities_are_of_logits_in_bfloat16_and_everything_behind_them_in_float32() -> None:
    """Logits 20.0 and 20.5 at a temperature of 0.3: a quotient is rounded to an eighth in bfloat16, and not here."""
    hidden, weight = torch.tensor([[1.0]], dtype=LOW), torch.tensor([[20.0], [20.5], [0.25]], dtype=LOW)
    values, entropies = token_logps(hidden, weight, torch.tensor([0]), temperature=0.3, entropy=True)
    logits = torch.tensor([[20.0, 20.5, 0.25]], dtype=LOW)
    expected = torch.log_softmax(logits.float() / 0.3, -1)
    assert entropies is not None
    assert values.dtype == entropies.dtype == FULL
    torch.testing.assert_close(values, expected[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, -(expected.exp() * expected).sum(-1), rtol=0, atol=1e-3)
    rounded = torch.log_softmax(logits / 0.3, -1)[:, 0].float()
    assert float((values - rounded).abs()) > 0.01


def test_attention_weighs_in_float32() -> None:
    """Scores of 50 and 51 have weights of 1 / (1 + e) and e / (1 + e)."""
    q = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]], dtype=LOW)
    k, v = (torch.tensor([[[a, 0.0]], [[b, 0.0]]], dtype=LOW) for a, b in ((200, 204), (0, 1)))
    out = Packed([torch.zeros(2, dtype=torch.long)]).attend(0, q, k, v, 0.25)
    assert out.dtype == LOW
    assert float(out[1, 0, 0]) == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.004)


def test_a_step_is_taken_in_float32_and_rounded_once(low: Policy) -> None:
    policy = Policy(copy.deepcopy(low.model), low.tokenizer)
    settings: OptimizerSettings = adamw(learning_rate=1e-3)
    optimizer = policy.optimizer(settings)
    assert isinstance(optimizer, Optimizer)
    for _ in range(2):
        optimizer.backward(logps(policy).sum())
    assert {m.grad.dtype for m in optimizer._masters if m.grad is not None} == {FULL}
    optimizer.step(1e-3)
    state = [x for held in optimizer.adam.state.values() for x in held.values()]
    assert {x.dtype for x in [*optimizer._masters, *state]} == {FULL}
    for (_, weight), master in zip(policy.trained(), optimizer._masters, strict=True):
        assert weight.dtype == LOW
        assert weight.equal(master.to(LOW))


def test_a_value_head_reads_states_in_float32(low: Policy) -> None:
    states, _ = low.predicting(PROMPTS, RESPONSES, OWNER, 4)
    assert states.dtype == LOW
    assert low.logits(states).dtype == FULL
