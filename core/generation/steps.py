"""Calls of environments: bounded in time, what they hand back checked, and their mistakes made into failures."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, SupportsFloat, TypeAlias

from core.errors import cause_of, describe_error
from core.parts.environments import Environment, Step
from core.parts.problems import Problem
from core.parts.registry import Part
from core.parts.settings import LARGEST_NUMBER

LONGEST: Final = 1_000_000
"""Characters of an observation from which it is taken for a mistake."""


@dataclass(frozen=True)
class Failure:
    """Why an episode could not go on: the environment's fault, not the policy's."""

    message: str
    by_machine: bool = False


Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a call returned, and what it raised."""


class _Caller:
    """A thread for calls that may hang; one that does is left behind, and does not keep the process from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Ended]]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="environment").start()

    def _run(self) -> None:
        while True:
            call, answer = self._calls.get()
            try:
                answer.put((call(), None))
            except BaseException as error:  # whatever a user's environment raises, SystemExit too
                answer.put((None, error))

    def call(self, function: Callable[[], Any], seconds: float) -> Ended:
        """Raises `queue.Empty` where it has not come to an end in time."""
        answer: SimpleQueue[Ended] = SimpleQueue()
        self._calls.put((function, answer))
        return answer.get(timeout=seconds)


_callers = threading.local()


def bounded(function: Callable[[], Any], seconds: float, where: str) -> Any:
    """What a call returns, or the `Failure` that it raised something or took too long."""
    caller: _Caller = getattr(_callers, "idle", None) or _Caller()
    _callers.idle = None
    try:
        result, error = caller.call(function, seconds)
    except Empty:
        return Failure(f"{where} did not answer within {seconds:g} seconds (train.step_seconds)")
    _callers.idle = caller
    if error is not None:
        return _raised(error, where)
    return result


def _raised(error: BaseException, where: str) -> Failure:
    try:
        return Failure(f"{where} raised:\n{describe_error(error)}", cause_of(error) == "infrastructure")
    except Exception:  # its own code, which may not let itself be shown
        return Failure(f"{where} raised:\n{type(error).__name__}")


def begin(part: Part, problem: Problem, seed: int, seconds: float) -> tuple[str | Failure, Environment | None]:
    """What a new environment says first, and the environment."""
    where = f"environment '{part.name}' ({part.place}), beginning with the prompt {problem.prompt!r:.200},"
    made: list[Any] = []

    def opened() -> Any:
        made.append(part())
        return made[0].reset(problem, seed)

    text = bounded(opened, seconds, where)
    if text is None or isinstance(text, str):
        return _whole(text or "", where), made[0]
    if not isinstance(text, Failure):
        text = Failure(f"{where} returned {_words(text)}: reset must return a text, or None")
    return text, None


def take_step(part: Part, environment: Environment, action: str, turn: int, seconds: float) -> Step | Failure:
    """What an environment answers to an action."""
    where = f"environment '{part.name}' ({part.place}) at turn {turn}, on the action {action!r:.200},"
    step: Any = bounded(lambda: environment.step(action), seconds, where)
    if isinstance(step, Failure):
        return step
    if not isinstance(step, Step):
        return Failure(
            f"{where} returned {_words(step)}: step must return a Step(observation, reward, done, anchor, call)"
        )
    return _checked(step, where)


def _checked(step: Any, where: str) -> Step | Failure:
    """The step with its reward as a float; what a user's environment puts into it may be anything."""
    reward = _number(step.reward)
    if reward is None:
        return Failure(f"{where} gave the reward {_words(step.reward)}: it must be a finite number")
    if not isinstance(step.observation, str):
        return Failure(f"{where} gave the observation {_words(step.observation)}: it must be a text")
    if not isinstance(step.done, bool) or not (step.call is None or isinstance(step.call, bool)):
        given = f"done = {_words(step.done)} and call = {_words(step.call)}"
        return Failure(f"{where} gave {given}: both must be True or False, and call may be None")
    if not _is_named(step.anchor):
        return Failure(
            f"{where} gave the anchor {_words(step.anchor)}: a state is named by text, numbers, or tuples of these"
        )
    observation = _whole(step.observation, where)
    if isinstance(observation, Failure):
        return observation
    return Step(observation, reward, step.done, step.anchor, step.call)


def _number(value: object) -> float | None:
    """A reward as a float; None where it is no number that is finite in float32."""
    if not isinstance(value, SupportsFloat) or isinstance(value, str):
        return None
    try:
        number = float(value)
    except Exception:  # an array of several, or a whole number beyond all floats
        return None
    return number if abs(number) <= LARGEST_NUMBER else None


def _words(value: object) -> str:
    """What a user's object is, in a few words, though it may not let itself be shown."""
    try:
        return f"{value!r:.80}"
    except Exception:  # its own code
        return f"an object of the class {type(value).__name__}"


def _whole(text: str, where: str) -> str | Failure:
    if len(text) > LONGEST:
        return Failure(f"{where} gave an observation of {len(text):,} characters: at most {LONGEST:,} are taken")
    # half a pair of surrogates has no encoding; what is left is a text, whatever class it was of
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_named(anchor: object) -> bool:
    if isinstance(anchor, tuple):
        return all(map(_is_named, anchor))
    return anchor is None or isinstance(anchor, str | int | float)


def anchor_number(*state: Any) -> int:
    """A number above 0 for a state, the same in every process."""
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) or 1
