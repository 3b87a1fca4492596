"""Calls read from texts: each form by hand, and many mistakes, each with its reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.environments.episodes.calls import PROTOCOLS, Call, Unreadable, chat_calls, plain_calls

KNOWN = ("find", "count")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


def block(text: str) -> str:
    return f"<tool_call>{text}</tool_call>"


def test_chat_by_hand() -> None:
    text = f"I look.\n{block(chr(10) + json.dumps({'name': 'find', 'arguments': {'key': 'k'}}) + chr(10))} and "
    assert chat_calls(text + block('{"name": "count"}'), KNOWN) == [Call("find", named={"key": "k"}), Call("count")]
    assert chat_calls("It is k. </tool_call> find(k)", KNOWN) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "a call that is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("find", "a call that is no JSON: Expecting value"),
        ('{"name": "find"', "a call that is no JSON: Expecting ',' delimiter"),
        ("{'name': 'find'}", "a call that is no JSON: Expecting property name"),
        ('{"name": "find", "arguments": {"key": "k"}} {}', "a call that is no JSON: Extra data"),
        ('{"name": "find", "name": "count"}', "a call that is no JSON: a name twice"),
        ('{"name": "find", "arguments": {"key": "k", "key": "m"}}', "a call that is no JSON: a name twice"),
        ("[" * 100_000, "a call that is no JSON: too deep"),
        ('{"name": "find", "arguments": {"n": ' + "9" * 5000 + "}}", "a call that is no JSON: Exceeds the limit"),
        ("[]", 'a call must be {"name": a text, "arguments": {...}}'),
        ('"find"', "a call must be"),
        ('{"arguments": {}}', "a call must be"),
        ('{"name": 3, "arguments": {}}', "a call must be"),
        ('{"name": "find", "arguments": ["k"]}', "a call must be"),
        ('{"name": "find", "arguments": null}', "a call must be"),
        ('{"name": "find", "arguments": "{}"}', "a call must be"),
    ],
)
def test_mistakes_in_chat(said: str, reason: str) -> None:
    (found,) = chat_calls(block(said), KNOWN)
    assert isinstance(found, Unreadable)
    assert found.reason.startswith(reason)


def test_a_block_that_is_not_closed_is_a_failed_call() -> None:
    whole = block('{"name": "count"}')
    for text in ('<tool_call>{"name": "count"}', "<tool_call>", "<tool_call>{}</tool_call"):
        assert chat_calls(whole + text, KNOWN) == [Call("count"), Unreadable("a <tool_call> without its </tool_call>")]


def test_plain_by_hand() -> None:
    assert plain_calls('find("k")', KNOWN) == [Call("find", ("k",))]
    assert plain_calls("I look.\n  find(key='k', most = 3)  \nThen:\ncount()", KNOWN) == [
        Call("find", named={"key": "k", "most": 3}),
        Call("count"),
    ]
    assert plain_calls('find("a, b)", [1, 2.5, {"x": null}], true, key = -1e3)', KNOWN) == [
        Call("find", ("a, b)", [1, 2.5, {"x": None}], True), {"key": -1000.0})
    ]
    assert plain_calls(r"""find('it\'s', "say \"k\"", 'a\nb\\')""", KNOWN) == [
        Call("find", ("it's", 'say "k"', "a\nb\\"))
    ]
    assert plain_calls("fnid(1)", KNOWN) == [Call("fnid", (1,))]  # whether there is one the tools say


@pytest.mark.parametrize(
    "text",
    ["", "k", "It is f(x).", "sin(x) is it", "the call find(1)", "find", "find 'k'", "3(1)", "fnid('k'", "a.find(1)"],
)
def test_what_is_no_call_in_plain(text: str) -> None:
    assert plain_calls(text, KNOWN) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("find('k'", "a call of find that does not end with ')'"),
        ("find('k') or so", "a call of find that does not end with ')'"),
        ("find(k)", "the arguments of find: no JSON value at 'k'"),
        ("find(True)", "the arguments of find: no JSON value at 'True'"),
        ("find('k)", "the arguments of find: no JSON value at ''k'"),
        ("find(key=)", "the arguments of find: no JSON value at ''"),
        ("find('k' 'm')", "the arguments of find: ',' or ')' expected at ''m''"),
        ("find('k'))", "the arguments of find: ',' or ')' expected at ')'"),
        ("find('k',)", "the arguments of find: nothing after ','"),
        ("find(, 'k')", "the arguments of find: no JSON value at ', 'k''"),
        ("find(key='k', 3)", "the arguments of find: an argument without a name after one with a name"),
        ("find(key=1, key=2)", "the arguments of find: 'key' twice"),
        ("find({'a': 1})", "the arguments of find: no JSON value"),
        ('find({"a": 1, "a": 2})', "the arguments of find: a name twice"),
        ("find(" + "[" * 100_000 + ")", "the arguments of find: too deep"),
        ("find(" + "9" * 5000 + ")", "the arguments of find: Exceeds the limit"),
        ("find(1.2.3)", "the arguments of find: ',' or ')' expected at '.3'"),
        ("nobody(x)", "the arguments of nobody: no JSON value at 'x'"),
        ("find(__import__('os').system('ls'))", "the arguments of find: no JSON value at '__import__"),
    ],
)
def test_mistakes_in_plain(text: str, reason: str) -> None:
    (found,) = plain_calls(text, KNOWN)
    assert isinstance(found, Unreadable)
    assert found.reason.startswith(reason)


@given(NAMES, st.lists(VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_what_is_written_is_read(name: str, positional: list[object], named: dict[str, object]) -> None:
    written = json.dumps({"name": name, "arguments": named})
    assert chat_calls(f"x{block(written)}x", KNOWN) == [Call(name, named=named)]
    arguments = [*map(json.dumps, positional), *(f"{key}={json.dumps(value)}" for key, value in named.items())]
    assert plain_calls(f"{name}({', '.join(arguments)})", KNOWN) == [Call(name, tuple(positional), named)]


@given(st.text(alphabet="find(){}[]\"'=,:\\ \n<>/tool_call1.-"), st.sampled_from(list(PROTOCOLS)))
def test_no_text_stops_a_reader(text: str, protocol: str) -> None:
    for said in (text, f"find({text})", block(text)):
        assert all(isinstance(call, Call | Unreadable) for call in PROTOCOLS[protocol](said, KNOWN))  # type: ignore[index]
