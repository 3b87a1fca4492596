"""Episodes: what the policy wrote, what it read, in which turn, and what ended it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from core import Part, Problem, Step, environment
from core.generation.base import Generation, Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import Native
from core.generation.noise import SMALL_VOCABULARY, TurnNoise
from core.generation.perturbed import perturbed
from core.generation.rounds import play, play_by_rounds
from core.model.policy import Policy
from core.model.truncation import Truncation
from core.randomness import fold, gumbel, row_keys

QUESTIONS = ("4+8+7=", "1+2+3+4=", "9+9=")
PROBLEMS = [Problem(question, "", i) for i, question in enumerate(QUESTIONS)]
SAMPLES = 3


@dataclass
class Echo:
    """Asks for another sum three times; a long answer counts as a call that worked."""

    turns: int = 3
    heard: list[str] = field(default_factory=list)

    def reset(self, problem: Problem, seed: int) -> str:
        return ""

    def step(self, action: str) -> Step:
        self.heard.append(action)
        n = len(self.heard)
        return Step(f"1+{n}=", reward=n / 4, done=n == self.turns, anchor=("asked", n), call=len(action) > 3)


def made_of(make: Callable[[], Any]) -> Part:
    @environment
    def scripted() -> Any:
        """An environment of a test."""
        return make()

    return scripted


@pytest.fixture
def echo() -> Part:
    return made_of(Echo)


def request(policy: Policy, part: Part, *, noise: int | None = 5, max_tokens: int = 60, **changes: Any) -> Request:
    prompts = [policy.tokens(problem) for problem in PROBLEMS]
    budgets = Budgets(max_tokens, changes.pop("max_turns", 8), changes.pop("step_seconds", 60.0))
    openings = changes.pop("openings", [""] * len(PROBLEMS))
    episodes = Episodes(policy, part, PROBLEMS, [7, 8, 9], SAMPLES, budgets, openings)
    return Request(prompts, SAMPLES, max_tokens, 1.0, noise, episodes=episodes, **changes)


def played(policy: Policy, part: Part, **changes: Any) -> tuple[Generation, Episodes]:
    asked = request(policy, part, **changes)
    (generation,) = Native(0.75).generate(policy, [asked])
    assert asked.episodes is not None
    return generation, asked.episodes


def row_of(generation: Generation, p: int, s: int, name: str = "tokens") -> list[Any]:
    values: list[Any] = getattr(generation, name)[p, s][generation.mask[p, s]].tolist()
    return values


# one row


def test_a_row_is_what_was_written_and_read_in_turns(embedded: Policy, echo: Part) -> None:
    generation, episodes = played(embedded, echo)
    transcript = episodes.transcripts[0]
    assert [turn.observation for turn in transcript] == ["1+1=", "1+2=", "1+3="]
    encode = embedded.tokenizer
    expected, written, numbers, rewards = [], [], [], []
    for number, turn in enumerate(transcript, 1):
        action = encode(turn.action + ".")["input_ids"]
        read = encode(turn.observation)["input_ids"] if number < 3 else []
        expected += [*action, *read]
        written += [True] * len(action) + [False] * len(read)
        numbers += [number] * (len(action) + len(read))
        rewards += [0.0] * (len(action) - 1) + [number / 4] + [0.0] * len(read)
    assert row_of(generation, 0, 0) == expected
    assert row_of(generation, 0, 0, "sampled_mask") == written
    assert row_of(generation, 0, 0, "turns") == numbers
    assert row_of(generation, 0, 0, "turn_rewards") == rewards
    assert not generation.truncated.any()


def test_what_is_read_has_no_probability_and_ends_nothing(embedded: Policy) -> None:
    """The observation spells the end of sequence, which here is a plain character."""

    class Dots(Echo):
        def step(self, action: str) -> Step:
            step = super().step(action)
            return Step("1.2.", step.reward, step.done)

    generation, _ = played(embedded, made_of(Dots))
    read = generation.mask & ~generation.written
    assert read.any()
    assert (generation.logps[read] == 0).all()
    assert (generation.entropy[read] == 0).all()
    assert generation.logps[generation.written].lt(0).all()
    assert generation.turns is not None
    assert int(generation.turns.max()) == 3


def test_states_and_calls(embedded: Policy, echo: Part) -> None:
    generation, episodes = played(embedded, echo)
    assert generation.anchors is not None
    assert generation.tool_calls is not None
    assert generation.turns is not None
    numbers = {}
    for p in range(len(PROBLEMS)):
        for s in range(SAMPLES):
            for turn in (1, 2, 3):
                of_turn = (generation.turns[p, s] == turn) & generation.written[p, s]
                (number,) = set(generation.anchors[p, s][of_turn].tolist())
                numbers[p, s, turn] = number
                calls = generation.tool_calls[p, s][of_turn].tolist()
                action = episodes.transcripts[p * SAMPLES + s][turn - 1].action
                assert calls == [0] * (len(calls) - 1) + [1 if len(action) > 3 else -1]
    assert len({numbers[p, s, 1] for p in range(3) for s in range(SAMPLES)}) == 3  # by prompt
    assert len({numbers[p, s, 2] for p in range(3) for s in range(SAMPLES)}) == 1  # named alike, everywhere
    assert numbers[0, 0, 2] != numbers[0, 0, 3]
    assert (generation.anchors[~generation.written] == 0).all()


def test_states_without_a_name_are_nobody_elses(embedded: Policy) -> None:
    class Nameless(Echo):
        def step(self, action: str) -> Step:
            step = super().step(action)
            return Step(step.observation, step.reward, step.done)

    generation, _ = played(embedded, made_of(Nameless))
    assert generation.anchors is not None
    assert generation.turns is not None
    later = generation.anchors[generation.written & (generation.turns > 1)]
    assert len(set(later.tolist())) == 2 * len(PROBLEMS) * SAMPLES


def test_nor_are_they_those_of_another_call(embedded: Policy) -> None:
    """As of another process, of a further round or of responses sampled ahead: their rows have the same numbers."""

    class Nameless(Echo):
        def step(self, action: str) -> Step:
            return Step("1=", done=super().step(action).done)

    part = made_of(Nameless)

    def states(problem: Problem) -> set[int]:
        episodes = Episodes(embedded, part, [problem], [7], 1, Budgets(60, 8, 60.0), [""])
        asked = Request([embedded.tokens(problem)], 1, 60, 1.0, 5, episodes=episodes)
        (generation,) = Native(0.75).generate(embedded, [asked])
        assert generation.anchors is not None
        return set(generation.anchors[generation.written].tolist())

    one, other = states(PROBLEMS[0]), states(PROBLEMS[1])
    assert len(one) == len(other) == 3
    assert not one & other


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


# noise


def test_the_first_turn_draws_as_a_response_that_has_no_other(embedded: Policy, echo: Part) -> None:
    generation, _ = played(embedded, echo)
    prompts = [embedded.tokens(problem) for problem in PROBLEMS]
    (alone,) = Native(0.75).generate(embedded, [Request(prompts, SAMPLES, 60, 1.0, 5)])
    assert generation.turns is not None
    for p in range(3):
        for s in range(SAMPLES):
            first = (generation.turns[p, s] == 1) & generation.written[p, s]
            assert generation.tokens[p, s][first].tolist() == row_of(alone, p, s)


@pytest.mark.parametrize("vocabulary", [11, SMALL_VOCABULARY + 1])
def test_a_turns_noise_does_not_depend_on_how_long_those_before_were(vocabulary: int) -> None:
    keys = row_keys(3, torch.arange(4), torch.tensor(1))
    noise = TurnNoise(keys, vocabulary, 3)
    turns, positions = torch.tensor([1, 2, 2, 5]), torch.tensor([0, 4, 4, 1])
    drawn = noise.at(turns, positions)
    assert drawn.shape == (4, vocabulary)
    noise.keep(torch.tensor([1, 3]))
    assert torch.equal(noise.at(turns[[1, 3]], positions[[1, 3]]), drawn[[1, 3]])
    if vocabulary <= SMALL_VOCABULARY:  # by hand: the key of the row, then of the turn, the position and the token
        expected = gumbel(fold(fold(fold(keys[1], -2), 4), torch.arange(vocabulary)))
        assert torch.equal(drawn[1], expected)
        assert torch.equal(drawn[0], gumbel(fold(fold(keys[0], 0), torch.arange(vocabulary))))


# budgets


def test_an_observation_that_leaves_no_room_is_not_read(embedded: Policy) -> None:
    class Long(Echo):
        def step(self, action: str) -> Step:
            return Step("1" * 50, 0.5)

    generation, episodes = played(embedded, made_of(Long), max_tokens=50)
    assert generation.truncated.all()
    assert torch.equal(generation.mask, generation.written)
    assert all(len(transcript) == 1 for transcript in episodes.transcripts)
    assert float(generation.turn_rewards.sum(-1).min()) == 0.5  # type: ignore[union-attr]


def test_a_turn_that_the_tokens_cut_is_told_and_not_answered(embedded: Policy, echo: Part) -> None:
    generation, episodes = played(embedded, echo, max_tokens=2)
    assert generation.truncated.all()
    assert all(turn.observation == "" for (turn,) in episodes.transcripts)
    assert not generation.turn_rewards.any()  # type: ignore[union-attr]


def test_turns_run_out_after_the_last_is_rewarded(embedded: Policy, echo: Part) -> None:
    generation, _ = played(embedded, echo, max_turns=2)
    assert generation.truncated.all()
    assert generation.turn_rewards is not None
    assert generation.turn_rewards.sum(-1).flatten().tolist() == [0.75] * 9  # 1/4 + 2/4


def test_an_observation_of_nothing_begins_the_next_turn(embedded: Policy) -> None:
    class Silent(Echo):
        def step(self, action: str) -> Step:
            step = super().step(action)
            return Step("", step.reward, step.done)

    generation, _ = played(embedded, made_of(Silent), max_tokens=200)
    assert torch.equal(generation.mask, generation.written)
    assert int(generation.turns.max()) == 3  # type: ignore[union-attr]


# environments that are at fault


class Faults:
    """What a test's environment does instead, by name."""

    def raises(self, action: str) -> Any:
        raise ValueError("out of order")

    def returns_text(self, action: str) -> Any:
        return "an observation"

    def returns_nothing(self, action: str) -> Any:
        return None

    def rewards_nan(self, action: str) -> Any:
        return Step(reward=float("nan"))

    def rewards_text(self, action: str) -> Any:
        return Step(reward="1")  # type: ignore[arg-type]

    def rewards_several(self, action: str) -> Any:
        return Step(reward=torch.zeros(2))  # type: ignore[arg-type]

    def rewards_beyond_float32(self, action: str) -> Any:
        return Step(reward=1e300)

    def rewards_beyond_any_float(self, action: str) -> Any:
        return Step(reward=10**400)

    def leaves(self, action: str) -> Any:
        raise SystemExit(3)

    def raises_the_unspeakable(self, action: str) -> Any:
        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        raise UnspeakableError

    def observes_a_number(self, action: str) -> Any:
        return Step(observation=3)  # type: ignore[arg-type]

    def observes_too_much(self, action: str) -> Any:
        return Step("1" * 2_000_000)

    def is_done_perhaps(self, action: str) -> Any:
        return Step(done="yes")  # type: ignore[arg-type]

    def calls_perhaps(self, action: str) -> Any:
        return Step(call=1)  # type: ignore[arg-type]

    def names_an_object(self, action: str) -> Any:
        return Step("1=", anchor=object())

    def names_a_list(self, action: str) -> Any:
        return Step("1=", anchor=[1])  # type: ignore[arg-type]


