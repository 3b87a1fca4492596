"""verl's rollout as a batch: rows that lie in any order among made-up ones become groups, and come back as fields."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from verl.workers.utils.padding import response_from_nested

from core.errors import GrpoLabError
from core.loop.rows import RowTensors
from core.parts.batch import Batch
from experiments.bridges.running import TRAINED as ROWS_TRAINED
from experiments.bridges.verl.maths import MASK, TRAINED
from experiments.bridges.verl.settings import PLACE

LOGPS: Final = {"old_log_probs": "old_logps", "ref_log_prob": "ref_logps", "rollout_log_probs": "behaviour_logps"}
READ: Final = ("prompts", "responses", "response_mask", "rm_scores", "extra_fields", "sum_pi_squared", *LOGPS)
"""Fields of verl's store that a batch is made of; those that are not there are left out."""
VERDICT: Final = "acc"
"""What a reward function of verl calls its verdict."""


@dataclass(frozen=True)
class Reading:
    """What is read from a rollout beside tokens and scores."""

    group_size: int
    max_tokens: int
    stops: Collection[int]
    """Token ids that end a response."""
    reward_parts: tuple[str, ...] = ()
    reward_weights: tuple[float, ...] = ()
    needs_verdict: bool = False


def order_of(keys: Sequence[str], is_padding: Sequence[bool], group_size: int) -> list[int]:
    """Places of the real rows, group by group; keys are verl's `uid_session_output`.

    Raises `GrpoLabError` for a session of several outputs, and for a group that is not complete.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for place, key in enumerate(keys):
        uid, session, output = key.rsplit("_", 2)
        if is_padding[place]:
            continue
        if output != "0":
            raise GrpoLabError(
                f"response {key}: an agent loop gave several outputs for one response, which have no place in a group "
                "of G responses: use one that gives one, e.g. single_turn_agent or tool_agent"
            )
        found.setdefault(uid, []).append((int(session), place))
    for uid, members in found.items():
        if len(members) != group_size:
            raise GrpoLabError(
                f"prompt {uid} has {len(members)} responses, but actor_rollout_ref.rollout.n = {group_size}: groups "
                "must be complete; trainer.v1.sampler.sync_refill_failed_groups=True samples failed ones anew"
            )
    return [place for uid in sorted(found) for _, place in sorted(found[uid])]


def batch_of(data: TensorDict, order: Sequence[int], reading: Reading, step: int) -> Batch:
    """The rollout as P complete groups of G responses."""
    G, lengths = reading.group_size, data["response_mask"].offsets().diff()
    place = torch.tensor(order, dtype=torch.long)

    def grouped(rows: Tensor) -> Tensor:
        return rows[place].view(-1, G, *rows.shape[1:])

    wide = {name: padded(data[name]) for name in ("response_mask", "rm_scores", "responses", *LOGPS) if name in data}
    if "sum_pi_squared" in data:
        wide["sum_pi_squared"] = padded(response_from_nested(data["sum_pi_squared"], data["response_mask"]))
    names = {**LOGPS, "sum_pi_squared": "sum_squared_probs"}
    extra = [_plain(fields) for fields in list(data["extra_fields"])] if "extra_fields" in data else []
    mask = wide["response_mask"].bool()
    known: dict[str, Any] = {ours: grouped(wide[theirs].float()) for theirs, ours in names.items() if theirs in wide}
    return Batch(
        rewards=grouped(wide["rm_scores"].float().sum(-1)),
        response_mask=grouped(torch.arange(mask.shape[1]) < lengths[:, None]),
        mask=grouped(mask),
        prompt_ids=torch.tensor([_identity(data["prompts"][i]) for i in order[::G]], dtype=torch.long),
        max_tokens=reading.max_tokens,
        step=step,
        truncated=grouped(_truncated(wide["responses"], lengths, reading)),
        **_graded(extra, order, reading),
        **known,
    )


def fields_of(rows: RowTensors, order: Sequence[int], response_mask: Any, asked: Collection[str]) -> TensorDict:
    """What verl's workers are given for every row, made-up ones too: advantages, and what the bridge reads there.

    `asked` are the rows' tensors that the objective reads beside those.
    """
    lengths, place = response_mask.offsets().diff().tolist(), torch.tensor(order, dtype=torch.long)

    def scattered(values: Tensor) -> Tensor:
        everyone = values.new_zeros((len(lengths), *values.shape[1:]))
        everyone[place] = values
        if values.ndim == 1:
            return everyone
        return torch.nested.as_nested_tensor(
            [row[:n] for row, n in zip(everyone, lengths, strict=True)], layout=torch.jagged
        )

    advantages = torch.where(rows["mask"], rows["advantages"], 0.0).float()
    fields = {"advantages": advantages, "returns": advantages, MASK: rows["mask"].long(), TRAINED: rows[ROWS_TRAINED]}
    fields |= {f"grpolab_{name}": rows[name] for name in asked}
    return TensorDict({name: scattered(x) for name, x in fields.items()}, batch_size=len(lengths))


def padded(values: Tensor) -> Tensor:
    """Rows of their own lengths as [B, T]."""
    return pad_sequence(list(values.unbind()), batch_first=True)


def _identity(prompt: Tensor) -> int:
    """A number for a prompt, by its tokens: the same in every epoch and process."""
    digest = blake2b(repr(prompt.tolist()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _truncated(responses: Tensor, lengths: Tensor, reading: Reading) -> Tensor:
    """[B]: as long as the limit allows, and not ended by a token that ends responses."""
    last = responses.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    return (lengths >= reading.max_tokens) & ~torch.isin(last, torch.tensor(sorted(reading.stops)))


def _plain(fields: Any) -> Mapping[str, Any]:
    """What the reward function returned beside the score of one response."""
    fields = getattr(fields, "data", fields)
    found = fields.get("reward_extra_info") if isinstance(fields, Mapping) else None
    return found or {}


def _graded(extra: Sequence[Mapping[str, Any]], order: Sequence[int], reading: Reading) -> dict[str, Any]:
    """The verdict and the parts of the reward, where the reward function returns them."""
    graded: dict[str, Any] = {}
    values = [extra[i] for i in order] if extra else []
    if reading.needs_verdict:
        graded["correct"] = _values(values, VERDICT, reading.group_size, "the variant reads the verdict") > 0.5
    if reading.reward_parts:
        why = f"it is in {PLACE}.reward_parts"
        parts = [_values(values, name, reading.group_size, why) for name in reading.reward_parts]
        graded["reward_parts"] = torch.stack(parts, dim=-1)
        graded["reward_names"] = reading.reward_parts
        graded["reward_weights"] = reading.reward_weights or (1.0,) * len(parts)
    return graded


def _values(values: Sequence[Mapping[str, Any]], name: str, group_size: int, why: str) -> Tensor:
    """[P, G]."""
    missing = next((i for i, each in enumerate(values) if not isinstance(each.get(name), int | float)), None)
    if missing is not None or not values:
        has = ", ".join(sorted(values[missing])) if values and missing is not None else ""
        raise GrpoLabError(
            f"the reward function returned no number '{name}' for a response ({has or 'nothing'} beside its score), "
            f"and {why}: return {{'score': ..., '{name}': ...}}"
        )
    return torch.tensor([float(each[name]) for each in values]).view(-1, group_size)
