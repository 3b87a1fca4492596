"""Numbers in words stay on their side of what decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.numbers import rounded

ALPHA = 0.05


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (rounded(0.0500004, 4, [ALPHA]), "0.0500004"),
        (rounded(0.04999996, 4, [ALPHA]), "0.04999996"),
        (rounded(0.05, 4, [ALPHA]), "0.05"),
        (rounded(0.01234567, 4, [ALPHA]), "0.01235"),
        (rounded(-0.0000012, 1, [0.0], kind="f"), "-0.000001"),
        (rounded(0.0, 1, [0.0], kind="f", sign="+"), "+0.0"),
        (rounded(0.01996, 3, [0.0, 0.02], sign="+"), "+0.01996"),  # three digits would put it at the margin
        (rounded(float("inf"), 3, [0.0]), "inf"),
    ],
)
def test_by_hand(text: str, right: str) -> None:
    assert text == right


@given(st.floats(-1, 1), st.lists(st.floats(-1, 1), max_size=3), st.integers(1, 5), st.sampled_from("gf"))
def test_what_is_read_lies_where_the_value_does(value: float, limits: list[float], digits: int, kind: str) -> None:
    shown = float(rounded(value, digits, limits, kind=kind))
    for limit in limits:
        assert (shown > limit) - (shown < limit) == (value > limit) - (value < limit) or abs(value) < 1e-14
    assert abs(shown - value) <= 0.5 * 10 ** -(digits - 1) * max(abs(value), 1.0)