SAYS = {
    "raises": "out of order",
    "returns_text": "must return a Step",
    "returns_nothing": "must return a Step",
    "rewards_nan": "finite number",
    "rewards_text": "finite number",
    "rewards_several": "finite number",
    "rewards_beyond_float32": "finite number",
    "rewards_beyond_any_float": "finite number",
    "leaves": "SystemExit",
    "raises_the_unspeakable": "raised:\nUnspeakableError",
    "observes_a_number": "must be a text",
    "observes_too_much": "2,000,000 characters",
    "is_done_perhaps": "must be True or False",
    "calls_perhaps": "must be True or False",
    "names_an_object": "named by text",
    "names_a_list": "named by text",
}


def test_what_no_encoding_has_is_read_as_a_replacement(embedded: Policy) -> None:
    """Half a pair of surrogates, as JSON may spell it; and a class of texts becomes a text."""

    class Text(str):
        pass

    class Halves(Echo):
        def reset(self, problem: Problem, seed: int) -> str:
            return Text("1=\udc00")

        def step(self, action: str) -> Step:
            step = super().step(action)
            return Step(Text("1\ud83d\ude00\ud800="), done=step.done)

    _, episodes = played(embedded, made_of(Halves), openings=["1=\ufffd"] * 3)
    assert not episodes.failures
    said = episodes.transcripts[0][0].observation
    assert said == "1\U0001f600\ufffd="
    assert type(said) is str


