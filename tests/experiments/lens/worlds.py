"""Worlds for tests of the lens on turns: one that can be computed by hand, one of random numbers."""

import math
import random

import torch
from torch import Tensor

from experiments.lens.episodes import History, Reply, make_episodes
from experiments.lens.policy import TabularPolicy


def stop_or_go(c: float, stop: float, go: float, more: float, pays: float = 1.0) -> TabularPolicy:
    """Stop with probability 1 - c for `stop`; or go on for `go`, and for `pays` more with probability `more`.

    All is decided by one token a turn. `stop` is an outcome, the others are rewards of turns.
    """

    def world(_: int, history: History) -> list[Reply]:
        (token,) = history.action
        if history.turn == 2:
            return [Reply(reward=pays * token)]
        return [Reply(observation=0, reward=go)] if token else [Reply(outcome=stop)]

    def logit(_: int, history: History, token: int) -> float:
        chosen = c if history.turn == 1 else more
        return math.log(chosen if token else 1 - chosen)

    return make_episodes(world, logit)


class Lottery:
    """Up to three turns of a token or two; a 0 ends the episode, chance answers the rest. Numbers come of the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.states: dict[History, int] = {}
        self.policy = make_episodes(self.world, self.logit, prompts=2)

    def number(self, *path: object) -> float:
        """Between -1 and 1."""
        return random.Random(repr((self.seed, path))).uniform(-1, 1)

    def world(self, prompt: int, history: History) -> list[Reply]:
        """A first 0 is over, a first 1 goes on to a second token, which is answered, but for the last turn."""
        if history.action == (1,):
            return []
        if history.action == (0,) or history.turn == 3:
            return [Reply(reward=self.number(prompt, history, "T"), outcome=self.number(prompt, history, "O"))]
        chance = 0.5 + 0.4 * self.number(prompt, history, "p")
        reward = self.number(prompt, history, 0), self.number(prompt, history, 1)
        return [Reply(chance, 0, reward[0], call=True), Reply(1 - chance, 1, reward[1], call=False)]

    def logit(self, prompt: int, history: History, token: int) -> float:
        """The policy's."""
        self.states.setdefault(history, len(self.states))
        return self.number(prompt, history, token, "logit")

    def expected_return(self, logits: Tensor) -> Tensor:
        """Of logits [N, S, V], by recursion from history to history instead of over episodes; [N]."""
        return torch.stack([self._from(prompt, History(), logits[prompt].log_softmax(-1)) for prompt in range(2)])

    def _from(self, prompt: int, history: History, logps: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for token in range(2):
            now = history.drawn(token)
            replies = self.world(prompt, now)
            worth = torch.zeros((), dtype=torch.float64) if replies else self._from(prompt, now, logps)
            for reply in replies:
                over = reply.observation is None
                rest = reply.outcome if over else self._from(prompt, now.observed(reply.observation or 0), logps)
                worth = worth + reply.probability * (reply.reward + rest)
            total = total + logps[self.states[history], token].exp() * worth
        return total
