"""Attention of packed rows by torch's flex attention: each prompt once, no padding, and no mask of pairs of tokens.

Who sees whom follows from two numbers a token: the piece of the flat row that it is in, a prompt or a response, and the
prompt that it continues. The kernel takes 128 x 128 tokens at a time, and tables say which of these blocks it has to
look at. They are made here from the pieces' lengths; torch's own way to them forms the mask of all pairs first.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch._dynamo import config
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK: Final = 128
"""Tokens of a block, those of queries and those of keys."""
BACKEND = "inductor"
"""What compiles the kernel."""
OPTIONS: Final = {"FORCE_USE_FLEX_ATTENTION": True}
"""For short rows the kernel of long ones too: a number must not depend on what else is in its pass."""

MOST_KERNELS: Final = 64
"""That one process compiles: of each shape of heads and precision, with a gradient and without."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """[N, H, D] from query [N, H, D] and key, value [N, KV, D]; differentiable."""
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    # around every call: the backward pass may compute this again in a thread of its own, which has its own setting
    with config.patch(recompile_limit=MOST_KERNELS):
        out: Tensor = _compiled(BACKEND)(
            q, k, v, block_mask=mask, scale=scale, enable_gqa=grouped, kernel_options=dict(OPTIONS)
        )
    return out[0].transpose(0, 1)


@functools.cache
def _compiled(backend: str) -> Callable[..., Any]:
    """The kernel for any number of tokens; where it could not be compiled, an error instead of a matrix of scores."""
    return torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=backend)


def block_mask(lengths: Tensor, prompt: Tensor, device: torch.device) -> BlockMask:
    """Which tokens of a flat row see which: those of their piece up to themselves, and those of their prompt.

    Piece m has `lengths[m]` tokens and continues piece `prompt[m]`, which comes before it, or is a prompt, m itself.
    Both are on the host. Memory: 8 bytes a token, and four tables of a row for every 128 tokens, all as wide as the
    most blocks in a row of any of them.
    """
    piece = torch.arange(len(lengths)).repeat_interleave(lengths)
    of, to = (x.to(torch.int32).to(device, non_blocking=True) for x in (piece, prompt[piece]))

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own, its_prompt, other = of[query], to[query], of[key]
        return (query >= key) & ((own == other) | (its_prompt == other))

    rows = -(-len(piece) // BLOCK)
    some, all_of_it = _visible_blocks(lengths, prompt, rows)
    pairs = [(x // rows, x % rows) for x in (some, all_of_it)]
    listed = [(by, of_it) for query, key in pairs for by, of_it in ((query, key), (key, query))]
    counts = [by.bincount(minlength=rows) for by, _ in listed]
    # one width for all, two at least: the compiled kernel then knows one more size, not four, which may meet by chance
    width = max(2, *(int(count.max()) for count in counts))
    tables = itertools.chain.from_iterable(
        _table(by, of_it, count, width, device) for (by, of_it), count in zip(listed, counts, strict=True)
    )
    names = ("kv", "q", "full_kv", "full_q")
    named: dict[str, Any] = {f"{name}_{kind}": next(tables) for name in names for kind in ("num_blocks", "indices")}
    return BlockMask(seq_lengths=(len(piece), len(piece)), BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=sees, **named)


def _visible_blocks(lengths: Tensor, prompt: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Pairs of blocks, query * rows + key: those of which some tokens see some, and those of which all see all."""
    end = lengths.cumsum(0)
    start = end - lengths
    first, last = start // BLOCK, (end - 1) // BLOCK
    # every block of queries with every piece that has tokens in it; each of them sees its piece and its prompt
    query, piece = _ranges(first, last.where(lengths > 0, first - 1))
    query, seeing, seen = query.repeat(2), piece.repeat(2), torch.cat([piece, prompt[piece]])
    key, at = _ranges(first[seen], last[seen].minimum(query))
    query, seeing, seen = query[at], seeing[at], seen[at]

    def is_within(block: Tensor, of: Tensor) -> Tensor:
        return (start[of] <= block * BLOCK) & ((block + 1) * BLOCK <= end[of])

    pairs = query * rows + key
    whole = pairs[(key < query) & is_within(query, seeing) & is_within(key, seen)]
    whole, pairs = torch.unique(whole), torch.unique(pairs)
    return pairs[~torch.isin(pairs, whole)], whole


def _ranges(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """All numbers from `first[i]` to `last[i]`, and for each its i."""
    sizes = (last - first + 1).clamp(min=0)
    which = torch.arange(len(sizes)).repeat_interleave(sizes)
    return torch.arange(len(which)) - (sizes.cumsum(0) - sizes)[which] + first[which], which


def _table(row: Tensor, column: Tensor, counts: Tensor, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many blocks each row has, and which, ascending: int32 [1, 1, rows] and [1, 1, rows, width]."""
    order = (row * len(counts) + column).argsort()
    row, column = row[order], column[order]
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    table = torch.zeros(len(counts), width, dtype=torch.int32)
    table[row, place] = column.to(torch.int32)
    moved = (x.to(device, non_blocking=True)[None, None] for x in (counts.to(torch.int32), table))
    return next(moved), next(moved)
