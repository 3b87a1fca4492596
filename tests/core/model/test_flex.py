"""Flex attention over packed rows: the blocks that its kernel is sent to, what they take, and what comes out."""

import shutil
from collections.abc import Sequence
from typing import Final, TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo import config
from torch.nn.attention.flex_attention import BlockMask

from core.model import flex
from core.model.attention import largest_difference
from core.model.flex import BLOCK, block_mask

CPU = torch.device("cpu")
Pieces: TypeAlias = tuple[list[int], list[tuple[int, int]]]
"""Tokens of prompts, and of responses with the number of their prompt."""
PIECES: Final[st.SearchStrategy[Pieces]] = st.tuples(
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=6),
)


def made(prompts: Sequence[int], responses: Sequence[tuple[int, int]]) -> tuple[BlockMask, Tensor]:
    """The mask, and which of all tokens see which [N, N], by its definition."""
    owner = [*range(len(prompts)), *(p % len(prompts) for _, p in responses)]
    lengths = torch.tensor([*prompts, *(size for size, _ in responses)])
    piece = torch.tensor([m for m, size in enumerate(lengths.tolist()) for _ in range(size)])
    continues = torch.tensor(owner)[piece]
    sees = (piece[:, None] == piece) | (continues[:, None] == piece)
    return block_mask(lengths, torch.tensor(owner), CPU), sees.tril()


def blocks(counts: Tensor | None, table: Tensor | None) -> list[list[int]]:
    assert counts is not None
    assert table is not None
    return [row[:n].tolist() for row, n in zip(table[0, 0], counts[0, 0].tolist(), strict=True)]


def bytes_of(mask: BlockMask) -> int:
    """Of all that was built: the tables, and the numbers of tokens that the function of pairs holds."""
    cells = mask.mask_mod.__closure__ or ()
    held = [x for x in (*vars(mask).values(), *(cell.cell_contents for cell in cells)) if isinstance(x, Tensor)]
    return sum(x.untyped_storage().nbytes() for x in held)


def test_blocks_by_hand() -> None:
    """A prompt of a block, a response of two and one of 100 tokens: all of the prompt is seen, of themselves a half."""
    mask, _ = made([BLOCK], [(2 * BLOCK, 0), (100, 0)])
    assert blocks(mask.kv_num_blocks, mask.kv_indices) == [[0], [1], [2], [0, 3]]
    assert blocks(mask.full_kv_num_blocks, mask.full_kv_indices) == [[], [0], [0, 1], []]
    # by keys, for the backward pass: who sees the prompt
    assert blocks(mask.q_num_blocks, mask.q_indices) == [[0, 3], [1], [2], [3]]
    assert blocks(mask.full_q_num_blocks, mask.full_q_indices) == [[1, 2], [2], [], []]
    assert mask.shape == (1, 1, 3 * BLOCK + 100, 3 * BLOCK + 100)


