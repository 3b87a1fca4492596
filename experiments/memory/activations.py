"""What a pass through the model holds, in bytes, derived from how packing.py and logps.py of `core.model` compute it.

For elements of b bytes; norms and the softmax compute in float32, as transformers' decoders do. Of each decoder layer,
autograd keeps until the backward pass

    norms          input in float32, normalised input in b
    linear layers  their inputs in b: both norms' outputs, the heads' output, the input of the MLP's last layer
    attention      queries, keys and values on padded copies; mask; softmax in float32, and in b where that is less.
                   By flex attention: queries, keys and values of the flat row, log-normalisers
    MLP            gate, activated gate, the other branch

A frozen layer keeps no input for its own gradient; what its adapter keeps is in float32, the adapter's precision.
"""

from dataclasses import dataclass
from typing import Final

from core.generation import native
from core.generation.noise import DRAWN_AT_ONCE, MOST_POSITIONS, SMALL_VOCABULARY, TABLE_SIZE
from core.model import caching, logps, packing
from core.model.adapters import LoraSettings
from core.model.flex import BLOCK
from core.model.packing import Kernel
from experiments.memory.architecture import Architecture

FLOAT: Final = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Segment:
    """Sequences padded for attention, and the queries and keys of each."""

    sequences: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Pass:
    """One flat row through the model: its tokens, how they attend, and for how many the next one is predicted."""

    tokens: int
    segments: tuple[Segment, ...]
    predicted: int
    kernel: Kernel = "padded"

    @classmethod
    def of(
        cls, prompts: int, rows: int, *, prompt: int, longest: int, response: int, kernel: Kernel = "padded"
    ) -> "Pass":
        """`rows` responses of `response` tokens to `prompts`, of `prompt` tokens in the mean and `longest` at most."""
        inside = response - 1  # the last token of a response predicts nothing
        after = (Segment(rows, inside, longest + inside),) if rows * inside > 0 else ()
        return cls(
            tokens=prompts * prompt + rows * max(0, inside),
            segments=(Segment(prompts, longest, longest), *after),
            predicted=rows * response,
            kernel=kernel,
        )


def saved_by_layer(a: Architecture, p: Pass, b: int, adapters: LoraSettings | None = None) -> int:
    """What autograd keeps of one decoder layer."""
    # a weight that is not trained needs no copy of its input
    per_element = FLOAT + (b if adapters is None else 0)
    norms = a.norms * (per_element * a.hidden + FLOAT)
    if a.head_norms:
        norms += (a.heads + a.key_heads) * (per_element * a.head_width + FLOAT)
    mlp = 3 * a.intermediate * b
    return p.tokens * (norms + _inputs(a, b, adapters) + mlp) + _saved_by_attention(a, p, b)


def _inputs(a: Architecture, b: int, adapters: LoraSettings | None) -> int:
    """Bytes a token that linear layers keep of their inputs; layers with the same input share it."""
    if adapters is None:
        return b * sum(a.inputs.values())
    targeted = a.targeted(adapters.targets)
    between = FLOAT * adapters.rank * len(targeted)
    if b < FLOAT:  # each adapter makes a float32 copy of its own
        return between + FLOAT * sum(x.inputs for x in targeted)
    return between + FLOAT * sum(a.inputs[shared] for shared in {x.reads for x in targeted})


def _saved_by_attention(a: Architecture, p: Pass, b: int) -> int:
    if p.kernel == "flex":
        return p.tokens * ((a.heads + 2 * a.key_heads) * a.head_width * b + FLOAT * a.heads)
    return sum(_saved_by_segment(a, s, b) for s in p.segments)


def _saved_by_segment(a: Architecture, s: Segment, b: int) -> int:
    pairs, width = s.sequences * s.queries * s.keys, a.heads * a.head_width
    if _is_fused(a, s):  # whole sequences, for every head: query, key, value and result, log-normalisers
        return s.sequences * s.keys * (4 * width * b + FLOAT * a.heads)
    queries = s.sequences * s.queries * width * b
    keys_values = 2 * s.sequences * s.keys * a.key_heads * a.head_width * b
    weights = a.heads * pairs * (FLOAT + (b if b < FLOAT else 0))
    return queries + keys_values + pairs + weights


def _is_fused(a: Architecture, s: Segment) -> bool:
    return s.sequences * a.heads * s.queries * s.keys > packing.LARGE_SCORES