@pytest.mark.parametrize("fault", SAYS)
def test_a_step_at_fault_ends_its_episode_and_is_told(embedded: Policy, fault: str) -> None:
    class Broken(Echo):
        def step(self, action: str) -> Any:
            return getattr(Faults(), fault)(action) if self.heard else super().step(action)

    generation, episodes = played(embedded, made_of(Broken))
    assert sorted(episodes.failures) == list(range(9))
    message = episodes.failures[0].message
    assert SAYS[fault] in message
    assert "environment 'scripted'" in message
    assert "at turn 2" in message
    assert int(generation.turns.max()) == 2  # type: ignore[union-attr]
    assert not episodes.failures[0].by_machine


def test_a_step_that_hangs_is_left_behind(embedded: Policy) -> None:
    """Every row waits for its deadline once; what still hangs is a thread of its own."""
    hanging: list[bool] = []

    class Hangs(Echo):
        def step(self, action: str) -> Step:
            if not hanging:
                hanging.append(True)
                while hanging:
                    time.sleep(0.01)
            return super().step(action)

    _, episodes = played(embedded, made_of(Hangs), step_seconds=0.05)
    hanging.clear()
    assert episodes.failures
    assert "did not answer within 0.05 seconds (train.step_seconds)" in next(iter(episodes.failures.values())).message


