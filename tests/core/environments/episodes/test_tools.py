"""Tools as an environment: what is observed of calls, right and wrong, and which functions may be tools."""

import gc
import json
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import GrpoLabError
from core.environments.episodes.tools import ToolEpisode, Tools
from core.parts.environments import Step
from core.parts.problems import Problem

PROBLEM = Problem("Where is k?", "m", 0, {"notes": {"k": "m"}})


def find(key: str, most: int = 1, order: Literal["up", "down"] = "up") -> str:
    """What the notes have under a key.

    Nothing more.
    """
    return f"{key}:{most}:{order}"


def scale(values: list[float], by: float | None = None) -> list[float]:
    """Numbers, multiplied."""
    return [value * (2 if by is None else by) for value in values]


def fail() -> None:
    """It always fails."""
    raise KeyError("k")


def give_up() -> None:
    """What cannot be mended by the policy."""
    raise GrpoLabError("no notes on this machine")


def episode(
    protocol: Any = "chat", tools: Iterable[Callable[..., object]] = (find, scale, fail, give_up)
) -> ToolEpisode:
    made = ToolEpisode(lambda *_: tools, protocol)
    assert made.reset(PROBLEM, 0) is None  # type: ignore[func-returns-value]
    return made


def call(name: object, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_by_hand() -> None:
    made = episode()
    assert made.step(f"I look. {call('find', key='k')}") == Step("k:1:up", call=True)
    assert made.step(call("find", key="k", most=2) + call("scale", values=[1, 2.5])) == Step(
        "k:2:up\n[2, 5.0]", call=True
    )
    assert made.step("It is m.") == Step(done=True)
    plain = episode("plain")
    assert plain.step("I look.\nfind('k', order='down')") == Step("\nk:1:down\n", call=True)
    assert plain.step("It is find('k').") == Step(done=True)


def test_one_failed_call_of_several_is_a_failed_turn() -> None:
    step = episode().step(call("find", key="k") + call("find"))
    assert step == Step("k:1:up\nerror: find: missing a required argument: 'key'", call=False)


@pytest.mark.parametrize(
    ("said", "observed"),
    [
        (call("fnid", key="k"), "error: no tool 'fnid': did you mean find or fail? known: fail, find, give_up, scale"),
        (call(""), "error: no tool '': known: fail, find, give_up, scale"),
        (call("__class__"), "error: no tool '__class__'"),
        (call("find"), "error: find: missing a required argument: 'key'"),
        (call("find", key="k", kye="m"), "error: find: got an unexpected keyword argument 'kye'"),
        (call("find", key=3), "error: find: key = 3: must be text in quotes"),
        (call("find", key=None), "error: find: key = None: must be text in quotes"),
        (call("find", key="k", most="2"), "error: find: most = '2': must be a whole number"),
        (call("find", key="k", most=2.0), "error: find: most = 2.0: must be a whole number"),
        (call("find", key="k", most=True), "error: find: most = True: must be a whole number"),
        (call("find", key="k", order="left"), "error: find: order = 'left': must be 'up' or 'down'"),
        (call("scale", values=3), "error: scale: values = 3: must be a list of numbers"),
        (call("scale", values=[1, "2"]), "error: scale: values = [1, '2']: must be a list of numbers"),
        (call("scale", values=[1], by="2"), "error: scale: by = '2': must be a number or None"),
        (call("scale", values=[float("nan")]), "error: scale: values = [nan]: must be a list of numbers"),
        (call("fail"), "error: KeyError: 'k'"),
        (call("fail", x=1), "error: fail: got an unexpected keyword argument 'x'"),
        ("<tool_call>find(k)</tool_call>", "error: a call that is no JSON: Expecting value"),
        ("<tool_call>", "error: a <tool_call> without its </tool_call>"),
    ],
)
def test_mistakes_are_observed(said: str, observed: str) -> None:
    made = episode()
    step = made.step(said)
    assert step.observation.startswith(observed)
    assert (step.call, step.done, step.reward) == (False, False, 0.0)
    assert made.step(call("find", key="k")) == Step("k:1:up", call=True)


@pytest.mark.parametrize(
    ("said", "observed"),
    [
        ("find()", "error: find: missing a required argument: 'key'"),
        ("find('k', 1, 'up', 4)", "error: find: too many positional arguments"),
        ("find('k', key='m')", "error: find: multiple values for argument 'key'"),
        ("find(k)", "error: the arguments of find: no JSON value at 'k'"),
        ("find('k'", "error: a call of find that does not end with ')'"),
        ("look('k')", "error: no tool 'look': known: fail, find, give_up, scale"),
    ],
)
def test_mistakes_in_plain_are_observed(said: str, observed: str) -> None:
    assert episode("plain").step(said) == Step(f"\n{observed}\n", call=False)


def test_a_tool_that_leaves_and_one_that_says_too_much_are_observed() -> None:
    def leave() -> None:
        """As code of the policy's may."""
        raise SystemExit(3)

    def print_all() -> str:
        """Far too much."""
        return "m" * 2_000_000

    made = episode(tools=[leave, print_all])
    assert made.step(call("leave")) == Step("error: SystemExit: 3", call=False)
    assert made.step(call("print_all")) == Step("error: 2,000,000 characters: at most 999,998 are read", call=False)


def test_what_a_policy_cannot_mend_stops_the_run() -> None:
    with pytest.raises(GrpoLabError, match="no notes on this machine"):
        episode().step(call("give_up"))


def undocumented(key: str) -> None: ...


def untyped(key) -> None:  # type: ignore[no-untyped-def]
    """Of anything."""


def any_number(*keys: str) -> None:
    """Of several."""


def any_names(**keys: str) -> None:
    """Of several."""


async def later(key: str) -> None:
    """In a while."""


def unreadable(key: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821
    """Of a type that is nowhere."""


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (undocumented, r"test_tools.py:\d+: tool 'undocumented' needs a docstring"),
        (untyped, "tool 'untyped': the argument 'key' needs an annotation"),
        (any_number, r"tool 'any_number' may not take \*keys: str: name each argument"),
        (any_names, r"tool 'any_names' may not take \*\*keys: str"),
        (later, "tool 'later' is async"),
        (unreadable, "tool 'unreadable' has annotations that cannot be read: name 'Nowhere' is not defined"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(tool: Callable[..., object], says: str) -> None:
    with pytest.raises(GrpoLabError, match=says):
        episode(tools=[find, tool])


def test_two_tools_of_one_name_and_unknown_protocols_are_refused() -> None:
    with pytest.raises(GrpoLabError, match="two tools are named 'find'"):
        episode(tools=[find, find])
    with pytest.raises(GrpoLabError, match="protocol = 'xml': must be one of chat, plain"):
        episode("xml")


def test_tools_are_described_by_signature_and_first_line() -> None:
    lines = Tools([find, fail]).describe().splitlines()
    assert lines == [
        "find(key: str, most: int = 1, order: Literal['up', 'down'] = 'up') -> str: What the notes have under a key.",
        "fail() -> None: It always fails.",
    ]


def test_each_episode_has_tools_of_its_own_and_keeps_none() -> None:
    """Made of the problem and the seed; what is over is freed."""

    class Notes:
        def __init__(self, notes: dict[str, str], seed: int) -> None:
            self.notes, self.seed = notes, seed

        def find(self, key: str) -> str:
            """What the notes have."""
            return f"{self.notes[key]}{self.seed}"

    kept: list[weakref.ref[Notes]] = []

    def make(problem: Problem, seed: int) -> list[Callable[..., object]]:
        notes = Notes(problem.data["notes"], seed)
        kept.append(weakref.ref(notes))
        return [notes.find]

    made = ToolEpisode(make)
    for seed in (3, 4):
        made.reset(PROBLEM, seed)
        assert made.step(call("find", key="k")).observation == f"m{seed}"
    gc.collect()
    assert [ref() is None for ref in kept] == [True, False]


@given(st.text() | st.text(alphabet="find(key='\")<>{}:tool_cal/[1,") | st.text().map(lambda t: call("find", key=t)))
def test_every_text_ends_the_episode_or_is_answered(text: str) -> None:
    for protocol in ("chat", "plain"):
        step = episode(protocol).step(text)
        assert step.done == (step.call is None)
        assert step.done or step.observation
        assert step.call is not False or "error: " in step.observation
