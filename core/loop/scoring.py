"""Scoring: every response of a rollout through every reward function, and what happens when a grader fails."""

import inspect
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from core.errors import GrpoLabError, MachineError, cause_of, describe_error
from core.generation.steps import Failure
from core.parts.environments import Turn
from core.parts.options import RewardOptions
from core.parts.problems import Problem, Score, Task
from core.parts.registry import Part

Transcript: TypeAlias = tuple[Turn, ...]
WINDOW: Final = 20
MAX_FAILED: Final = 0.05
THREADS: Final = min(8, os.cpu_count() or 1)
"""For rewards that wait on other processes."""


class GraderError(Exception):
    """A reward function failed twice on one response; the message names the response, and the place in its code."""


class UnreachableError(GraderError):
    """It failed for the machine's reasons: the network, memory, a disk."""


@dataclass
class GraderLog:
    """Groups dropped because a grader failed, over the last steps; stops a run in which that becomes the rule."""

    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    first: str | None = None
    by_machine: bool = False
    """Whether the first failure was the machine's doing, not the reward function's."""

    def state_dict(self) -> dict[str, Any]:
        """What it has counted, as plain data."""
        return {**vars(self), "recent": [list(step) for step in self.recent]}

    def load_state_dict(self, state: object) -> None:
        """Go on from there; older checkpoints hold an object with the same attributes."""
        for name, value in (state if isinstance(state, Mapping) else vars(state)).items():
            setattr(self, name, value)
        self.recent = deque(((dropped, groups) for dropped, groups in self.recent), maxlen=WINDOW)

    def note(self, scores: "Scores") -> None:
        """Keep the first failure, for the message that a later one may end the run with."""
        if self.first is None and scores.failure is not None:
            self.first, self.by_machine = scores.failure, scores.by_machine

    def add(self, dropped: int, groups: int) -> None:
        """Count a step; raises when over 5 % of the groups of the last 20 steps were dropped.

        `MachineError` where the machine is to blame, else `GrpoLabError`: what a reward cannot grade is no method's.

        Before 20 steps the share is taken of 20 steps like this one, so that one early mishap does not end a run.
        """
        self.recent.append((dropped, groups))
        self._check()

    def add_to_step(self, dropped: int) -> None:
        """Count groups that the present step has dropped since `add`; raises like it."""
        before, groups = self.recent.pop()
        self.recent.append((before + dropped, groups))
        self._check()

    def _check(self) -> None:
        total = sum(d for d, _ in self.recent)
        of = sum(g for _, g in self.recent) * WINDOW / len(self.recent)
        if total > MAX_FAILED * of:
            raise (MachineError if self.by_machine else GrpoLabError)(
                f"a reward function failed on {total} groups within the last {len(self.recent)} steps, more than "
                f"{MAX_FAILED:.0%} of {WINDOW} steps' groups; the run stops. The first failure:\n{self.first}"
            )


def grade(part: Part, problem: Problem, response: str, transcript: Transcript = ()) -> Score:
    """The score of a response, or of an episode; an exception or a non-finite value is tried once more, then raises
    `GraderError`.
    """
    first: GraderError | None = None
    for _ in range(2):
        kind = GraderError
        try:
            said = (transcript or (Turn(response, "", 0.0, None),),) if part.takes("transcript") else ()
            score = Score.of(part(problem, response, *said))
            if math.isfinite(score.value):
                return score
            reason = f"reward '{part.name}' ({part.place}) returned {score.value} for the response {response!r}"
        except Exception as error:  # whatever a user's grader raises
            kind = _kind(error)
            reason = (
                f"reward '{part.name}' ({part.place}) raised on the response {response!r}:\n{describe_error(error)}"
            )
        first = first or kind(reason)
    assert first is not None
    raise first


