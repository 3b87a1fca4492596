"""An environment of tools: functions that a policy calls by name.

    def find(key: str) -> str:
        '''What is known of a key.'''
        return NOTES[key]

    @environment
    def notes() -> ToolEpisode:
        '''A notebook to look things up in.'''
        return ToolEpisode(lambda problem, seed: [find])

A text without a call ends the episode. What a tool returns is observed; a name that is none, arguments that do not fit,
a call that cannot be read and a tool that raises are observed as errors. Nobody tells the policy of its tools but the
task's prompt: `Tools.describe` writes a line for each.
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from core.environments.episodes.calls import PROTOCOLS, Call, Protocol, Unreadable
from core.errors import GrpoLabError, similar
from core.generation.steps import LONGEST
from core.parts.environments import Step
from core.parts.problems import Problem
from core.parts.settings import Form, fault, form_of, shown

Tool: TypeAlias = Callable[..., object]
ERROR: Final = "error: "
MOST: Final = LONGEST - 2
"""Characters of all answers to a text, with the ends of lines around them an observation."""


class Tools:
    """Tools by name, with what each argument must be.

    Raises `GrpoLabError` for a tool without a docstring, with an argument that has no annotation or stands for several
    (`*args`), for an async one, and for two of one name.
    """

    def __init__(self, functions: Iterable[Tool]) -> None:
        self.functions: dict[str, Tool] = {}
        self._forms: dict[str, dict[str, Form]] = {}
        for function in functions:
            name = getattr(function, "__name__", type(function).__name__)
            if name in self.functions:
                raise GrpoLabError(f"two tools are named '{name}': rename one")
            self.functions[name], self._forms[name] = function, _forms(name, function)

    @property
    def _names(self) -> str:
        return ", ".join(sorted(self.functions)) or "none"

    def describe(self) -> str:
        """A line for every tool: its signature and the first line of its docstring."""
        return "\n".join(
            f"{name}{inspect.signature(function)}: {(inspect.getdoc(function) or '').splitlines()[0]}"
            for name, function in self.functions.items()
        )

    def answer(self, call: Call | Unreadable) -> tuple[str, bool]:
        """What is observed of a call, and whether it worked; only a tool's `GrpoLabError` is raised."""
        try:
            return str(self._result(call)), True
        except GrpoLabError:
            raise
        except _FailedCallError as error:
            return f"{ERROR}{error}", False
        except (Exception, SystemExit) as error:  # whatever a tool raises is the policy's to read
            return f"{ERROR}{type(error).__name__}: {error}", False

    def _result(self, call: Call | Unreadable) -> object:
        if isinstance(call, Unreadable):
            raise _FailedCallError(call.reason)
        function = self.functions.get(call.name)
        if function is None:
            raise _FailedCallError(f"no tool '{call.name}': {similar(call.name, self.functions)}known: {self._names}")
        try:
            given = inspect.signature(function).bind(*call.positional, **call.named)
        except TypeError as error:
            raise _FailedCallError(f"{call.name}: {error}") from error
        for name, value in given.arguments.items():
            if must := fault(value, self._forms[call.name][name]):
                raise _FailedCallError(f"{call.name}: {name} = {shown(value)}: must be {must}")
        return function(*given.args, **given.kwargs)


class _FailedCallError(Exception):
    """A call that reaches no tool."""


def _forms(name: str, function: Tool) -> dict[str, Form]:
    """What each argument of a tool must be."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}: tool '{name}'" if code else f"tool '{name}'"
    if inspect.iscoroutinefunction(function):
        raise GrpoLabError(f"{where} is async: write it as a plain function")
    if not (inspect.getdoc(function) or "").strip():
        raise GrpoLabError(f"{where} needs a docstring: one sentence is enough")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # whatever evaluating an annotation raises
        raise GrpoLabError(f"{where} has annotations that cannot be read: {error}") from error
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise GrpoLabError(f"{where} may not take {parameter}: name each argument")
        if parameter.name not in hints:
            raise GrpoLabError(f"{where}: the argument '{parameter.name}' needs an annotation, such as str")
    return {parameter: form_of(hints[parameter]) for parameter in parameters}


class ToolEpisode:
    """One episode with tools of its own, made of problem and seed by `make`."""

    role: Final = "tool"

    def __init__(self, make: Callable[[Problem, int], Iterable[Tool]], protocol: Protocol = "chat") -> None:
        if protocol not in PROTOCOLS:
            raise GrpoLabError(f"protocol = {protocol!r}: must be one of {', '.join(PROTOCOLS)}")
        self.make, self.protocol = make, protocol

    def reset(self, problem: Problem, seed: int) -> None:
        """Make the tools; nothing is read after the prompt."""
        self.tools = Tools(self.make(problem, seed))

    def step(self, action: str) -> Step:
        """Every call of the text in order, their answers on lines of their own; without a call the episode is over.

        The turn counts as a failed call if one of its calls failed.
        """
        calls: Sequence[Any] = PROTOCOLS[self.protocol](action, self.tools.functions)
        if not calls:
            return Step(done=True)
        answers = [self.tools.answer(call) for call in calls]
        observation = "\n".join(text for text, _ in answers)
        if len(observation) > MOST:  # of the environment it would be a mistake, and drop the group
            answers = [(f"{ERROR}{len(observation):,} characters: at most {MOST:,} are read", False)]
            observation = answers[0][0]
        framed = observation if self.protocol == "chat" else f"\n{observation}\n"
        return Step(framed, call=all(worked for _, worked in answers))
