"""The one record that flows through a step: a rollout, filled in phase by phase.

Axis letters, here and everywhere: `P` prompts, `G` samples per prompt, `B = P*G` rows, `T` response tokens,
`V` vocabulary. Advantages, filters and shaping think in groups, `[P, G]` and `[P, G, T]`; objectives, KL,
corrections and aggregators think in rows, `[B, T]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Final

import torch
from torch import Tensor

from core.errors import GrpoLabError, near
from core.parts.environments import Turn
from core.parts.options import own_fields
from core.parts.problems import Problem
from core.parts.settings import shown


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A rollout of `P` complete groups of `G` responses; each phase returns a new one with more fields filled.

    In a run it is on the CPU, whatever the policy is on, so that parts compute the same numbers everywhere.
    A field that nothing asked for is `None`. The error of `Batch.require` names what must ask for it.
    """

    rewards: Tensor
    """[P, G], float32: the combined scalar that an estimator maximises (shaped, and with any KL penalty in it)."""
    response_mask: Tensor
    """[P, G, T], bool: tokens of the response, the end-of-sequence token included."""
    mask: Tensor
    """[P, G, T], bool: tokens that count in the loss; may have holes, may be empty for a row.

    Of episodes at most those of `sampled_mask`.
    """
    prompt_ids: Tensor
    """[P], int64: index of each prompt in the stream it was drawn from."""
    max_tokens: int
    """The generation limit, in tokens: the only constant that a loss may be divided by."""
    step: int = 0
    reward_parts: Tensor | None = None
    """[P, G, K]: every reward function's value before weighting."""
    reward_names: tuple[str, ...] = ()
    reward_weights: tuple[float, ...] = ()
    correct: Tensor | None = None
    """[P, G], bool: the verifier's verdict. Dynamic sampling reads this, never a shaped reward."""
    truncated: Tensor | None = None
    """[P, G], bool: the response was cut at `max_tokens`."""
    kl_rewards: Tensor | None = None
    """[P, G, T]: per-token KL penalties, already summed into `rewards`."""
    kl_coef: float = 0.0
    """What the divergence was multiplied by in `kl_rewards`."""
    token_rewards: Tensor | None = None
    """[P, G, T]: per-token rewards, already summed into `rewards`."""
    step_ends: Tensor | None = None
    """[P, G, T], bool: tokens at which a step of the response ends, for rewards that judge steps."""
    behaviour_logps: Tensor | None = None
    """[P, G, T]: the sampler's log-probabilities, of whole distributions unless there is a `support`."""
    support_logmass: Tensor | None = None
    """[P, G, T]: log S, the log-probability that the tokens which truncated sampling kept had together before."""
    support: Tensor | None = None
    """[P, G, T, V], bool: the tokens that it kept, where the trainer's distributions are cut down to them as well."""
    old_logps: Tensor | None = None
    """[P, G, T]: the trainer's log-probabilities before this rollout's updates."""
    ref_logps: Tensor | None = None
    """[P, G, T]: the frozen reference policy's log-probabilities."""
    values: Tensor | None = None
    """[P, G, T]: a critic's values."""
    returns: Tensor | None = None
    """[P, G, T]: what the critic's values are to predict."""
    sum_squared_probs: Tensor | None = None
    """[P, G, T]: the sum over the vocabulary of squared probabilities."""
    greedy_rewards: Tensor | None = None
    """[P]: reward of the greedy response to each prompt."""
    token_version: Tensor | None = None
    """[P, G, T], int64: updates that the policy had taken when its weights drew each token, 0 outside the response.

    A token's age at an update is `policy.version - token_version`. None where responses are not the policy's own.
    """
    problems: tuple[Problem, ...] = ()
    """P problems, with what a verifier needs."""
    prompt_tokens: tuple[Tensor, ...] = ()
    """P tensors of token ids, ragged."""
    transcripts: tuple[tuple[tuple[Turn, ...], ...], ...] = ()
    """P times G episodes, turn by turn; () of responses that no environment answers."""
    response_tokens: Tensor | None = None
    """[P, G, T], int64: token ids of the response, zero where `response_mask` is false."""
    sampled_mask: Tensor | None = None
    """[P, G, T], bool: tokens of the response that the policy wrote, the others an environment. None: all of them."""
    turns: Tensor | None = None
    """[P, G, T], int64: number of the turn that a token belongs to, from 1; 0 outside the response.

    An observation belongs to the turn that it answers. None: responses of one turn; see `turn_numbers`.
    """
    turn_rewards: Tensor | None = None
    """[P, G, T]: an environment's reward of each turn, at the turn's last sampled token, 0 elsewhere; already summed
    into `rewards`, whose rest is the outcome.
    """
    anchors: Tensor | None = None
    """[P, G, T], int64: a number for the state that a turn was taken in, at all its sampled tokens, 0 elsewhere.

    Equal states have equal numbers; a state that its environment does not name has one of its own.
    """
    tool_calls: Tensor | None = None
    """[P, G, T], int64: at a turn's last sampled token 1 if it called a tool that worked, -1 if the call failed."""
    behaviour_entropy: Tensor | None = None
    """[P, G, T]: entropy of the sampler's next-token distribution, in nats."""
    own: Mapping[str, Tensor] = field(default_factory=dict)
    """Fields that providers of one's own fill, by name, [P], [P, G] or [P, G, T]; `require` reads them like any."""

    def __post_init__(self) -> None:
        P, G = self.rewards.shape
        T = self.response_mask.shape[-1]
        expected = {
            "rewards": (P, G),
            "correct": (P, G),
            "truncated": (P, G),
            "prompt_ids": (P,),
            "greedy_rewards": (P,),
        } | dict.fromkeys(
            (
                "response_mask",
                "mask",
                "kl_rewards",
                "token_rewards",
                "step_ends",
                "behaviour_logps",
                "support_logmass",
                "old_logps",
                "ref_logps",
                "values",
                "returns",
                "sum_squared_probs",
                "response_tokens",
                "behaviour_entropy",
                "token_version",
                "sampled_mask",
                "turns",
                "turn_rewards",
                "anchors",
                "tool_calls",
            ),
            (P, G, T),
        )
        if isinstance(self.support, Tensor):
            expected["support"] = (P, G, T, *self.support.shape[3:4])
        if self.own:
            shapes = {"[P]": (P,), "[P, G]": (P, G), "[P, G, T]": (P, G, T)}
            known = own_fields()
            for name in self.own:
                if name not in known:
                    hint = near(name, [*BATCH_FIELDS, *known])
                    raise GrpoLabError(f"a batch has no field '{name}', and no provider fills it: {hint}")
                expected[name] = shapes[known[name]]
        for name, shape in expected.items():
            tensor = self.get(name)
            _check_tensor(name, tensor)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise GrpoLabError(
                    f"Batch.{name} has shape {list(tensor.shape)}, but with P={P} prompts, G={G} samples "
                    f"and T={T} tokens it must be {list(shape)}"
                )

    @classmethod
    def of(
        cls,
        rewards: Tensor | Sequence[Sequence[float]],
        mask: Tensor | None = None,
        greedy_rewards: Tensor | Sequence[float] | None = None,
        values: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[Sequence[int]] | None = None,
        max_tokens: int | None = None,
        **filled: Any,
    ) -> "Batch":
        """Build a valid batch from little, for tests and notebooks.

        `rewards` is [P, G]; `mask` [P, G, T] defaults to prefixes of `lengths` [P, G], and those to one token a
        response; `max_tokens` to T; any other field may be given by name. Raises `GrpoLabError` on shapes that disagree
        and on responses longer than `max_tokens`.
        """
        r = _rewards(rewards)
        for name in ("mask", "response_mask"):
            _check_tensor(name, mask if name == "mask" else filled.get(name))
        if mask is not None and lengths is not None:
            raise GrpoLabError("give Batch.of a mask or lengths, not both")
        if mask is None:
            n = _lengths(torch.ones(r.shape, dtype=torch.long) if lengths is None else lengths, r.shape)
            mask = torch.arange(int(n.max())) < n[..., None]
        if greedy_rewards is not None:
            filled["greedy_rewards"] = _greedy(greedy_rewards, r.dtype)
        filled.setdefault("response_mask", mask.bool())
        filled.setdefault("prompt_ids", torch.arange(r.shape[0]))
        limit = max_tokens if max_tokens is not None else mask.shape[-1]
        _check_limit(limit, filled["response_mask"])
        filled, own = _apart(filled)
        return cls(rewards=r, mask=mask.bool(), values=values, max_tokens=limit, own=own, **filled)

    @property
    def groups(self) -> int:
        """Number of prompts, P."""
        return self.rewards.shape[0]

    @property
    def group_size(self) -> int:
        """Samples per prompt, G."""
        return self.rewards.shape[1]

    @property
    def lengths(self) -> Tensor:
        """[P, G], int64: tokens of each response (holes of `mask` included)."""
        return self.response_mask.sum(-1)

    @property
    def written(self) -> Tensor:
        """[P, G, T], bool: tokens that the policy wrote."""
        return self.response_mask if self.sampled_mask is None else self.sampled_mask

    @property
    def turn_numbers(self) -> Tensor:
        """[P, G, T], int64: `turns`, and of a batch that has none 1 all over the responses: episodes of one turn."""
        return self.response_mask.long() if self.turns is None else self.turns

    @property
    def no_spread(self) -> Tensor:
        """[P], bool: groups whose rewards are all equal.

        Tested as max == min: in float32 the mean of equal rewards such as 0.7 is off by an ulp, and a std of
        exactly 0 is then never seen.
        """
        return self.rewards.amax(1) == self.rewards.amin(1)

    def get(self, name: str) -> Any:
        """The field `name`, of every batch or of a provider's own; None where it was not filled."""
        return self.own[name] if name in self.own else getattr(self, name, None)

    def tensors(self) -> dict[str, Tensor]:
        """Every field that is a tensor, by name, those of providers' own too."""
        shared = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in {**shared, **self.own}.items() if isinstance(value, Tensor)}

    def require(self, name: str) -> Tensor:
        """The field `name`, or an error that states how to have it filled."""
        tensor: Tensor | None = self.get(name)
        if tensor is None and name in OF_EPISODES:
            raise GrpoLabError(
                f"Batch.{name} is None: no environment answered these responses. Read batch.{name}, and say what holds "
                "where it is None: without an environment a response is one turn (batch.turn_numbers)"
            )
        if tensor is None:
            raise GrpoLabError(
                f"Batch.{name} was not filled: nothing asked for it. Declare it where the part is registered, "
                f"e.g. @advantage(needs=({name!r},)); in a test give it to Batch.of({name}=...)"
            )
        return tensor

    def rows(self, name: str) -> Tensor:
        """The field `name` with its two group axes flattened: [P, G, ...] becomes [B, ...]."""
        return self.require(name).flatten(0, 1)

    def having(self, **filled: Any) -> "Batch":
        """A copy in which these fields are filled; None empties one."""
        shared, own = _apart(filled)
        merged = {name: value for name, value in {**self.own, **own}.items() if value is not None}
        return replace(self, **shared, own=merged)

    def select(self, keep: Tensor) -> "Batch":
        """The groups at indices `keep`, in that order."""
        picked: dict[str, Any] = {name: value[keep] for name, value in self.tensors().items()}
        for name in RAGGED:
            ragged = getattr(self, name)
            picked[name] = tuple(ragged[i] for i in keep.tolist()) if ragged else ()
        return self.having(**picked)

    def choose(self, samples: Tensor) -> "Batch":
        """Of every group the samples at `samples` [P, k], in that order: a batch of groups of k."""
        groups = torch.arange(self.groups, device=samples.device)[:, None]
        chosen: dict[str, Any] = {name: x[groups, samples] if x.ndim > 1 else x for name, x in self.tensors().items()}
        if self.transcripts:
            pairs = zip(self.transcripts, samples.tolist(), strict=True)
            chosen["transcripts"] = tuple(tuple(group[s] for s in picked) for group, picked in pairs)
        return self.having(**chosen)

    @staticmethod
    def concat(parts: Sequence["Batch"]) -> "Batch":
        """Groups of several batches one after the other, padded to the widest T."""
        T = max(part.response_mask.shape[-1] for part in parts)
        joined: dict[str, Any] = {}
        for name in parts[0].tensors():
            values = [part.require(name) for part in parts]
            joined[name] = torch.cat(values if name == "reward_parts" else [pad_tokens(v, T) for v in values])
        for name in RAGGED:
            joined[name] = tuple(item for part in parts for item in getattr(part, name))
        return parts[0].having(**joined)


