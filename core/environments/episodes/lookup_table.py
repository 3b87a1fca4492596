"""A table that is read one entry at a time: what answers a policy that plays the task `lookups`.

    policy        environment
    ?k            m;          the table has m under k
    ?z            !;          it has nothing under z, or what was asked is no question
    >x                        an answer: the episode is over

The policy's texts are shown without their end.
"""

import re
from collections.abc import Mapping
from typing import Final

from core.errors import GrpoLabError
from core.parts.environments import Step, environment
from core.parts.problems import Problem
from core.parts.settings import NOT_NEGATIVE

ASK: Final = "?"
ANSWER: Final = ">"
STOP: Final = ";"
"""Ends an observation."""
ERROR: Final = "!" + STOP
_CALL: Final = re.compile(re.escape(ASK) + r"(\w)")


class LookupTable:
    """One episode with the table `problem.data["table"]`, from the key `start`, for `hops` hops.

    The state that an action is taken in is what the table said last and how far the way from the start is known: a
    right call is one that makes it known one hop further, and there are as many of them as the problem has hops.
    """

    def __init__(self, right_call: float, call_cost: float, right_answer: float) -> None:
        self.right_call, self.call_cost, self.right_answer = right_call, call_cost, right_answer

    def reset(self, problem: Problem, seed: int) -> None:  # noqa: ARG002 - nothing is left to chance
        """Take the problem's table; raises where there is none."""
        table, start, hops = (problem.data.get(name) for name in ("table", "start", "hops"))
        if not isinstance(table, Mapping) or not isinstance(start, str) or not isinstance(hops, int):
            raise GrpoLabError(
                f"the environment 'lookup_table' needs a table, a start and hops in problem.data, and this problem has "
                f"{', '.join(problem.data) or 'nothing'} there: play it with train.task = @lookups()"
            )
        self.table: Mapping[str, str] = table
        self.answer = ANSWER + problem.answer
        self.last = self.end = start
        self.hops, self.left = 0, hops

    def step(self, action: str) -> Step:
        """What the table has under a key, an error, or the end of the episode."""
        if ANSWER in action:
            return Step(reward=self.right_answer * action.endswith(self.answer), done=True)
        match = _CALL.fullmatch(action)
        found = self.table.get(match[1]) if match else None
        if match is None or found is None:
            return Step(ERROR, -self.call_cost, anchor=(self.last, self.hops), call=False)
        is_next = match[1] == self.end
        is_right = is_next and self.left > 0
        if is_next:
            self.end, self.hops, self.left = found, self.hops + 1, self.left - 1
        self.last = found
        return Step(found + STOP, self.right_call * is_right - self.call_cost, anchor=(found, self.hops), call=True)


@environment(limits={"right_call": NOT_NEGATIVE, "call_cost": NOT_NEGATIVE, "right_answer": NOT_NEGATIVE})
def lookup_table(*, right_call: float = 0.0, call_cost: float = 0.0, right_answer: float = 0.0) -> LookupTable:
    """A hidden table that is asked key by key.

    A turn's reward is `right_call` if the call makes the way from the start known one hop further, up to the hops
    asked for, less `call_cost` for every call, a failed one too; an answer's is `right_answer` where it is right: a
    reward of its turn then, beside what the verifier gives for the outcome.
    """
    return LookupTable(right_call, call_cost, right_answer)
