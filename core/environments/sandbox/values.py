"""Plain values across the border: what goes in as literals, what comes back as tagged JSON, and when both are equal.

What comes back was written by untrusted code. It is compared along the expected value's structure and size, so that
neither its depth nor its size nor its hashes cost more than the expected value allows.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

_TAGS: Final[Mapping[type, str]] = {list: "l", tuple: "t", set: "S", frozenset: "S", dict: "d"}
_SCALARS: Final = (bool, int, float, complex, str, bytes)


def is_plain(value: object) -> bool:
    """Whether a value is None, a number, a string, or a list, tuple, set or dict of such, and no subclass of one."""
    if value is None or type(value) in _SCALARS:
        return True
    if isinstance(value, list | tuple | set | frozenset) and type(value) in (list, tuple, set, frozenset):
        return all(map(is_plain, value))
    return type(value) is dict and all(is_plain(k) and is_plain(v) for k, v in value.items())


def decode(reply: Any) -> Any:
    """A reply as the value it stands for; raises ValueError, or what a forged one happens to cause."""
    if reply is None or isinstance(reply, bool | str):
        return reply
    tag, *parts = reply
    match tag:
        case "i":
            return int(parts[0], 16)
        case "f":
            return float(parts[0])
        case "c":
            return complex(float(parts[0]), float(parts[1]))
        case "b":
            return bytes.fromhex(parts[0])
        case "l":
            return [decode(part) for part in parts]
        case "t":
            return tuple(decode(part) for part in parts)
        case "S":
            return frozenset(decode(part) for part in parts)  # which equals a set, and may lie in one
        case "d":
            return {decode(key): decode(value) for key, value in parts}
    raise ValueError("no such tag")


def matches(expected: Any, reply: Any, tolerance: float) -> bool:
    """Whether a reply stands for a value equal to the expected one, as == has it.

    An expected float may be missed by `tolerance`, relative or absolute; not-a-number equals itself.
    """
    if expected is None or isinstance(expected, bool | str):
        return bool(reply == expected) or (isinstance(expected, bool) and _number(expected, reply, 0.0))
    if isinstance(expected, int | float | complex):
        return _number(expected, reply, tolerance)
    if not isinstance(reply, list) or not reply:
        return False
    tag, *parts = reply
    if isinstance(expected, bytes):
        return bool(tag == "b" and decode(reply) == expected)
    if tag != _TAGS.get(type(expected)) or len(parts) != len(expected):
        return False
    if isinstance(expected, list | tuple):
        return all(matches(e, part, tolerance) for e, part in zip(expected, parts, strict=True))
    if isinstance(expected, dict):
        # a key is hashed only if it is no larger than the expected ones: thousands of numbers may share a hash
        if sum(_size_of_reply(key) for key, _ in parts) != sum(map(_size, expected)):
            return False
        decoded = {decode(key): value for key, value in parts}
        return len(decoded) == len(expected) and all(
            key in decoded and matches(value, decoded[key], tolerance) for key, value in expected.items()
        )
    if sum(map(_size_of_reply, parts)) != sum(map(_size, expected)):
        return False
    return bool({decode(part) for part in parts} == expected)


def _size(value: Any) -> int:
    """Scalars and containers in a value that can be hashed."""
    return 1 + (sum(map(_size, value)) if isinstance(value, tuple | frozenset) else 0)


def _size_of_reply(reply: Any) -> int:
    """The same of a reply; raises ValueError for one that stands for nothing that can be hashed."""
    if reply is None or isinstance(reply, bool | str) or reply[0] in ("i", "f", "c", "b"):
        return 1
    if reply[0] not in ("t", "S"):
        raise ValueError("no key")
    return 1 + sum(map(_size_of_reply, reply[1:]))


def _number(expected: bool | int | float | complex, reply: Any, tolerance: float) -> bool:
    if isinstance(reply, list) and (not reply or reply[0] not in ("i", "f", "c")):
        return False
    value = decode(reply)
    if not isinstance(value, bool | int | float | complex):
        return False
    if expected == value:
        return True
    if not isinstance(expected, float) or isinstance(value, complex):
        return False
    if math.isnan(expected):
        return isinstance(value, float) and math.isnan(value)
    try:
        return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond all floats
        return False
