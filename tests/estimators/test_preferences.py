"""Bradley-Terry: numbers by hand, then what must hold for all, then another way of writing the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from estimators.preferences import bradley_terry, calibration_error, pair_accuracy, reliability

PAIRS = st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=12)


def columns(pairs: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    return chosen, rejected


def test_losses_by_hand() -> None:
    chosen, rejected = torch.tensor([math.log(3), 1.0]), torch.tensor([0.0, 1.0])
    # sigmoid(log 3) = 3/4
    torch.testing.assert_close(bradley_terry(chosen, rejected), -torch.tensor([0.75, 0.5]).log())
    # a margin of log 3 is just what the first pair has
    margin = torch.tensor([math.log(3), 0.0])
    torch.testing.assert_close(bradley_terry(chosen, rejected, margin=margin), -torch.tensor([0.5, 0.5]).log())
    centred = bradley_terry(chosen, rejected, centering=0.1)
    torch.testing.assert_close(
        centred - bradley_terry(chosen, rejected), torch.tensor([0.1 * math.log(3) ** 2, 0.1 * 2**2])
    )


def test_a_hopeless_pair_has_a_finite_loss() -> None:
    chosen = torch.tensor([-1000.0], requires_grad=True)
    loss = bradley_terry(chosen, torch.zeros(1))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.tolist() == [1000.0]
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [-1.0]


@given(PAIRS, st.floats(-3, 3), st.floats(0, 2))
def test_it_is_the_likelihood_of_two_items_by_strength(
    pairs: list[tuple[float, float]], shift: float, margin: float
) -> None:
    """As Bradley and Terry wrote it: strength over the sum of strengths; a common shift changes nothing."""
    chosen, rejected = columns(pairs)
    a, b = chosen.exp(), rejected.exp()
    torch.testing.assert_close(bradley_terry(chosen, rejected), -(a / (a + b)).log())
    torch.testing.assert_close(bradley_terry(chosen + shift, rejected + shift), bradley_terry(chosen, rejected))
    margins = torch.full_like(chosen, margin)
    moved = bradley_terry(chosen, rejected + margin)
    torch.testing.assert_close(bradley_terry(chosen, rejected, margin=margins), moved)


def test_accuracy_by_hand() -> None:
    chosen, rejected = torch.tensor([1.0, 1.0, 0.0, 2.0]), torch.tensor([0.0, 2.0, 0.0, 1.0])
    assert float(pair_accuracy(chosen, rejected)) == 0.625  # two right, one wrong, one undecided


@given(PAIRS)
def test_what_is_right_one_way_is_wrong_the_other(pairs: list[tuple[float, float]]) -> None:
    chosen, rejected = columns(pairs)
    assert float(pair_accuracy(chosen, rejected) + pair_accuracy(rejected, chosen)) == pytest.approx(1)


def test_calibration_by_hand() -> None:
    """Confidences 0.6, 0.6 and 0.9, of which the second is wrong: (2 |0.5 - 0.6| + 1 |1 - 0.9|) / 3."""
    lead = torch.tensor([1.5, 1 / 1.5, 9.0], dtype=torch.float64).log()
    table = reliability(lead, torch.zeros(3, dtype=torch.float64), bins=2)
    torch.testing.assert_close(table, torch.tensor([[2, 0.6, 0.5], [1, 0.9, 1.0]], dtype=torch.float64))
    assert float(calibration_error(table)) == pytest.approx(0.1)


def test_the_ends_of_the_scale() -> None:
    """No lead is a confidence of 1/2 and half a choice; a huge one is 1; an empty bin counts for nothing."""
    # bins of equal width from a half: 0.7 is in the first of two
    in_the_first = reliability(torch.tensor([0.7]).logit(), torch.zeros(1), bins=2)
    assert in_the_first[:, 0].tolist() == [1.0, 0.0]
    table = reliability(torch.tensor([0.0, 500.0]), torch.zeros(2), bins=3)
    assert table[0].tolist() == [1, 0.5, 0.5]
    assert table[2].tolist() == [1, 1, 1]
    assert table[1, 0] == 0
    assert table[1, 1:].isnan().all()
    assert float(calibration_error(table)) == 0


@given(PAIRS, st.integers(1, 6))
def test_the_table_is_what_a_loop_over_pairs_finds(pairs: list[tuple[float, float]], bins: int) -> None:
    confidences = [1 / (1 + math.exp(-abs(a - b))) for a, b in pairs]
    edges = np.linspace(0.5, 1, bins + 1)[1:-1]
    expected = 0.0
    for k in range(bins):
        mine = [i for i, c in enumerate(confidences) if int(np.searchsorted(edges, c, side="right")) == k]
        if any(abs(confidences[i] - edge) < 1e-9 for i in mine for edge in edges):
            return  # rounding decides
        agree = sum(1.0 if pairs[i][0] > pairs[i][1] else 0.5 * (pairs[i][0] == pairs[i][1]) for i in mine)
        expected += abs(agree - sum(confidences[i] for i in mine))
    table = reliability(*columns(pairs), bins=bins)
    assert table[:, 0].sum() == len(pairs)
    assert float(calibration_error(table)) == pytest.approx(expected / len(pairs), abs=1e-9)