@given(PIECES)
def test_tables_name_every_block_in_which_somebody_sees_somebody(
    pieces: tuple[list[int], list[tuple[int, int]]],
) -> None:
    """And none else; full are called only those in which everybody sees everybody."""
    mask, sees = made(*pieces)
    N = len(sees)
    rows = -(-N // BLOCK)
    padded = torch.zeros(rows * BLOCK, rows * BLOCK, dtype=torch.bool)
    padded[:N, :N] = sees
    cut = padded.view(rows, BLOCK, rows, BLOCK).transpose(1, 2).flatten(2)
    some, full = (
        [set(row) for row in blocks(*x)]
        for x in ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
    )
    for i in range(rows):
        assert not some[i] & full[i]
        assert some[i] | full[i] == set(cut[i].any(-1).nonzero()[:, 0].tolist())
        assert full[i] <= set(cut[i].all(-1).nonzero()[:, 0].tolist())
    for by_query, x in (
        (some, (mask.q_num_blocks, mask.q_indices)),
        (full, (mask.full_q_num_blocks, mask.full_q_indices)),
    ):
        assert blocks(*x) == [[i for i in range(rows) if j in by_query[i]] for j in range(rows)]


@given(PIECES)
def test_pairs_follow_from_two_numbers_a_token(pieces: Pieces) -> None:
    mask, sees = made(*pieces)
    at = torch.arange(len(sees))
    none = torch.tensor(0)
    assert mask.mask_mod(none, none, at[:, None], at[None]).equal(sees)


def test_memory_of_the_mask_grows_with_tokens() -> None:
    """Of groups of 500 and 8 x 1,000 tokens: twice the groups, twice the bytes; and never as a matrix of pairs does."""

    def of(groups: int, length: int = 1000) -> tuple[int, int]:
        responses = [(length, group) for group in range(groups) for _ in range(8)]
        lengths = torch.tensor([500] * groups + [size for size, _ in responses])
        owner = torch.tensor([*range(groups), *(group for _, group in responses)])
        return bytes_of(block_mask(lengths, owner, CPU)), int(lengths.sum())

    bytes_a_token = [size / tokens for size, tokens in map(of, (2, 4, 8, 16, 32))]
    assert bytes_a_token == pytest.approx([bytes_a_token[0]] * 5, rel=0.05)
    assert bytes_a_token[0] < 25
    # one group of long responses: four tables of 504 rows, none wider than the 504 blocks that may see the prompt
    size, tokens = of(1, 8000)
    assert tokens == 64_500
    assert 8 * tokens < size <= 8 * tokens + 4 * 4 * 504 * (1 + 504)
    assert size < tokens**2 / 800


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_results_and_gradients_by_the_definition(key_heads: int) -> None:
    mask, sees = made([140, 3], [(70, 0), (0, 0), (1, 1), (130, 1)])
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(sees), heads, 8, generator=draw).requires_grad_() for heads in (4, key_heads, key_heads))
    weights = torch.randn(len(sees), 4, 8, generator=draw)
    out = flex.attend(q, k, v, mask, 0.3)
    keys, values = (x.repeat_interleave(4 // key_heads, 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, keys).mul(0.3).masked_fill(~sees, float("-inf"))
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x, (q, k, v), weights) for x in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs by g++")
def test_a_compiled_kernel_goes_where_the_tables_send_it() -> None:
    """Without a gradient torch compiles one for CPUs, which takes square tables; sent elsewhere it gives others."""
    mask, sees = made([140, 70], [(300, 0), (130, 1)])
    rows = -(-len(sees) // BLOCK)
    for name in ("kv_indices", "q_indices", "full_kv_indices", "full_q_indices"):
        table = getattr(mask, name)
        setattr(mask, name, torch.nn.functional.pad(table, (0, rows - table.shape[-1])))
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(sees), heads, 16, generator=draw) for heads in (4, 2, 2))
    keys, values = (x.repeat_interleave(2, 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, keys).mul(0.25).masked_fill(~sees, float("-inf"))
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    with torch.no_grad():
        torch.testing.assert_close(flex.attend(q, k, v, mask, 0.25), expected, rtol=1e-5, atol=1e-5)
        assert mask.full_kv_num_blocks is not None
        mask.full_kv_num_blocks.zero_()
        assert not torch.allclose(flex.attend(q, k, v, mask, 0.25), expected, atol=1e-2)


@pytest.mark.usefixtures("flex_on_cpu")
def test_other_lengths_take_the_kernel_that_is_there() -> None:
    """What is compiled must not depend on what came before: a run that goes on would compute with another kernel."""
    torch.compiler.reset()
    assert largest_difference("flex", 4, 2, 16, torch.float32, CPU) < 1e-5
    with config.patch(error_on_recompile=True):
        for prompts, responses in (([300], []), ([1, 200], [(90, 1)] * 9), ([129] * 5, [(128, 2), (1, 0)])):
            mask, _ = made(prompts, responses)
            q, k, v = (torch.zeros(mask.shape[-1], heads, 16, requires_grad=True) for heads in (4, 2, 2))
            torch.autograd.grad(flex.attend(q, k, v, mask, 0.25).sum(), (q, k, v))
        wide = [torch.zeros(mask.shape[-1], heads, 32, requires_grad=True) for heads in (4, 2, 2)]
        with pytest.raises(Exception, match="'key' size mismatch at index 3"):
            flex.attend(wide[0], wide[1], wide[2], mask, 0.25)
