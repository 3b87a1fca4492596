"""Aggregators: weights by hand, how they relate, and a contract that each must keep."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import AGGREGATORS, Part
from core.loop import loss
from core.parts.options import AggregatorOptions
from estimators.aggregators import (
    prompt_mean,
    segment_mean,
    seq_mean_token_mean,
    seq_mean_token_sum,
    seq_mean_token_sum_norm,
    seq_mean_turn_mean,
    token_mean,
    token_mean_local,
    token_sum,
    turn_mean_token_mean,
)

every_aggregator = pytest.mark.parametrize("part", AGGREGATORS.values(), ids=list(AGGREGATORS))
masks = st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000)).map(
    lambda key: torch.rand(key[:2], generator=torch.Generator().manual_seed(key[2])) < 0.6
)
# three tokens, one token in a mask with holes, none
HOLES = torch.tensor([[True, False, True, True], [False, True, False, False], [False] * 4])


def weigh(part: Part, mask: Tensor, max_tokens: int = 10) -> Tensor:
    return loss.weigh(part, mask, max_tokens=max_tokens, group_size=1)


@pytest.mark.parametrize(
    ("part", "long", "short"),
    [
        (token_mean, 1 / 4, 1 / 4),
        (seq_mean_token_mean, 1 / 9, 1 / 3),
        (seq_mean_token_sum, 1 / 3, 1 / 3),
        (seq_mean_token_sum_norm, 1 / 30, 1 / 30),
        (token_mean_local, 1 / 4, 1 / 4),
        (token_sum, 1, 1),
    ],
    ids=lambda value: value.name if isinstance(value, Part) else "",
)
def test_weights_by_hand(part: Part, long: float, short: float) -> None:
    """The row without a token gets no weight, and still counts as a row."""
    expected = [[long, 0, long, long], [0, short, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(weigh(part, HOLES), torch.tensor(expected, dtype=torch.float64))


def test_a_prompt_counts_once_and_its_tokens_alike_by_hand() -> None:
    """Prompts of rows with 1 and 3, 4 and 4 tokens, losses 1 2 3 4: 2.625 (tokens 2.9167, rows 2.5)."""
    mask = torch.arange(4) < torch.tensor([1, 3, 4, 4])[:, None]
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()[:, None].expand(4, 4)
    weights = prompt_mean(mask, group_size=2)
    assert weights[:, 0].tolist() == [1 / 8, 1 / 8, 1 / 16, 1 / 16]
    assert float((weights * losses).sum()) == 2.625
    assert float((token_mean(mask) * losses).sum()) == pytest.approx(35 / 12)
    assert float((seq_mean_token_mean(mask) * losses).sum()) == 2.5
    # a prompt without a counted token is still one of two
    assert prompt_mean(mask & (torch.arange(4) > 1)[:, None], group_size=2).sum() == 0.5


def test_runs_of_a_row_count_alike_by_hand() -> None:
    """Of the first of three rows one run of 1 and one of 2 tokens, of the second one of 1."""
    expected = [[1 / 6, 0, 1 / 12, 1 / 12], [0, 1 / 3, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(segment_mean(HOLES), torch.tensor(expected, dtype=torch.float64))


def test_turns_count_alike_by_hand() -> None:
    """Rows of two turns of 1 and 2 tokens, of one of 1, and of none: 1 / (3 * 2 * n), and 1 / (2 + 1 + 1) / n."""
    turns = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [1, 2, 3, 4]])
    of_rows = [[1 / 6, 0, 1 / 12, 1 / 12], [0, 1 / 3, 0, 0], [0] * 4]
    torch.testing.assert_close(seq_mean_turn_mean(HOLES, turns=turns), torch.tensor(of_rows).double())
    of_turns = [[1 / 4, 0, 1 / 8, 1 / 8], [0, 1 / 4, 0, 0], [0] * 4]
    torch.testing.assert_close(turn_mean_token_mean(HOLES, turns=turns), torch.tensor(of_turns).double())
    fewer = turn_mean_token_mean(HOLES, turns=turns, count_empty=False)
    torch.testing.assert_close(fewer, torch.tensor(of_turns).double() * 4 / 3)
    assert seq_mean_turn_mean(HOLES, turns=turns, count_empty=False).sum() == pytest.approx(1)


@given(masks, st.integers(0, 1000))
def test_turns_as_rows_of_their_own_weigh_as_the_step_is_made_of_turns(mask: Tensor, seed: int) -> None:
    """Every turn a row, with its share 1 / K of the loss: the mean over turns, times B / sum of K."""
    mask[:, 0] = True
    jumps = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    turns = 1 + jumps.cumsum(-1)
    rows = [(i, k) for i in range(len(mask)) for k in torch.unique(turns[i][mask[i]]).tolist()]
    apart = torch.stack([mask[i] & (turns[i] == k) for i, k in rows])
    K = torch.bincount(torch.tensor([i for i, _ in rows]), minlength=len(mask))
    together = torch.zeros(mask.shape, dtype=torch.float64)
    shared = together.clone()
    for (i, _), weights in zip(rows, seq_mean_token_mean(apart), strict=True):
        together[i] += weights
        shared[i] += weights / K[i]
    torch.testing.assert_close(turn_mean_token_mean(mask, turns=turns), together)
    torch.testing.assert_close(seq_mean_turn_mean(mask, turns=turns) * len(mask) / int(K.sum()), shared)
    one = torch.ones_like(turns)
    for part in (seq_mean_turn_mean, turn_mean_token_mean):
        torch.testing.assert_close(part(mask, turns=one), seq_mean_token_mean(mask))
        torch.testing.assert_close(weigh(part, mask), seq_mean_token_mean(mask))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_prompt_mean_is_another_mean_where_lengths_agree(groups: int, size: int, seed: int) -> None:
    """`seq_mean_token_mean` where responses to a prompt are equally long, `token_mean` where all prompts' sums are."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (groups, 1), generator=draw).expand(groups, size).flatten()
    mask = torch.arange(6) < lengths[:, None]
    torch.testing.assert_close(prompt_mean(mask, group_size=size), seq_mean_token_mean(mask))
    order = torch.randperm(size, generator=draw)
    alike = torch.arange(6) < torch.arange(1, size + 1)[order].repeat(groups)[:, None]
    torch.testing.assert_close(prompt_mean(alike, group_size=size), token_mean(alike))


