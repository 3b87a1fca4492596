"""Plain values across the border: nothing is lost, and equality is Python's own."""

import contextlib
import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.environments.sandbox.harness import encode
from core.environments.sandbox.values import decode, is_plain, matches

HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
PLAIN = st.recursive(
    HASHABLE | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3) | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=10,
)
SMALL = st.recursive(
    st.sampled_from([0, 1, True, False, 0.0, 1.0, -0.0, None, "", "1", b"1", 1j, 1 + 0j]),
    lambda inner: st.lists(inner, max_size=2) | st.lists(inner, max_size=2).map(tuple),
    max_leaves=4,
)


def sent(value: Any) -> Any:
    return json.loads(encode(value))


@given(PLAIN)
def test_every_plain_value_comes_back(value: Any) -> None:
    assert is_plain(value)
    assert decode(sent(value)) == value
    assert matches(value, sent(value), 0.0)


@given(SMALL, SMALL)
def test_equality_is_pythons(expected: Any, value: Any) -> None:
    assert matches(expected, sent(value), 0.0) == (expected == value)


@given(PLAIN, PLAIN)
def test_unequal_values_do_not_match(expected: Any, value: Any) -> None:
    assert matches(expected, sent(value), 0.0) == (expected == value)


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "5"

    __str__ = __repr__
    __hash__ = int.__hash__


class Number(IntEnum):
    FIVE = 5


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (5, Liar(0), False),
        (5, Liar(5), True),
        (5, Number.FIVE, True),
        ({"a": 1}, Counter("a"), True),
        ({"a": 1}, OrderedDict(a=1), True),
        ({"a": []}, defaultdict(list, a=[]), True),
        ((1, 2), Pair(1, 2), True),
        ([1, 2], (1, 2), False),
        ({1}, frozenset({1}), True),
        ({frozenset({1})}, {frozenset({1})}, True),
        ({frozenset(): 1}, {frozenset(): 1}, True),
        (1, True, True),
        (True, 1.0, True),
        (True, 2, False),
        ("1", 1, False),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        (3, 3.0000000001, False),
        (3.0, 3, True),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (1.0, 1 << 5000, False),
        (1 << 5000, 1 << 5000, True),
        ("\ud800\0", "\ud800\0", True),
    ],
)
def test_pairs_by_hand(expected: Any, value: Any, equal: bool) -> None:
    assert matches(expected, sent(value), 1e-9) is equal


@pytest.mark.parametrize("value", [object(), len, range(3), iter([]), bytearray(b"x"), [object()], {1: {2: object}}])
def test_what_is_not_plain_is_not_sent(value: object) -> None:
    assert not is_plain(value)
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize(
    "forged",
    [["i"], ["i", 5], ["i", "x"], ["f", []], [], [[]], {"a": 1}, 5, ["d", 1, 2], ["S", ["l"], ["l"]], ["x", 1]],
)
@pytest.mark.parametrize("expected", [5, 5.0, True, "a", None, [1], {1, 2}, {1: 2, 2: 3}, b"x", (1, 2)])
def test_forged_replies_match_nothing(forged: Any, expected: Any) -> None:
    # what a case turns into a cause
    with contextlib.suppress(ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        assert not matches(expected, forged, 1e-9)


def test_hostile_hashes_are_not_gathered() -> None:
    """A set is built no larger than the expected one: its items all fall on one hash."""
    forged = ["S", *(["i", f"{n * ((1 << 61) - 1):x}"] for n in range(1 << 15))]
    assert not matches({1, 2}, forged, 0.0)
    assert not matches({1: 2}, ["d", *([part, None] for part in forged[1:])], 0.0)


def test_a_set_is_not_hashed_before_it_has_the_expected_size() -> None:
    """Multiples of 2^61 - 1 all have the hash 0: to build a frozenset of those that fit into a reply takes minutes."""
    many = ["S", *(["i", format(i * ((1 << 61) - 1), "x")] for i in range(1, 160_000))]
    assert not matches({1}, ["S", many], 0.0)
    assert not matches({(1, 2)}, ["S", ["t", ["i", "1"], many]], 0.0)
    assert not matches({1: 2}, ["d", [many, ["i", "2"]]], 0.0)
    for hidden in (["l", many], ["d", ["i", many]]):  # where they are no key either
        with pytest.raises(ValueError, match="no key"):
            matches({(1,)}, ["S", hidden], 0.0)
    assert matches({frozenset({1, (2, 3)})}, ["S", ["S", ["t", ["i", "2"], ["i", "3"]], ["i", "1"]]], 0.0)