def _kind(error: Exception) -> type[GraderError]:
    return UnreachableError if cause_of(error) == "infrastructure" else GraderError


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of P x G responses under K reward functions; the verdict is the first function's."""

    parts: Tensor
    """[P, G, K], float32, NaN in groups whose grader failed and where nothing was graded."""
    correct: Tensor
    """[P, G], bool."""
    lenient: Tensor
    """[P, G], bool."""
    causes: Counter[str]
    """Responses that scored 0 for a stated cause, by cause."""
    failed: tuple[int, ...]
    """Groups to be dropped whole."""
    failure: str | None
    """What the first grader failure was."""
    by_machine: bool = False
    """Whether that was the machine's doing."""

    def without(self, failures: Mapping[int, Failure]) -> "Scores":
        """With these groups, whose environment has failed, as those that no grader could grade."""
        if not failures:
            return self
        broken = list(failures)
        parts, correct, lenient = (x.clone() for x in (self.parts, self.correct, self.lenient))
        parts[broken], correct[broken], lenient[broken] = math.nan, False, False
        first = failures[min(failures)]
        return replace(
            self,
            parts=parts,
            correct=correct,
            lenient=lenient,
            failed=tuple(sorted({*self.failed, *failures})),
            failure=first.message if self.failure is None else self.failure,
            by_machine=first.by_machine if self.failure is None else self.by_machine,
        )

    @staticmethod
    def of_labels(labels: Tensor, rewards: int) -> "Scores":
        """Scores by labels [P, G] where `rewards` functions have nothing to judge by: correct from 1 up."""
        correct = labels >= 1
        parts = torch.full((*labels.shape, rewards), math.nan)
        return Scores(parts, correct, correct, Counter(), (), None)

    @staticmethod
    def concat(parts: "Sequence[Scores]") -> "Scores":
        """Scores of the groups of several, in order."""
        parts = [part for part in parts if len(part.parts)]
        before = [sum(len(part.parts) for part in parts[:i]) for i in range(len(parts))]
        return Scores(
            parts=torch.cat([part.parts for part in parts]),
            correct=torch.cat([part.correct for part in parts]),
            lenient=torch.cat([part.lenient for part in parts]),
            causes=sum((part.causes for part in parts), Counter()),
            failed=tuple(first + p for first, part in zip(before, parts, strict=True) for p in part.failed),
            failure=next((part.failure for part in parts if part.failure), None),
            by_machine=next((part.by_machine for part in parts if part.failure), False),
        )


def score(
    rewards: Sequence[Part],
    problems: Sequence[Problem],
    texts: Sequence[Sequence[str]],
    transcripts: Sequence[Sequence[Transcript]] | None = None,
) -> Scores:
    """Score `texts[p][g]`, the responses to `problems[p]`; of episodes the last one's, with the transcript of all."""
    rows = (
        [[(text, ()) for text in row] for row in texts]
        if transcripts is None
        else [list(zip(*each, strict=True)) for each in zip(texts, transcripts, strict=True)]
    )
    P, G = len(problems), len(texts[0]) if texts else 0
    parts = torch.full((P, G, len(rewards)), math.nan)
    correct, lenient = torch.zeros(P, G, dtype=torch.bool), torch.zeros(P, G, dtype=torch.bool)
    causes: Counter[str] = Counter()
    failed: list[int] = []
    failure: GraderError | None = None
    for p, graded in enumerate(_graded(rewards, problems, rows)):
        if isinstance(graded, GraderError):
            failed.append(p)
            failure = failure or graded
            continue
        parts[p] = torch.tensor([[s.value for s in row] for row in graded])
        correct[p] = torch.tensor([row[0].correct for row in graded])
        lenient[p] = torch.tensor([row[0].lenient or row[0].correct for row in graded])
        causes.update(s.cause for row in graded for s in row if s.cause)
    message = None if failure is None else str(failure)
    return Scores(parts, correct, lenient, causes, tuple(failed), message, isinstance(failure, UnreachableError))


def _graded(
    rewards: Sequence[Part], problems: Sequence[Problem], rows: Sequence[Sequence[tuple[str, Transcript]]]
) -> Iterator[list[list[Score]] | GraderError]:
    """Group by group, [G][K] scores or why there are none."""
    alone = [part for part in rewards if not RewardOptions.of(part).together]
    texts = [[text for text, _ in row] for row in rows]
    together = {
        part.name: _graded_together(part, problems, texts) for part in rewards if RewardOptions.of(part).together
    }
    for p, graded in enumerate(_graded_one_by_one(alone, problems, rows)):
        columns = [together[part.name][p] for part in rewards if RewardOptions.of(part).together]
        failure = next((column for column in [graded, *columns] if isinstance(column, GraderError)), None)
        if failure is not None or not columns:
            yield failure or graded
            continue
        by_name = {part.name: [row[k] for row in graded] for k, part in enumerate(alone)}  # type: ignore[union-attr]
        by_name |= {name: groups[p] for name, groups in together.items()}  # type: ignore[misc]
        yield [list(row) for row in zip(*(by_name[part.name] for part in rewards), strict=True)]


