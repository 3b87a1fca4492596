"""Numbers, intervals and units as readers see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.formatting import PLAIN, Unit, interval_text, number_text, p_text, thousands, unit

SHARE = unit("test/accuracy")


@pytest.mark.parametrize(
    ("got", "text"),
    [
        (number_text(-0.01, 1, signed=True), "0.0"),
        (number_text(-1.25, 1, signed=True), "−1.2"),
        (number_text(None, 2), "–"),
        (number_text(float("inf"), 2), "∞"),
        (p_text(0.0), "< 0.0001"),
        (p_text(0.01189), "0.0119"),
        (p_text(0.3516), "0.35"),
        (p_text(None), "–"),
        (thousands(999), "999"),
        (thousands(50_433), "50.4 k"),
        (thousands(1_204_000), "1.20 M"),
        (SHARE.difference, "points"),
        (unit("test/length").difference, ""),
    ],
)
def test_numbers_are_written_for_readers(got: str, text: str) -> None:
    assert got == text


@pytest.mark.parametrize(
    ("interval", "margin", "text"),
    [
        ((0.0203, 0.041), 0.02, "+2.03 to +4.10"),  # one decimal would put the lower end at the margin
        ((-0.041, -0.0203), 0.02, "−4.10 to −2.03"),
        ((-0.01, 0.09), 0.02, "−1.0 to +9.0"),
        ((-0.0004, 0.09), 0.02, "−0.04 to +9.00"),  # below 0, not at it
        ((0.0203, float("inf")), 0.02, "+2.03 to ∞"),
        (None, 0.02, "–"),
    ],
)
def test_both_ends_of_an_interval_have_the_same_decimals(
    interval: tuple[float, float] | None, margin: float, text: str
) -> None:
    assert interval_text(interval, SHARE, margin) == text


@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 100).map(lambda k: k / 1000), st.sampled_from([SHARE, PLAIN]))
def test_ends_keep_to_their_side_of_what_decides(one: float, other: float, margin: float, of: Unit) -> None:
    interval = min(one, other), max(one, other)
    ends = [each.replace("−", "-") for each in interval_text(interval, of, margin).split(" to ")]
    assert len({len(end.partition(".")[2]) for end in ends}) == 1
    for end, value in zip(ends, interval, strict=True):
        for limit in (-margin * of.scale, 0.0, margin * of.scale):
            shown, true = float(end), value * of.scale
            assert (shown > limit) - (shown < limit) == (true > limit) - (true < limit) or abs(true - limit) < 1e-14
