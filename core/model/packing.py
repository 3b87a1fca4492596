"""Attention over tokens without padding: prompts are shared by their responses.

All tokens of a forward pass lie in one flat row, `[1, N]`: linear layers see no padding and each prompt once, however
many responses hang on it. Only attention needs the ragged structure; it gets that as a layout object that
transformers hands down to the attention function registered here, and works for every architecture that uses
transformers' attention interface with full causal attention.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from core.errors import GrpoLabError
from core.model import flex

ATTENTION: Final = "grpo_lab_packed"
Kernel: TypeAlias = Literal["padded", "flex"]
"""How packed rows attend: on padded copies of prompts and responses, or by `core.model.flex`."""
IGNORED: Final = (
    "cache",
    "cache_position",
    "is_causal",
    "layer_idx",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "past_key_values",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "sliding_window",
    "use_cache",
)
"""What else models hand to attention that changes nothing here; windows are checked when a model is loaded."""
LARGE_SCORES: Final = 1 << 23
"""Attention scores of one layer and segment from which the fused kernel is used."""


class Layout(Protocol):
    """Who attends to whom among the N tokens of one flat forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[N, H, D] from query [N, H, D] and key, value [N, KV, D]."""
        ...


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,  # noqa: ARG001 - a policy is sampled and trained without dropout
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: [1, H, N, D] in, [1, N, H, D] out.

    Raises `GrpoLabError` on what would change attention and is not known here: masks, biases, caps, sinks.
    """
    if layout is None:
        raise GrpoLabError(f"has layers ({type(module).__name__}) that do not pass the layout of packed rows on")
    if not (getattr(module, "is_causal", True) and options.get("is_causal") is not False):
        raise GrpoLabError("attends to later tokens too")
    unknown = [name for name, value in options.items() if value is not None and name not in IGNORED]
    if attention_mask is not None or unknown:
        what = unknown[0] if unknown else "a mask of its own"
        raise GrpoLabError(f"passes {what} to attention, which packed attention does not support")
    if key.shape[-1] != value.shape[-1]:
        raise GrpoLabError(f"has keys of {key.shape[-1]} numbers and values of {value.shape[-1]}")
    layer: int = module.layer_idx  # type: ignore[assignment]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = layout.attend(layer, q, k, v, scaling)
    return out[None], None


AttentionInterface.register(ATTENTION, attention)


def scatter_rows(flat: Tensor, valid: Tensor) -> Tensor:
    """Values [N] at the N true places of `valid` [R, T], 0 elsewhere; `valid` is on the host: nothing is waited for."""
    places = valid.flatten().nonzero()[:, 0].to(flat.device, non_blocking=True)
    return flat.new_zeros(valid.numel()).index_copy(0, places, flat).view(valid.shape)


class PromptStore(Protocol):
    """What takes the keys and values of prompts when a forward pass computes them."""

    def fill(self, layer: int, key_value: Tensor, heads: int) -> None:
        """Keys and values of one layer, side by side [N, 2KV*D], of N tokens of prompts one after the other."""
        ...


