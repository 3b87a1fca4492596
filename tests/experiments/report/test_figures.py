"""Figures: where things lie, and the mean with its band."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.arm_style import TONES, Style, arm_styles
from experiments.report.curves import mean_and_band
from experiments.report.differences import stacked
from experiments.report.drawing import Scale, band, line, mark, spanning, svg, thinned

STYLE = Style(1, "s", (0, (5, 1.5)))


def test_the_band_is_the_t_interval_of_the_mean() -> None:
    x = np.array([0.0, 1.0])
    runs = [(x, np.array([1.0, np.nan])), (x, np.array([2.0, 5.0])), (x, np.array([3.0, 7.0]))]
    grid, mean, half = mean_and_band(runs)
    np.testing.assert_array_equal(grid, x)
    np.testing.assert_allclose(mean, [2.0, 6.0])
    np.testing.assert_allclose(half, [4.302653 / np.sqrt(3), np.nan], rtol=1e-6)  # two runs are too few for a band


def test_runs_at_other_points_are_interpolated_never_extrapolated() -> None:
    runs = [(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0])), (np.array([1.0, 3.0]), np.array([3.0, 5.0]))]
    grid, mean, half = mean_and_band(runs)
    np.testing.assert_array_equal(grid, [1, 2, 3])
    np.testing.assert_allclose(mean, [2.0, 3.0, 4.0])
    assert np.isnan(half).all()
    assert [len(part) for part in mean_and_band([])] == [0, 0, 0]


def test_every_arm_has_a_style_of_its_own() -> None:
    arms = [f"arm{place}" for place in range(20)]
    styles = arm_styles(arms, "arm3")
    assert len(set(styles.values())) == len(arms)
    assert arm_styles(arms, "arm3") == styles
    assert styles["arm3"].colour == TONES[0][0]


@pytest.mark.parametrize(
    ("low", "high", "most", "whole", "ticks"),
    [
        (0.0, 10.0, 6, False, [0, 2, 4, 6, 8, 10]),
        (-0.012, 0.031, 6, False, [-0.01, 0.0, 0.01, 0.02, 0.03]),
        (0.0, 3.0, 6, True, [0, 1, 2, 3]),
        (31.0, 96.0, 6, False, [40, 60, 80]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, whole: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks(most, whole=whole) == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(4, 10))
def test_there_are_some_ticks_but_not_too_many(low: float, span: float, most: int) -> None:
    scale = Scale(low, low + span, 0, 1)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most
    assert all(-1e-6 <= scale(tick) <= 1 + 1e-6 for tick in ticks)


def test_a_scale_shows_all_its_values_and_a_single_one_in_the_middle() -> None:
    scale = spanning([3.0, float("nan"), 1.0], 100, 200)
    assert 100 < scale(1.0) < scale(3.0) < 200
    assert spanning([5.0], 0, 10)(5.0) == 5.0
    assert spanning([], 0, 10)(0.5) == pytest.approx(5.0)


def test_what_is_not_finite_is_not_drawn() -> None:
    nan = float("nan")
    assert line([(0, 0), (1, nan), (2, 2), (3, 3)], "run", STYLE) == '<path class="run t1" d="M0 0M2 2L3 3"/>'
    assert line([(0, nan)], "run") == ""
    assert band([0, 1, 2], [1, nan, 3], [2, 2, 4], STYLE) == '<path class="band t1" d="M0 2L2 4L2 3L0 1z"/>'
    assert band([0.0], [1.0], [2.0], STYLE) == ""


def test_drawings_are_escaped_and_tell_arms_apart_without_colour() -> None:
    drawing = svg(
        [line([(0, 0), (9, 9)], "mean", STYLE, dashed=True), mark(1, 2, STYLE, tooltip="a<b")], 10, 10, 'a "b"'
    )
    assert 'aria-label="a &quot;b&quot;"' in drawing
    assert "<title>a&lt;b</title>" in drawing
    assert 'stroke-dasharray="10 3"' in drawing
    shapes = {re.search(r' d="([^"]*)"', mark(0, 0, style))[1] for style in arm_styles("abcdefgh", "a").values()}  # type: ignore[index]
    assert len(shapes) == 8


def test_long_curves_keep_their_ends() -> None:
    x = np.arange(1000.0)
    points = thinned(x, x**2, 50)
    assert len(points) == 50
    assert (points[0], points[-1]) == ((0.0, 0.0), (999.0, 999.0**2))
    assert len(thinned(x[:3], x[:3], 50)) == 3


def test_circles_are_stacked_so_that_none_covers_another() -> None:
    assert stacked([0, 5, 20], 10, 2) == [0, 1, 0]
    assert stacked([0, 1, 2], 10, 2) is None
