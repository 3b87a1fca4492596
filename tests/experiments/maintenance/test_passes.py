"""Passes by turns: every way has the same weights, and compiled layers take packed rows."""

import pytest
import torch

from core.model.policy import Policy
from experiments.maintenance.benchmarks.passes import compiled, layers_of, one_pass, ways

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning", "ignore:The .grad attribute of a Tensor:UserWarning"
)
"""Of what torch's compiler imports, and of what it looks at."""
PROMPTS = [torch.tensor([3, 1, 4]), torch.tensor([5, 9])]
RESPONSES = [torch.tensor(r) for r in ([3, 5, 8], [9, 1], [7, 9, 3, 2], [1])]


def test_compiled_layers_take_packed_rows_of_any_length(tiny: Policy) -> None:
    """Traced and then run as they are: the same numbers, in a copy; attention is called as before."""
    made = compiled(tiny, backend="eager")
    for rows in (RESPONSES, RESPONSES[:2], RESPONSES[::-1]):
        (_, logps, gradient), (_, expected, of_expected) = (one_pass(p, PROMPTS, rows) for p in (made, tiny))
        torch.testing.assert_close(logps, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, of_expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (vars(next(iter(layers_of(policy)))) for policy in (made, tiny))
    assert ours["_compiled_call_impl"] is not None
    assert theirs.get("_compiled_call_impl") is None


def test_on_a_cpu_flex_is_left_out_and_why_is_said(tiny: Policy, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(ways(tiny)) == ["padded", "padded, compiled layers"]
    assert "no backward pass on a CPU" in capsys.readouterr().out