@given(masks)
def test_segment_mean_of_rows_of_one_run_is_the_mean_over_rows(mask: Tensor) -> None:
    prefix = mask.cumprod(-1).bool()
    torch.testing.assert_close(segment_mean(prefix), seq_mean_token_mean(prefix))


@pytest.mark.parametrize(
    ("part", "long", "short"),
    [(seq_mean_token_mean, 1 / 6, 1 / 2), (seq_mean_token_sum, 1 / 2, 1 / 2), (seq_mean_token_sum_norm, 0.05, 0.05)],
    ids=lambda value: value.name if isinstance(value, Part) else "",
)
def test_without_empty_rows_by_hand(part: Part, long: float, short: float) -> None:
    """Then only two of the three rows count."""
    extra: dict[str, Any] = {"max_tokens": 10} if part.takes("max_tokens") else {}
    expected = torch.tensor([[long, 0, long, long], [0, short, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(part(HOLES, count_empty=False, **extra), expected)
    assert part(torch.zeros_like(HOLES), count_empty=False, **extra).eq(0).all()


def test_only_the_local_mean_depends_on_the_split() -> None:
    depends = {name for name, part in AGGREGATORS.items() if not AggregatorOptions.of(part).split_invariant}
    assert depends == {"token_mean_local"}


@given(masks, st.integers(0, 100))
def test_weighted_sums_equal_plain_loops(mask: Tensor, seed: int) -> None:
    loss = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = [[float(x) for x, m in zip(*pair, strict=True) if m] for pair in zip(loss, mask, strict=True)]
    B, N = len(rows), sum(map(len, rows))
    expected = {
        token_mean: sum(map(sum, rows)) / max(N, 1),
        seq_mean_token_mean: sum(sum(row) / len(row) for row in rows if row) / B,
        seq_mean_token_sum: sum(map(sum, rows)) / B,
        seq_mean_token_sum_norm: sum(map(sum, rows)) / 10 / B,
    }
    for part, value in expected.items():
        assert float((weigh(part, mask) * loss).sum()) == pytest.approx(value, rel=1e-5, abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(8, 20))
def test_equal_lengths_make_them_equal_up_to_the_length(B: int, length: int, max_tokens: int) -> None:
    mask = torch.arange(8).expand(B, 8) < length
    means, sums = weigh(token_mean, mask), weigh(seq_mean_token_sum, mask)
    torch.testing.assert_close(weigh(seq_mean_token_mean, mask), means)
    torch.testing.assert_close(sums / length, means)
    torch.testing.assert_close(weigh(seq_mean_token_sum_norm, mask, max_tokens) * max_tokens / length, means)


@given(masks, st.integers(0, 100))
def test_the_token_mean_is_the_length_weighted_mean_of_row_means(mask: Tensor, seed: int) -> None:
    loss = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    n = mask.sum(1)
    row_means = torch.where(mask, loss, 0.0).sum(1) / n.clamp(min=1)
    expected = (n * row_means).sum() / n.sum().clamp(min=1)
    torch.testing.assert_close((token_mean(mask) * loss).sum(), expected, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 8))
def test_for_a_single_row_both_means_agree(length: int) -> None:
    mask = torch.arange(8)[None] < length
    torch.testing.assert_close(token_mean(mask), seq_mean_token_mean(mask))


def test_a_constant_denominator_leaves_each_response_independent_of_the_others_lengths() -> None:
    mask = torch.arange(8) < torch.tensor([[2], [3]])
    longer = torch.arange(8) < torch.tensor([[2], [8]])
    for part in (seq_mean_token_sum, seq_mean_token_sum_norm):
        assert torch.equal(weigh(part, mask)[0], weigh(part, longer)[0])
    assert not torch.equal(token_mean(mask)[0], token_mean(longer)[0])


def test_removing_rows_without_loss_scales_the_token_mean_by_the_tokens_kept() -> None:
    draw = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.tensor([[2], [6], [3], [5]])
    loss = torch.randn(4, 6, generator=draw)
    loss[1] = loss[3] = 0  # two groups of zero advantage
    kept = torch.tensor([0, 2])
    whole, part = ((token_mean(m) * x).sum() for m, x in ((mask, loss), (mask[kept], loss[kept])))
    torch.testing.assert_close(part, whole * 16 / 5)


# the contract


@every_aggregator
@given(mask=masks)
def test_weights_are_zero_exactly_outside_the_mask_and_positive_inside(part: Part, mask: Tensor) -> None:
    weights = weigh(part, mask)
    assert weights.shape == mask.shape
    assert weights.dtype == torch.float64
    assert torch.equal(weights > 0, mask)
    assert torch.equal(weights.ne(0), mask)
    assert not weights.requires_grad
