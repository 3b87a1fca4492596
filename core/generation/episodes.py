"""Episodes: responses in several turns, between which an environment speaks.

An episode is one row of tokens: what the policy writes up to its end of sequence, what it is answered, what it writes
then. Every row goes on by itself: none waits for another's turn to end. Generators tell what they draw, and ask what is
read instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.generation.steps import Failure, anchor_number, begin, take_step
from core.model.policy import Policy
from core.parts.environments import Environment, Turn
from core.parts.problems import Problem
from core.parts.registry import Part


@dataclass(frozen=True)
class Budgets:
    """What ends an episode that its environment does not end."""

    max_tokens: int
    """Of all turns and observations."""
    max_turns: int
    step_seconds: float
    """How long an environment may take to answer."""


class Episodes:
    """B episodes as they go on, token by token; all on the host."""

    def __init__(
        self,
        policy: Policy,
        part: Part,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        samples: int,
        budgets: Budgets,
        openings: Sequence[str],
    ) -> None:
        B = len(problems) * samples
        self._policy, self._part, self._budgets = policy, part, budgets
        self._ends = torch.tensor(policy.end_tokens)
        self._is_text = [isinstance(problem.prompt, str) for problem in problems for _ in range(samples)]
        self.failures: dict[int, Failure] = {}
        """By row."""
        self.transcripts: list[list[Turn]] = [[] for _ in range(B)]
        self._environments = [
            self._begun(p * samples + s, problem, seeds[p], openings[p])
            for p, problem in enumerate(problems)
            for s in range(samples)
        ]
        self.length = torch.zeros(B, dtype=torch.long)
        """[B]: tokens of each row so far."""
        self.turn = torch.ones(B, dtype=torch.long)
        """[B]: which turn it is in."""
        self.over = torch.zeros(B, dtype=torch.bool)
        self.truncated = torch.zeros(B, dtype=torch.bool)
        begun = [anchor_number("begun", problem.prompt, seed) for problem, seed in zip(problems, seeds, strict=True)]
        self._anchor = torch.tensor(begun, dtype=torch.long).repeat_interleave(samples)
        self._whose = [(number, sample) for number in begun for sample in range(samples)]
        """Of every row what no other has, in this process or another."""
        self._said: list[list[int]] = [[] for _ in range(B)]
        """What the policy has written in the present turn."""
        self._pending: dict[int, list[int]] = {}
        """By row, what is still to be read of an observation."""
        shape = (B, budgets.max_tokens)
        self._columns = {
            "sampled_mask": torch.zeros(shape, dtype=torch.bool),
            "turns": torch.zeros(shape, dtype=torch.long),
            "turn_rewards": torch.zeros(shape),
            "anchors": torch.zeros(shape, dtype=torch.long),
            "tool_calls": torch.zeros(shape, dtype=torch.long),
        }

    def forced(self, rows: Tensor) -> tuple[Tensor, Tensor] | None:
        """Which of these rows [b] read an observation next, and its token; None where none does."""
        if not self._pending:
            return None
        ids = [self._pending[row][0] if row in self._pending else -1 for row in rows.tolist()]
        tokens = torch.tensor(ids)
        return tokens >= 0, tokens.clamp(min=0)

    def reads(self, row: int) -> bool:
        """Whether an observation is being read."""
        return row in self._pending

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Turn, and position in it, of the token that each of these rows [b] writes next."""
        return self.turn[rows], torch.tensor([len(self._said[row]) for row in rows.tolist()])

    def take(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """The next token of each of these rows [b], read or written; returns which of them go on [b].

        Rows that are over may be among them; nothing is taken for these.
        """
        going = ~self.over[rows]
        live, tokens = rows[going], tokens[going]
        reads = torch.tensor([row in self._pending for row in live.tolist()], dtype=torch.bool)
        at = self.length[live]
        columns = self._columns
        columns["turns"][live, at] = self.turn[live]
        columns["sampled_mask"][live, at] = ~reads
        columns["anchors"][live, at] = self._anchor[live].where(~reads, 0)
        self.length[live] += 1
        ends = torch.isin(tokens, self._ends) & ~reads
        for row, token, is_read, is_end in zip(
            live.tolist(), tokens.tolist(), reads.tolist(), ends.tolist(), strict=True
        ):
            if is_read:
                self._read(row)
                continue
            self._said[row].append(token)
            if row in self.failures:
                self.over[row] = True
            elif is_end:
                self.end_turn(row)
        full = live[(self.length[live] == self._budgets.max_tokens) & ~self.over[live]]
        for row in full.tolist():
            self._cut(row)
        return ~self.over[rows]

    def columns(self, width: int) -> dict[str, Tensor]:
        """Of all tokens [B, width]: who wrote them, their turns, rewards, states and calls, by the batch's fields."""
        return {name: x[:, :width] for name, x in self._columns.items()}

    def _begun(self, row: int, problem: Problem, seed: int, opening: str) -> Environment | None:
        text, environment = begin(self._part, problem, seed, self._budgets.step_seconds)
        if isinstance(text, Failure):
            self.failures[row] = text
        elif text != opening:
            self.failures[row] = Failure(
                f"environment '{self._part.name}' ({self._part.place}) began the same problem with the same seed by "
                f"{opening!r:.80} and by {text!r:.80}: reset may depend on nothing else"
            )
        return environment

    def end_turn(self, row: int) -> None:
        """The policy has spoken: ask the environment, and see whether there is room for another turn."""
        (action,) = self._policy.texts([torch.tensor(self._said[row])])
        turn = int(self.turn[row])
        environment = self._environments[row]
        assert environment is not None
        step = take_step(self._part, environment, action, turn, self._budgets.step_seconds)
        if isinstance(step, Failure):
            self.failures[row] = step
            self.over[row] = True
            return
        last = int(self.length[row]) - 1
        self._columns["turn_rewards"][row, last] = step.reward
        self._columns["tool_calls"][row, last] = 0 if step.call is None else 1 if step.call else -1
        self.transcripts[row].append(Turn(action, step.observation, step.reward, step.call))
        self._said[row] = []
        if step.done:
            self.over[row] = True
            return
        role = getattr(environment, "role", "user")
        ids = self._policy.observation_tokens(step.observation, None if self._is_text[row] else role)
        if turn == self._budgets.max_turns or last + 1 + len(ids) >= self._budgets.max_tokens:
            self.over[row] = self.truncated[row] = True
            return
        # a state that is not named is nobody else's
        self._anchor[row] = (
            anchor_number("unnamed", *self._whose[row], turn) if step.anchor is None else anchor_number(step.anchor)
        )
        self._pending[row] = ids
        if not ids:
            self._next_turn(row)

    def _read(self, row: int) -> None:
        self._pending[row].pop(0)
        if not self._pending[row]:
            self._next_turn(row)

    def _next_turn(self, row: int) -> None:
        del self._pending[row]
        self.turn[row] += 1

    def _cut(self, row: int) -> None:
        """The tokens are spent in the middle of a turn."""
        self.over[row] = self.truncated[row] = True
        (action,) = self._policy.texts([torch.tensor(self._said[row], dtype=torch.long)])
        self.transcripts[row].append(Turn(action, "", 0.0, None))
