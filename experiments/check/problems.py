"""The task that is checked, made once for all checks, and the problems of it that are looked at."""

import json
from inspect import Parameter
from typing import Final, TypeAlias

from core import GrpoLabError, Part
from core.parts.problems import Problem, Task
from core.parts.registry import REQUIRED, config_text
from experiments.check.checks import Inapplicable

SEED: Final = 0
DRAWN: Final = 200
"""Problems of a split without an end that are looked at."""
MOST: Final = 2000
"""And of one that has an end."""


def made_anew(part: Part) -> Task:
    """The task, made anew; raises `Inapplicable` where something must be bound or installed first."""
    for name, setting in part.settings().items():
        if setting.value is REQUIRED or setting.value is Parameter.empty:
            raise Inapplicable(f"{part.name}.{name} is not set: bind it, with -b or in a file behind -c")
    try:
        made: Task = part()
    except GrpoLabError as error:
        if isinstance(error.__cause__, ImportError):
            raise Inapplicable(str(error)) from error
        raise
    return made


Key: TypeAlias = tuple[Part, str]
"""A task, and the config that it was made under."""
_MADE: Final[dict[Key, Task]] = {}
"""The last one."""


def task_of(part: Part) -> Task:
    """The task under the config in force, made once for all checks: it may read a large file."""
    key = (part, config_text())
    if key not in _MADE:
        made = made_anew(part)
        _MADE.clear()
        _MADE[key] = made
    return _MADE[key]


def splits_of(task: Task) -> tuple[str, ...]:
    """Those that every task has; `tune` is not asked of a task that no learning rates are tried on."""
    return ("train", *task.suites)


def problems_of(task: Task, split: str, drawn: int = DRAWN, most: int = MOST) -> list[Problem]:
    """The problems of a split to look at: the first so many, or at most so many where it has an end."""
    count = min(most, task.size(split)) if hasattr(task, "size") else drawn
    return [task.problem(split, SEED, index) for index in range(count)]


def place_of(split: str, problem: Problem) -> str:
    """The problem in words, with the place that it was read from."""
    return f"problem {problem.index} of {split}" + (f" ({problem.place})" if problem.place else "")


def text_of(prompt: object) -> str:
    """A prompt as one text, whatever the blanks in it."""
    return " ".join((prompt if isinstance(prompt, str) else json.dumps(prompt, default=str)).split())


def content_of(problem: Problem) -> tuple[object, ...]:
    """What a problem is, as plain data: objects in it, such as a verifier, are made anew with the task."""
    data = json.dumps(dict(problem.data), default=lambda value: type(value).__name__, skipkeys=True)
    return text_of(problem.prompt), problem.answer, problem.index, problem.family, data
