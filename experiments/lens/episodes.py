"""Episodes small enough to be enumerated: a tabular policy takes turns with an environment whose chances are known.

An episode's return is its outcome and the rewards of its turns, and the expected return is a finite sum over episodes,

    J = sum_e prod_t pi(y_t | prefix) prod_k Pr(observation k | what came before it) R(e)

so that all that the lens enumerates of responses it enumerates of episodes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from core.errors import GrpoLabError
from experiments.lens.policy import Responses, TabularPolicy, Turns


@dataclass(frozen=True)
class History:
    """What has been done and seen in an episode."""

    actions: tuple[tuple[int, ...], ...] = ((),)
    """The tokens of each turn so far; the last turn may have none yet."""
    seen: tuple[int, ...] = ()
    """The observations that answered all turns but the last."""

    @property
    def turn(self) -> int:
        """The number of the turn, from 1."""
        return len(self.actions)

    @property
    def action(self) -> tuple[int, ...]:
        """The tokens of the present turn so far."""
        return self.actions[-1]

    def drawn(self, token: int) -> "History":
        """With one more token in the present turn."""
        return replace(self, actions=(*self.actions[:-1], (*self.action, token)))

    def observed(self, observation: int) -> "History":
        """At the beginning of the next turn."""
        return History((*self.actions, ()), (*self.seen, observation))


@dataclass(frozen=True)
class Reply:
    """What an environment may reply to an action."""

    probability: float = 1.0
    observation: int | None = None
    """Its number; None: the episode is over."""
    reward: float = 0.0
    """Of the turn."""
    outcome: float = 0.0
    """Of the episode, where it is over."""
    call: bool | None = None
    """Whether the action called a tool: True, it worked; False, the call failed."""


World: TypeAlias = Callable[[int, History], Sequence[Reply]]
"""Of prompt and history: the possible replies, each with an observation of its own; none where an action goes on."""
Logit: TypeAlias = Callable[[int, History, int], float]
"""The policy's, of prompt, history and token."""


@dataclass(frozen=True)
class _Token:
    token: int
    turn: int
    before: History | None = None
    """The history that the policy drew it after; None: it is observed."""
    call: int = 0
    reward: float = 0.0


@dataclass(frozen=True)
class _Episode:
    tokens: tuple[_Token, ...] = ()
    chance: float = 1.0
    outcome: float = 0.0

    def after(self, *tokens: _Token, chance: float = 1.0) -> "_Episode":
        """With tokens before it, and the probability of the replies in them."""
        return replace(self, tokens=(*tokens, *self.tokens), chance=chance * self.chance)


def make_episodes(world: World, logit: Logit, *, prompts: int = 1, vocabulary: int = 2) -> TabularPolicy:
    """The policy of these logits, with every episode of a world, shorter and longer ones, in its tables.

    Token o of an observation is `vocabulary + o`; the anchor of a turn says what was observed before it. Raises
    `GrpoLabError` for replies whose probabilities do not add up to 1, and where prompts differ in more than
    probabilities and rewards.
    """
    by_prompt = [list(_from(world, prompt, vocabulary, History())) for prompt in range(prompts)]
    shapes = [[[(t.token, t.turn, t.before, t.call) for t in e.tokens] for e in episodes] for episodes in by_prompt]
    if any(shape != shapes[0] for shape in shapes):
        raise GrpoLabError("make_episodes: prompts may differ in probabilities and rewards, not in episodes")
    drawn = [token.before for episode in by_prompt[0] for token in episode.tokens if token.before is not None]
    states = {history: row for row, history in enumerate(dict.fromkeys(drawn))}
    logits = torch.tensor(
        [[[logit(n, history, token) for token in range(vocabulary)] for history in states] for n in range(prompts)],
        dtype=torch.float64,
    )
    outcomes = torch.tensor([[e.outcome for e in episodes] for episodes in by_prompt], dtype=torch.float64)
    paid = torch.stack([_table(episodes, lambda t: t.reward, torch.float64) for episodes in by_prompt])
    return TabularPolicy(
        _responses(by_prompt[0], states, vocabulary),
        logits,
        logits.clone(),
        outcomes + paid.sum(-1),
        chance=torch.tensor([[e.chance for e in episodes] for episodes in by_prompt], dtype=torch.float64),
        turn_rewards=paid,
    )


def _from(world: World, prompt: int, vocabulary: int, history: History) -> Iterator[_Episode]:
    """All that may follow a history."""
    for token in range(vocabulary):
        drawn, now = _Token(token, history.turn, history), history.drawn(token)
        replies = world(prompt, now)
        if not replies:
            yield from (rest.after(drawn) for rest in _from(world, prompt, vocabulary, now))
            continue
        if abs(sum(reply.probability for reply in replies) - 1) > 1e-12:
            raise GrpoLabError(f"make_episodes: replies to {now} of prompt {prompt} do not add up to 1: {replies}")
        for reply in replies:
            call = 0 if reply.call is None else 1 if reply.call else -1
            last = replace(drawn, call=call, reward=reply.reward)
            if reply.observation is None:
                yield _Episode(outcome=reply.outcome).after(last, chance=reply.probability)
                continue
            observed = _Token(vocabulary + reply.observation, history.turn)
            for rest in _from(world, prompt, vocabulary, now.observed(reply.observation)):
                yield rest.after(last, observed, chance=reply.probability)


def _responses(episodes: Sequence[_Episode], states: dict[History, int], vocabulary: int) -> Responses:
    seen = dict.fromkeys(history.seen for history in states)
    anchors = {observations: number for number, observations in enumerate(seen, start=1)}
    long = torch.int64
    return Responses(
        _table(episodes, lambda t: t.token, long),
        _table(episodes, lambda _: True, torch.bool),
        _table(episodes, lambda t: states[t.before] if t.before else 0, long),
        torch.zeros(len(episodes), dtype=torch.bool),
        vocabulary,
        Turns(
            sampled=_table(episodes, lambda t: t.before is not None, torch.bool),
            numbers=_table(episodes, lambda t: t.turn, long),
            anchors=_table(episodes, lambda t: anchors[t.before.seen] if t.before else 0, long),
            calls=_table(episodes, lambda t: t.call, long),
        ),
    )


def _table(episodes: Sequence[_Episode], of: Callable[[_Token], Any], dtype: torch.dtype) -> Tensor:
    """[K, T]: something of each token, 0 after an episode."""
    T = max(len(episode.tokens) for episode in episodes)
    return torch.tensor([[*map(of, e.tokens), *[0] * (T - len(e.tokens))] for e in episodes], dtype=dtype)
