"""Episodes: what the policy wrote, what it read, in which turn, and what ended it."""

import pytest
import torch
from torch import Tensor

from core import Part, Problem, Step
from core.generation.base import Generation, Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import Native
from core.generation.noise import SMALL_VOCABULARY, TurnNoise
from core.generation.rounds import play_by_rounds
from core.model.policy import Policy
from core.randomness import fold, gumbel, row_keys
from tests.core.generation.playing import PROBLEMS, SAMPLES, Echo, made_of, played, row_of

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


def test_nothing_asked_is_nothing_played(embedded: Policy, echo: Part) -> None:
    episodes = Episodes(embedded, echo, [], [], SAMPLES, Budgets(20, 3, 1.0), [])
    asked = Request([], SAMPLES, 20, 1.0, 5, episodes=episodes)
    for generation in (*Native(0.75).generate(embedded, [asked]), play_by_rounds(Native(0.75), embedded, asked)):
        assert generation.tokens.shape == (0, SAMPLES, 0)
        joined: Tensor | None = Generation.concat([generation, played(embedded, echo)[0]]).turns
        assert joined is not None
        assert int(joined.max()) == 3
