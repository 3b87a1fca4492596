"""Worked solutions: one right response to each prompt, to be imitated."""

from dataclasses import dataclass
from typing import Final

from core.environments.datasets.stored import (
    Stored,
    StoredFile,
    answer_of,
    as_sampled,
    content_of,
    field_of,
    prompt_of,
    refuse_behaviour_logps,
    row_indices,
)
from core.environments.tasks.rows import Row, messages_fault, read_rows
from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.loop.source import (
    RolloutContext,
    Sampled,
    Source,
)
from core.parts.contracts import source
from core.parts.problems import Messages, Problem
from core.parts.settings import Range
from core.randomness import key

RIGHT: Final = (1.0,)


@dataclass
class OwnSolutions:
    """The solutions that the task gives with its training problems."""

    limit: int | None
    group_size: int = 1

    def start(self, recipe: Recipe) -> str:
        """How many there are; raises `GrpoLabError` where the task gives none."""
        refuse_behaviour_logps(recipe)
        _stored(recipe.task.problem("train", 0, 0))
        if self.limit is None:
            return "worked solutions: the task's own, a new one every time"
        passes = recipe.steps * recipe.prompts / self.limit
        return f"worked solutions: {self.limit} of the task's own, {passes:.3g} passes in {recipe.steps} steps"

    def sample(self, context: RolloutContext) -> Sampled:
        """The solutions of the problems that the policy itself would have been given, or of the first few of them."""
        if self.limit is None:
            problems = context.draw_problems()
        else:
            stream = key(context.seed, "prompts")
            chosen = row_indices(context, self.limit)
            problems = tuple(context.task.problem("train", stream, place) for place in chosen)
        return as_sampled(context, [_stored(problem) for problem in problems], RIGHT)


def _stored(problem: Problem) -> Stored:
    solution = problem.data.get("solution")
    if not isinstance(solution, str):
        raise GrpoLabError(
            f"worked_solutions: the task gives no solution with training problem {problem.index}: bind "
            "worked_solutions.path to a file of prompts and completions, or add a column 'solution' to the table"
        )
    return Stored(problem, (solution,), f"training problem {problem.index}")


def _solution(row: Row, place: str) -> tuple[str | Messages, str]:
    """A prompt and the solution to it; of a whole conversation, what the assistant says last."""
    if "messages" not in row or "completion" in row:
        prompt, completion = field_of(row, "prompt", place), field_of(row, "completion", place)
        return prompt_of(row, prompt, place), content_of(completion, "completion", place)
    messages = row["messages"]
    if fault := messages_fault(messages):
        raise GrpoLabError(f"{place}: field 'messages' is {messages!r:.60}, not a list of chat messages: {fault}")
    solution = content_of(messages[-1:], "messages", place)
    if len(messages) == 1:
        raise GrpoLabError(f"{place}: field 'messages' has no message before the assistant's, to which it replies")
    return prompt_of(row, messages[:-1], place), solution


@source(limits={"limit": Range(1)})
def worked_solutions(*, path: str = "", limit: int | None = None) -> Source:
    """One right response to each prompt, reward 1: a file's, or without `path` the task's own (`data["solution"]`).

    `path`: .jsonl, .parquet or `datasets:ID[,CONFIG][:SPLIT]` with the fields `prompt` and `completion` (text or chat
    messages), or `messages`, of which the last is the assistant's and alone is learnt, and perhaps `answer`, by which
    the task's verifier then judges. Every row is met once, in an order keyed by the run's seed, then all in another
    order. `limit`: the first so many only. The end-of-sequence token is added where there is none; a solution longer
    than `train.max_tokens` is an error and is not cut.
    """
    if not path:
        return OwnSolutions(limit)
    rows, first_place = list[Stored](), dict[bool, str]()
    for index, (place, row) in enumerate(read_rows(path)):
        prompt, solution = _solution(row, place)
        answer = answer_of(row, place)
        first_place.setdefault(answer is not None, place)
        # the number of the row, so that a prompt is the same one in every pass
        rows.append(Stored(Problem(prompt, answer or "", index, place=place), (solution,), place))
    if not rows:
        raise GrpoLabError(f"{path} has no rows")
    if len(first_place) > 1:
        raise GrpoLabError(
            f"{first_place[False]}: no field 'answer', but {first_place[True]} has one: give all or none"
        )
    return StoredFile(path, rows[:limit], RIGHT, is_verifiable=True in first_place)