def _graded_together(
    part: Part, problems: Sequence[Problem], texts: Sequence[Sequence[str]]
) -> list[list[Score] | GraderError]:
    """Group by group, [G] scores of one reward that sees all of them at once, or why there are none."""
    if not problems:
        return []
    failure: GraderError | None = None
    for _ in range(2):
        try:
            rows = [[Score.of(value) for value in row] for row in part(problems, texts)]
        except GrpoLabError:  # about the reward itself, not about a response: nothing could be graded
            raise
        except Exception as error:  # whatever a user's grader raises
            failure = failure or _kind(error)(f"reward '{part.name}' ({part.place}) raised:\n{describe_error(error)}")
            continue
        if [len(row) for row in rows] != [len(row) for row in texts]:
            failure = GraderError(
                f"reward '{part.name}' ({part.place}) returned other than one score for each response"
            )
            break
        return [
            row
            if all(math.isfinite(score.value) for score in row)
            else GraderError(f"reward '{part.name}' ({part.place}) returned {[s.value for s in row]} for {list(text)}")
            for row, text in zip(rows, texts, strict=True)
        ]
    assert failure is not None
    return [failure] * len(problems)


def _graded_one_by_one(
    rewards: Sequence[Part], problems: Sequence[Problem], rows: Sequence[Sequence[tuple[str, Transcript]]]
) -> Iterator[list[list[Score]] | GraderError]:
    """Group by group, [G][K] scores or why there are none.

    Where a reward waits on other processes, several groups are graded at a time, and equal responses once.
    """

    def group(problem: Problem, responses: Iterable[tuple[str, Transcript]]) -> list[list[Score]] | GraderError:
        try:
            return [[grade(part, problem, *response) for part in rewards] for response in responses]
        except GraderError as error:
            return error

    def group_of_different(
        problem: Problem, responses: Sequence[tuple[str, Transcript]]
    ) -> list[list[Score]] | GraderError:
        different = list(dict.fromkeys(responses))
        graded = group(problem, different)
        if isinstance(graded, GraderError):
            return graded
        by_response = dict(zip(different, graded, strict=True))
        return [by_response[response] for response in responses]

    if not any(RewardOptions.of(part).parallel for part in rewards):
        yield from map(group, problems, rows)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(group_of_different, problems, rows)


def start(rewards: Sequence[Part], task: Task | None = None) -> dict[str, str]:
    """How each reward describes itself before a run, by name; raises `GrpoLabError` where one cannot work."""
    descriptions: dict[str, str] = {}
    for part in rewards:
        if ready := RewardOptions.of(part).start:
            takes_task = "task" in inspect.signature(ready).parameters
            descriptions[part.name] = ready(**part.set_values, **({"task": task} if takes_task else {}))
    return descriptions


def alarm(
    rewards: Tensor,
    truncated: Tensor,
    *,
    correct: Tensor,
    verdicts: Tensor,
    filtered: bool = False,
    in_turns: bool = False,
) -> str | None:
    """A warning where a rollout teaches or shows nothing.

    Every response [P, G] was cut off before it could answer; a filter left no group (`filtered`); or the values of the
    reward that gives the verdict (`verdicts`) differ, and none of them counts as `correct`.
    """
    if not rewards.numel():
        return None
    if bool(truncated.all()) and bool((rewards == rewards.flatten()[0]).all()):
        raised = "train.max_tokens"
        if in_turns:
            raised += " or train.max_turns, or see whether the environment is ever done"
        return f"every response was cut off and all rewards are equal: raise {raised}"
    defined = verdicts[~verdicts.isnan()]
    best = float(defined.max()) if defined.numel() else math.nan
    rule = f"(a reward that is a number counts as correct from 1 up; the highest here is {best:g})"
    if filtered:
        return f"the filter passed no group, so nothing is trained on {rule}"
    if defined.numel() and float(defined.min()) < best < 1 and not bool(correct.any()):
        return f"rewards differ and no response counts as correct, so accuracy is 0 {rule}"
    return None