def saved_beside_layers(a: Architecture, p: Pass, b: int, adapters: LoraSettings | None = None) -> int:
    """What autograd keeps outside the layers: last norm, rotary table, masks, predicting states, log-normalisers."""
    per_element = FLOAT + (b if adapters is None else 0)
    masks = sum(s.sequences * s.queries * s.keys for s in p.segments if not _is_fused(a, s))
    if p.kernel == "flex":  # two numbers a token; four tables of pairs of blocks, at the most
        masks = 8 * p.tokens + 4 * FLOAT * (p.tokens // BLOCK + 1) * (p.tokens // BLOCK + 2)
    per_token = per_element * a.hidden + FLOAT + 2 * a.head_width * b
    return p.tokens * per_token + masks + p.predicted * (a.hidden * b + 2 * FLOAT)


def held_by_layer(a: Architecture, p: Pass, b: int) -> int:
    """The most that one layer holds without autograd: inside the MLP, or around the softmax."""
    mlp = p.tokens * b * (2 * a.hidden + 3 * a.intermediate)
    width, key_width = a.heads * a.head_width, a.key_heads * a.head_width
    flat = p.tokens * b * (2 * a.hidden + width + 4 * key_width)
    if p.kernel == "flex":
        return max(mlp, flat + _saved_by_attention(a, p, b))
    return max(mlp, *(flat + _held_by_attention(a, s, b) for s in p.segments))


def _held_by_attention(a: Architecture, s: Segment, b: int) -> int:
    pairs = s.sequences * s.queries * s.keys
    if _is_fused(a, s):
        return _saved_by_segment(a, s, b)
    # padded copies as gathered and as the products take them; scores, masked scores and softmax
    copies = s.sequences * b * a.head_width * (3 * s.queries * a.heads + 4 * s.keys * a.key_heads)
    return copies + 2 * pairs + a.heads * pairs * (b + 2 * FLOAT)


def held_by_logits(a: Architecture, p: Pass, b: int, *, tempered: bool, entropy: bool, device: str = "cpu") -> int:
    """The most that the backward pass of the output layer holds: logits by chunks, and the gradient of its weight.

    Of one chunk the logits are those of the forward pass; while one of several is formed, the one before is still
    there; while gradients are added up, the last summand is. Float32 copies are made of a block at a time.
    """
    size = max(1, logps.CHUNK_ELEMENTS[device] // a.vocabulary)
    chunks = -(-p.predicted // size)
    rows, weight = min(p.predicted, size), a.embedding
    chunk = rows * a.vocabulary * b
    held = p.predicted * a.hidden * b + _block(rows, a.vocabulary, logps.BLOCK_ELEMENTS[device]) * FLOAT * (
        (b < FLOAT) + tempered + entropy
    )
    if chunks == 1:
        return held + chunk + weight * b
    # several chunks add up in float32; from the third on, sum and last summand are two
    summed = weight * FLOAT * (2 if chunks > 2 else 1)
    part = weight * (b + FLOAT) if b < FLOAT else weight * FLOAT
    adding = max(weight * FLOAT + part, summed + weight * b)
    return held + chunk + max(chunk + summed, adding)


def _block(rows: int, vocabulary: int, elements: int) -> int:
    """Elements of a block: of at least one row."""
    return min(rows, max(1, elements // vocabulary)) * vocabulary


def cache(a: Architecture, prompts: int, samples: int, prompt: int, response: int, b: int) -> int:
    """Keys and values of `samples` responses to each of `prompts` prompts, of at most so many tokens each."""
    rows = prompts * samples
    copies = 1 if samples > 1 and rows * prompt > caching.MANY_COLUMNS else samples
    return (prompts * copies * prompt + rows * response) * a.layers * 2 * a.key_heads * a.head_width * b


def held_by_draw(a: Architecture, rows: int, b: int, *, tempered: bool, cut: bool = False, device: str = "cpu") -> int:
    """The most that drawing one token a row holds: logits, noise, and in float32 what is made of a block of them.

    While the model gives the next logits, the last are still there.
    """
    logits, elements = rows * a.vocabulary, native.BLOCK_ELEMENTS[device]
    # a copy in float32, one at the temperature, with noise; log-probabilities, probabilities and their product. To cut:
    # without what is not kept, sorted with its 64-bit places, its probabilities and their sums, and what is kept;
    # elsewhere than on a CPU sums are of 64-bit integers, made from float64
    to_cut = cut * (7 if device == "cpu" else 12)
    made = _block(rows, a.vocabulary, elements) * FLOAT * ((b < FLOAT) + tempered + 4 + to_cut)
    noise = logits * FLOAT
    if a.vocabulary <= SMALL_VOCABULARY:  # mixed from 64-bit integers, for several positions, the last still there
        drawn = max(logits, min(MOST_POSITIONS * logits, DRAWN_AT_ONCE))
        noise = 2 * drawn * FLOAT + max(3 * 8 * drawn, logits * FLOAT)
    return logits * b + max(logits * b, noise + made)


def noise_table(a: Architecture, device: str = "cpu") -> tuple[int, int]:
    """What sampling noise keeps, and what making it takes on top: three copies in float64, in the host's memory."""
    if a.vocabulary <= SMALL_VOCABULARY:
        return 0, 0
    size = max(TABLE_SIZE, 4 * a.vocabulary)
    return FLOAT * size, 3 * 8 * size if device == "cpu" else 0