class Packed:
    """Whole sequences in one flat row: P prompts, then the responses that continue them, each prompt once.

    Response i continues prompt `owner[i]`: its tokens see the prompt and themselves, causally. `positions` restart
    after the prompt for every response. With `cache`, keys and values of the prompts are handed to it (prefill).
    """

    def __init__(
        self,
        prompts: Sequence[Tensor],
        responses: Sequence[Tensor] = (),
        owner: Sequence[int] = (),
        cache: "PromptStore | None" = None,
        kernel: Kernel = "padded",
    ) -> None:
        self._device = device = prompts[0].device
        self._p_len = p_len = torch.tensor([len(p) for p in prompts])
        self._r_len = r_len = torch.tensor([len(r) for r in responses], dtype=torch.long)
        p_start = p_len.cumsum(0) - p_len
        r_start = int(p_len.sum()) + r_len.cumsum(0) - r_len
        self._starts = p_start, r_start
        self._of = of = torch.tensor(owner, dtype=torch.long)
        positions = [torch.arange(int(n)) for n in p_len]
        positions += [p_len[p] + torch.arange(int(n)) for p, n in zip(of, r_len, strict=True)]

        self.input_ids = torch.cat([*prompts, *responses])[None]
        # copies to the device that nobody waits for, here and below: passes go on being launched meanwhile
        self.positions = torch.cat(positions).to(device, non_blocking=True)[None]
        self.prompt_end = (p_start + p_len - 1).to(device, non_blocking=True)
        """[P]: where each prompt's last token lies in the flat row."""
        self.response_start = r_start.to(device, non_blocking=True)
        """[R]: where each response's first token lies."""
        self._cache, self._kernel = cache, kernel

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of each segment on padded copies, gathered back into the flat row; or the flat row as it is."""
        N, H, D = query.shape
        KV = key.shape[1]
        if self._kernel == "flex" and self._cache is None:
            return flex.attend(query, key, value, self._block_mask, scale)
        flat_q = query.reshape(N, H * D)
        flat_kv = torch.cat([key.reshape(N, KV * D), value.reshape(N, KV * D)], 1)
        if self._cache is not None:
            self._cache.fill(layer, flat_kv, KV)
        results = [segment.attend(flat_q, flat_kv, H, KV, scale) for segment in self._segments]
        return F.embedding(self._places, torch.cat(results)).view(N, H, D)

    @functools.cached_property
    def _block_mask(self) -> Any:
        P = torch.arange(len(self._p_len))
        return flex.block_mask(torch.cat([self._p_len, self._r_len]), torch.cat([P, self._of]), self._device)

    @functools.cached_property
    def _segments(self) -> "list[_Segment]":
        """Prompts, and responses after their prompts."""
        (p_start, r_start), p_len, r_len, of = self._starts, self._p_len, self._r_len, self._of
        Lp, T = int(p_len.max()), int(r_len.max()) if len(r_len) else 0
        p_pos = torch.arange(Lp)
        p_index = (p_start[:, None] + p_pos).where(p_pos < p_len[:, None], 0)
        none = torch.zeros_like(p_len)
        segments = [_Segment(p_index[:, :0], p_index, none, p_len, self._device)]
        if T:
            r_pos = torch.arange(T)
            r_index = (r_start[:, None] + r_pos).where(r_pos < r_len[:, None], 0)
            segments.append(_Segment(p_index[of], r_index, p_len[of], r_len, self._device))
        return segments

    @functools.cached_property
    def _places(self) -> Tensor:
        """[N]: where each flat token's result lies among the padded results of all segments."""
        offsets, places = 0, []
        for segment in self._segments:
            places.append((torch.arange(segment.own.numel()).view_as(segment.own) + offsets)[segment.valid])
            offsets += segment.own.numel()
        return torch.cat(places).to(self._device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class _Segment:
    """S sequences of one kind: tokens `own` [S, T] of the flat row, each after the `before` [S, B] that it continues.

    Both are padded on the right, to `own_lengths` and `before_lengths`, with any token.
    """

    before: Tensor
    own: Tensor
    before_lengths: Tensor
    own_lengths: Tensor
    device: torch.device

    @functools.cached_property
    def valid(self) -> Tensor:
        """[S, T]: which tokens are no padding."""
        return torch.arange(self.own.shape[1]) < self.own_lengths[:, None]

    def attend(self, query: Tensor, key_value: Tensor, heads: int, key_heads: int, scale: float) -> Tensor:
        """Results [S * T, H * D] of the tokens `own`, from query [N, H * D] and key and value side by side [N, 2KV*D].

        Plain products while the scores are small: in bfloat16 on CPU their gradient takes a fifth of the time of the
        fused kernel's. Beyond that the fused kernel on whole sequences: its memory, and that of no mask, does not grow
        with the square of their length.
        """
        S, T = self.own.shape
        if S * heads * T * (self.before.shape[1] + T) > LARGE_SCORES:
            return self._attend_whole(query, key_value, heads, key_heads, scale)
        own, keys, mask = self._padded
        D = query.shape[1] // heads
        # an embedding look-up is a gather whose gradient is fast and deterministic on CPU
        q = F.embedding(own, query).view(S, T, key_heads, heads // key_heads, D).permute(0, 2, 3, 1, 4)
        k, v = F.embedding(keys, key_value).view(S, -1, 2, key_heads, D).permute(2, 0, 3, 1, 4)
        return _attend(q * scale, k, v, mask).permute(0, 3, 1, 2, 4).reshape(S * T, heads * D)

    @functools.cached_property
    def _padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [S, T] and keys [S, B + T] in the flat row, and which keys a query sees [S, 1, T, B + T]."""
        S, T = self.own.shape
        B = self.before.shape[1]
        held = (self.before, self.own, self.before_lengths)
        before, own, before_lengths = (x.to(self.device, non_blocking=True) for x in held)
        # made where it is used: on a host it would take as long as a GPU's pass, and the copy beside
        mask = torch.ones(T, T, dtype=torch.bool, device=self.device).tril()[None]
        if B:
            sees_before = torch.arange(B, device=self.device) < before_lengths[:, None]
            mask = torch.cat([sees_before[:, None, :].expand(-1, T, -1), mask.expand(S, -1, -1)], 2)
        return own, torch.cat([before, own], 1), mask[:, None]

    @functools.cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        """Whole sequences [S, L] in the flat row, padded at their ends, and where each token of `own` lies there."""
        length = int((self.before_lengths + self.own_lengths).max())
        column = torch.arange(length)
        place = (column - self.before_lengths[:, None]).clamp(0, self.own.shape[1] - 1)
        own = self.own.gather(1, place)
        if self.before.shape[1]:
            before = self.before.gather(1, column.clamp(max=self.before.shape[1] - 1).expand(len(own), -1))
            own = before.where(column < self.before_lengths[:, None], own)
        result = (self.before_lengths[:, None] + torch.arange(self.own.shape[1])).clamp(max=length - 1)
        result = result + length * torch.arange(len(own))[:, None]
        return own.to(self.device, non_blocking=True), result.flatten().to(self.device, non_blocking=True)

    def _attend_whole(self, query: Tensor, key_value: Tensor, heads: int, key_heads: int, scale: float) -> Tensor:
        """Prompt and response in one causal pass: it computes the prompt's results again, and needs no mask."""
        whole, places = self._whole
        S, L = whole.shape
        q = F.embedding(whole, query).view(S, L, heads, -1).transpose(1, 2)
        k, v = F.embedding(whole, key_value).view(S, L, 2, key_heads, -1).permute(2, 0, 3, 1, 4)
        k, v = (x.repeat_interleave(heads // key_heads, 1) for x in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        return F.embedding(places, out.transpose(1, 2).reshape(S * L, -1))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention: q [S, KV, R, Tq, D], k, v [S, KV, Tk, D], mask [S or 1, 1, Tq, Tk] to q's shape."""
    S, KV, R, Tq, D = q.shape
    Tk = k.shape[2]
    k, v = (x.reshape(S * KV, Tk, D) for x in (k, v))
    scores = torch.bmm(q.reshape(S * KV, R * Tq, D), k.transpose(1, 2)).view(S, KV * R, Tq, Tk)
    weights = torch.softmax(scores.float().masked_fill(~mask, float("-inf")), -1).to(v.dtype)
    return torch.bmm(weights.view(S * KV, R * Tq, Tk), v).view(S, KV, R, Tq, D)