def pad_tokens(x: Tensor, width: int) -> Tensor:
    """A tensor [P, G, T] or [P, G, T, V] with zeros up to T = width; any other as it is."""
    return torch.nn.functional.pad(x, (*(0, 0) * (x.ndim - 3), 0, width - x.shape[2])) if x.ndim > 2 else x


OF_EPISODES: Final = ("sampled_mask", "turns", "turn_rewards", "anchors", "tool_calls")
"""Fields that are there where a task has an environment, whoever asks."""
RAGGED: Final = ("problems", "prompt_tokens", "transcripts")
"""Fields with one entry for each prompt that are no tensors."""
BATCH_FIELDS: Final = frozenset(field.name for field in fields(Batch)) - {"own"}
"""What every batch has; other names are of providers' own fields."""


def _check_tensor(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Tensor):
        raise GrpoLabError(f"Batch.{name} must be a tensor, not {type(value).__name__}: torch.as_tensor(...) makes one")


def _greedy(given: Any, dtype: torch.dtype) -> Tensor:
    try:
        return torch.as_tensor(given, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GrpoLabError(f"greedy_rewards must be numbers, [P], one for each prompt: {error}") from error


def _rewards(given: Any) -> Tensor:
    """Rewards as a floating-point [P, G], all groups of one size."""
    if isinstance(given, list | tuple):
        sizes = [len(group) if isinstance(group, list | tuple) else None for group in given]
        other = next((p for p, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None and None not in sizes:
            raise GrpoLabError(
                f"rewards must be finite and [P, G]: group {other} has {sizes[other]}, but group 0 has {sizes[0]}; "
                "give every prompt the same number of responses"
            )
    try:
        r = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:  # what is no number
        raise GrpoLabError(f"rewards must be finite and [P, G]: {error}") from error
    r = r if r.is_floating_point() else r.float()
    if r.ndim != 2 or not r.numel() or not torch.isfinite(r).all():
        raise GrpoLabError(
            f"rewards must be finite and [P, G], a row for each prompt; got shape {list(r.shape)}: {shown(r.tolist())}"
        )
    return r


def _lengths(given: Any, shape: torch.Size) -> Tensor:
    """Lengths of responses in tokens, [P, G] whole numbers from 0 up."""
    try:
        n = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GrpoLabError(f"lengths must be [P, G] as rewards are: {error}") from error
    if n.shape != shape:
        raise GrpoLabError(f"lengths have shape {list(n.shape)}, but rewards {list(shape)}: give one for each response")
    if n.is_floating_point() or n.dtype == torch.bool or int(n.min()) < 0:
        raise GrpoLabError(f"lengths must be whole numbers of tokens from 0 up; got {shown(n.tolist())}")
    return n


def _check_limit(limit: Any, response_mask: Tensor) -> None:
    """Refuse a limit that is no number of tokens, or less than a response has."""
    if isinstance(limit, bool) or not isinstance(limit, Integral) or (limit < 1 and response_mask.shape[-1]):
        raise GrpoLabError(f"max_tokens = {shown(limit)}: must be a whole number of tokens from 1 up")
    longest = int(response_mask.sum(-1).max()) if response_mask.numel() else 0
    if longest > limit:
        raise GrpoLabError(
            f"a response has {longest} tokens, but max_tokens = {limit} is the most that one may have: raise "
            "max_tokens, or cut the response"
        )


def _apart(filled: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields that every batch has, and others."""
    shared = {name: value for name, value in filled.items() if name in BATCH_FIELDS}
    return shared, {name: value for name, value in filled.items() if name not in BATCH_FIELDS}