def test_what_is_begun_by_other_words_is_at_fault(embedded: Policy) -> None:
    spoken = iter("abcdefghi")

    class Fickle(Echo):
        def reset(self, problem: Problem, seed: int) -> str:
            return next(spoken)

    generation, episodes = played(embedded, made_of(Fickle), openings=["a", "d", "g"])
    assert sorted(episodes.failures) == [1, 2, 4, 5, 7, 8]
    assert "reset may depend on nothing else" in episodes.failures[1].message
    lengths = generation.mask.sum(-1).flatten()
    assert (lengths[[1, 2, 4, 5, 7, 8]] == 1).all()


@pytest.mark.parametrize("given", [3, ["text"], b"text"])
def test_a_beginning_that_is_no_text_is_at_fault(embedded: Policy, given: Any) -> None:
    class Odd(Echo):
        def reset(self, problem: Problem, seed: int) -> Any:
            return given

    _, episodes = played(embedded, made_of(Odd))
    assert len(episodes.failures) == 9
    assert "reset must return a text, or None" in episodes.failures[0].message


def test_an_end_of_the_network_is_the_machines_fault(embedded: Policy) -> None:
    class Unreachable(Echo):
        def step(self, action: str) -> Step:
            raise ConnectionError("no route")

    _, episodes = played(embedded, made_of(Unreachable))
    assert all(failure.by_machine for failure in episodes.failures.values())


def test_nothing_asked_is_nothing_played(embedded: Policy, echo: Part) -> None:
    episodes = Episodes(embedded, echo, [], [], SAMPLES, Budgets(20, 3, 1.0), [])
    asked = Request([], SAMPLES, 20, 1.0, 5, episodes=episodes)
    for generation in (*Native(0.75).generate(embedded, [asked]), play_by_rounds(Native(0.75), embedded, asked)):
        assert generation.tokens.shape == (0, SAMPLES, 0)
        joined: Tensor | None = Generation.concat([generation, played(embedded, echo)[0]]).turns
        assert joined is not None
        assert int(joined.max()) == 3


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
