"""Designs: points by hand, their counts, and labels that are folders."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.study.designs import (
    DESIGNS,
    Axis,
    bindings,
    count,
    cumulative,
    grid,
    leave_one_out,
    one_at_a_time,
    random_points,
    short,
)

EPS = Axis("eps_high", "dapo.eps_high", ("0.28", "0.2"))
FILTER = Axis("filter", "dapo.filter", ("@nonuniform", "None"))
SIZES = st.lists(st.integers(2, 4), min_size=1, max_size=5)


def test_points_by_hand() -> None:
    assert grid([2, 3]) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert one_at_a_time([2, 3]) == [(0, 0), (1, 0), (0, 1), (0, 2)]
    assert leave_one_out([2, 2, 2]) == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert cumulative([2, 2, 2]) == [(1, 1, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0)]
    assert random_points([2, 2], 4, seed=0) == grid([2, 2])


@pytest.mark.parametrize(
    ("design", "arms"),
    [
        (
            "grid",
            {
                "eps_high=0.28,filter=nonuniform": (),
                "eps_high=0.28,filter=none": ("dapo.filter = None",),
                "eps_high=0.2,filter=nonuniform": ("dapo.eps_high = 0.2",),
                "eps_high=0.2,filter=none": ("dapo.eps_high = 0.2", "dapo.filter = None"),
            },
        ),
        (
            "one_at_a_time",
            {"base": (), "eps_high=0.2": ("dapo.eps_high = 0.2",), "filter=none": ("dapo.filter = None",)},
        ),
        ("leave_one_out", {"full": (), "no-eps_high": ("dapo.eps_high = 0.2",), "no-filter": ("dapo.filter = None",)}),
        (
            "cumulative",
            {
                "bare": ("dapo.eps_high = 0.2", "dapo.filter = None"),
                "+eps_high": ("dapo.filter = None",),
                "+filter": (),
            },
        ),
    ],
)
def test_labels_and_bindings_by_hand(design: str, arms: dict[str, tuple[str, ...]]) -> None:
    axes = [EPS, FILTER]
    points = DESIGNS[design].points([2, 2])
    assert {DESIGNS[design].label(axes, point): bindings(axes, point) for point in points} == arms


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0.28", "0.28"),
        ("-1", "-1"),
        ("3e-05", "3e-05"),
        ("None", "none"),
        ("True", "True"),
        ("@nonuniform", "nonuniform"),
        ("@chain_sums()", "chain_sums"),
        ("'cosine'", "cosine"),
        ("[]", "none"),
        ("[@soft_overlong]", "soft_overlong"),
        ("[@a, @b]", "a+b"),
        ("'/models/Qwen3-0.6B'", "models-Qwen3-0.6B"),
        ("(0.9, 0.95)", "0.9-0.95"),
        ("{'min_terms': 2}", "min_terms-2"),
        ("'a b'", "a-b"),
        ("'?'", "none"),
    ],
)
def test_values_as_folder_names(text: str, name: str) -> None:
    assert short(text) == name


@given(st.text(max_size=30))
def test_any_value_is_part_of_a_folder_name(text: str) -> None:
    assert re.fullmatch(r"[\w.+=-]+", short(text))


@given(SIZES)
def test_sizes_of_designs(sizes: list[int]) -> None:
    assert len(set(grid(sizes))) == len(grid(sizes)) == count("grid", sizes) == math.prod(sizes)
    alone = one_at_a_time(sizes)
    assert len(set(alone)) == len(alone) == count("one_at_a_time", sizes) == 1 + sum(sizes) - len(sizes)
    assert all(sum(place > 0 for place in point) == 1 for point in alone[1:])
    pairs = [2] * len(sizes)
    for design in ("leave_one_out", "cumulative"):
        assert len(DESIGNS[design].points(pairs)) == count(design, pairs) == len(sizes) + 1


@given(st.integers(1, 8))
def test_the_whole_recipe_is_the_last_of_one_design_and_the_first_of_another(axes: int) -> None:
    steps, left_out = cumulative([2] * axes), leave_one_out([2] * axes)
    assert steps[-1] == left_out[0] == (0,) * axes
    assert [sum(point) for point in steps] == list(range(axes, -1, -1))
    assert [sum(point) for point in left_out] == [0] + [1] * axes


@given(SIZES, st.integers(0, 3), st.data())
def test_random_points_are_distinct_reproducible_and_hold_the_base(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(1, math.prod(sizes)))
    points = random_points(sizes, number, seed)
    assert points == random_points(sizes, number, seed)
    assert len(set(points)) == number
    assert points == [point for point in grid(sizes) if point in points]
    assert points[0] == (0,) * len(sizes)


def test_another_seed_draws_other_points_and_no_grid_is_formed() -> None:
    sizes = [10] * 30
    assert random_points(sizes, 5, 0) != random_points(sizes, 5, 1)
    with pytest.raises(ValueError, match="5 points of a grid of 4"):
        random_points([2, 2], 5, 0)
