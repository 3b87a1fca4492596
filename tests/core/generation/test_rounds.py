"""Episodes turn by turn, as generators play them that know none: the same as in one decode, nothing encoded again."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from core import Part, Problem, Step
from core.generation.base import Generation, Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import Native
from core.generation.perturbed import perturbed
from core.generation.rounds import play, play_by_rounds
from core.model.policy import Policy
from core.model.truncation import Truncation
from tests.core.generation.playing import Echo, made_of, played, request

# by rounds, an independent form


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="sampled"),
        pytest.param({"noise": None}, id="greedy"),
        pytest.param({"max_tokens": 17}, id="tokens run out"),
        pytest.param({"max_turns": 2}, id="turns run out"),
        pytest.param({"truncation": Truncation(top_k=3), "with_support": True}, id="truncated sampling"),
    ],
)
def test_turn_by_turn_gives_the_same(embedded: Policy, echo: Part, changes: dict[str, Any]) -> None:
    inline, theirs = played(embedded, echo, **changes)
    asked = request(embedded, echo, **changes)
    rounds = play_by_rounds(Native(0.75), embedded, asked)
    assert asked.episodes is not None
    for name, value in vars(inline).items():
        other = getattr(rounds, name)
        if name in ("logps", "entropy", "support_logmass"):
            assert (value is None) == (other is None)
            if value is not None:
                torch.testing.assert_close(value, other, atol=1e-4, rtol=1e-4)
        elif value is not None:
            assert torch.equal(value, other), name
    assert theirs.transcripts == asked.episodes.transcripts
    assert (inline.support is None) == ("truncation" not in changes)


def test_generators_that_know_no_episodes_are_asked_turn_by_turn(embedded: Policy, echo: Part) -> None:
    class Plain:
        def __init__(self) -> None:
            self.turns: list[int] = []

        def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
            assert all(each.episodes is None for each in requests)
            self.turns += [each.turn for each in requests]
            return Native(0.75).generate(policy, requests)

    plain = Plain()
    (generation,) = play(plain, embedded, [request(embedded, echo)])
    assert sorted(set(plain.turns)) == [1, 2, 3]
    assert torch.equal(generation.tokens, played(embedded, echo)[0].tokens)


def test_weights_with_noise_play_too(embedded: Policy, echo: Part) -> None:
    generator = perturbed(divergence=0.01)
    before = [x.clone() for x in embedded.model.parameters()]
    (generation,) = play(generator, embedded, [request(embedded, echo, for_training=True)])
    assert generation.turns is not None
    assert int(generation.turns.max()) == 3
    assert all(torch.equal(x, y) for x, y in zip(before, embedded.model.parameters(), strict=True))


# tokens are those that were drawn


class Awkward:
    """To whom "ab" is one token, "a" and "b" are two; the policy says "a", the environment "b"."""

    end_tokens = (3,)
    TOKENS = ("a", "b", "ab", ".")
    device = torch.device("cpu")

    def texts(self, responses: Sequence[Tensor]) -> list[str]:
        return ["".join(self.TOKENS[i] for i in response.tolist() if i != 3) for response in responses]

    def observation_tokens(self, observation: str, role: str | None) -> list[int]:
        assert role is None
        return [1] if observation == "b" else [2]


def test_nothing_is_encoded_again() -> None:
    """Text of the whole, encoded anew, would have other tokens where two of them meet."""

    class Says:
        def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
            self.seen = [prompt.tolist() for request in requests for prompt in request.prompts]
            tokens = torch.tensor([0, 3]).expand(len(self.seen), 1, 2)
            mask, zeros = torch.ones_like(tokens).bool(), torch.zeros(tokens.shape)
            return [Generation(tokens, mask, zeros - 1, zeros, torch.zeros(len(self.seen), 1).bool())]

    class B(Echo):
        def step(self, action: str) -> Step:
            super().step(action)
            assert action == "a"
            return Step("b", done=len(self.heard) == 2)

    policy: Any = Awkward()
    episodes = Episodes(policy, made_of(B), [Problem("a", "", 0)], [0], 1, Budgets(20, 4, 60.0), [""])
    says = Says()
    generation = play_by_rounds(says, policy, Request([torch.tensor([0])], 1, 20, 1.0, 5, episodes=episodes))
    assert generation.tokens.tolist() == [[[0, 3, 1, 0, 3]]]
    assert says.seen == [[0, 0, 3, 1]]
    assert generation.logps.tolist() == [[[-1, -1, 0, -1, -1]]]


def test_a_turn_that_ends_without_a_token_for_it_is_answered() -> None:
    """As where a sampler stops at a text."""

    class Stops:
        def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
            tokens = torch.zeros(1, 1, 2, dtype=torch.long)
            zeros = torch.zeros(1, 1, 2)
            return [Generation(tokens, tokens == 0, zeros, zeros, torch.zeros(1, 1).bool())]

    class B(Echo):
        def step(self, action: str) -> Step:
            super().step(action)
            return Step("b", done=len(self.heard) == 3)

    policy: Any = Awkward()
    episodes = Episodes(policy, made_of(B), [Problem("a", "", 0)], [0], 1, Budgets(20, 4, 60.0), [""])
    generation = play_by_rounds(Stops(), policy, Request([torch.tensor([0])], 1, 20, 1.0, 5, episodes=episodes))
    assert generation.tokens.tolist() == [[[0, 0, 1, 0, 0, 1, 0, 0]]]
    assert [turn.action for turn in episodes.transcripts[0]] == ["aa", "aa", "aa"]
