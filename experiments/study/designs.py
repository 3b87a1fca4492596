"""Designs of ablations, pure: from axes to points, and from points to the labels and bindings of arms.

A point is one value of every axis, written as its places: 0 is the axis's first value. The first point of a design is
its baseline.
"""

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Point: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """A parameter that an ablation varies: its short name, its gin name, and its values as gin text."""

    name: str
    parameter: str
    values: tuple[str, ...]

    def binding(self, place: int) -> str:
        """The gin line that gives the parameter this value."""
        return f"{self.parameter} = {self.values[place]}"


def grid(sizes: Sequence[int]) -> list[Point]:
    """Every combination, the last axis fastest: prod(sizes) points from (0, ..., 0) on."""
    return list(itertools.product(*map(range, sizes)))


def one_at_a_time(sizes: Sequence[int]) -> list[Point]:
    """All first values, then each other value of each axis alone: 1 + sum(size - 1) points."""
    base = (0,) * len(sizes)
    return [base, *(_with(base, axis, place) for axis, size in enumerate(sizes) for place in range(1, size))]


def leave_one_out(sizes: Sequence[int]) -> list[Point]:
    """Everything, then everything but one; of an axis's two values the second is the one without."""
    return one_at_a_time(sizes)


def cumulative(sizes: Sequence[int]) -> list[Point]:
    """Nothing, then one more in each point, in the order of the axes; the last has everything."""
    k = len(sizes)
    return [(0,) * done + (1,) * (k - done) for done in range(k + 1)]


def random_points(sizes: Sequence[int], number: int, seed: int) -> list[Point]:
    """(0, ..., 0) and `number` - 1 other distinct points of the grid, in the grid's order.

    Drawn uniformly, without forming the grid; ValueError when it has fewer points.
    """
    if number > math.prod(sizes):
        raise ValueError(f"random_points: {number} points of a grid of {math.prod(sizes)}")
    draw = random.Random(seed)
    points = {(0,) * len(sizes)}
    while len(points) < number:
        points.add(tuple(draw.randrange(size) for size in sizes))
    return sorted(points)


def _with(point: Point, axis: int, place: int) -> Point:
    return (*point[:axis], place, *point[axis + 1 :])


def _combination(axes: Sequence[Axis], point: Point) -> str:
    """`eps_high=0.28,filter=none`."""
    return ",".join(f"{axis.name}={short(axis.values[i])}" for axis, i in zip(axes, point, strict=True))


def _single_change(axes: Sequence[Axis], point: Point) -> str:
    """`base`, or the one value that differs from it."""
    return next((f"{a.name}={short(a.values[i])}" for a, i in zip(axes, point, strict=True) if i), "base")


def _without(axes: Sequence[Axis], point: Point) -> str:
    """`full`, or `no-` and what is left out."""
    return next((f"no-{axis.name}" for axis, i in zip(axes, point, strict=True) if i), "full")


def _added(axes: Sequence[Axis], point: Point) -> str:
    """`bare`, or `+` and what is added last."""
    added = [axis.name for axis, i in zip(axes, point, strict=True) if i == 0]
    return f"+{added[-1]}" if added else "bare"


@dataclass(frozen=True)
class Design:
    """How axes become points, how points are labelled, and whether every axis is a pair of with and without."""

    points: Callable[[Sequence[int]], list[Point]]
    label: Callable[[Sequence[Axis], Point], str]
    pairs: bool = False


DESIGNS: Final[Mapping[str, Design]] = {
    "grid": Design(grid, _combination),
    "one_at_a_time": Design(one_at_a_time, _single_change),
    "leave_one_out": Design(leave_one_out, _without, pairs=True),
    "cumulative": Design(cumulative, _added, pairs=True),
}
"""All designs but `random`, whose points are drawn from the grid and labelled like the grid's."""


def count(design: str, sizes: Sequence[int]) -> int:
    """How many arms a design makes of axes of these sizes (of `random`: could draw from), without making them."""
    if design in ("grid", "random"):
        return math.prod(sizes)
    return len(sizes) + 1 if DESIGNS[design].pairs else 1 + sum(size - 1 for size in sizes)


def bindings(axes: Sequence[Axis], point: Point) -> tuple[str, ...]:
    """Gin lines of the values that are not the first of their axis."""
    return tuple(axis.binding(i) for axis, i in zip(axes, point, strict=True) if i)


def short(text: str) -> str:
    """Gin text as a part of a folder's name: `none`, `nonuniform`, `3e-05`, `a+b` for a list; never empty."""
    if re.fullmatch(r"-?[\w.]+(-\d+)?", text):  # a number or a constant
        return "none" if text == "None" else text
    listed = re.sub(r"\s*,\s*", "+", text.strip("[]")) if text.startswith("[") else text
    plain = re.sub(r"[@%'\"(){}]", "", listed)
    return re.sub(r"[^\w.+=-]+", "-", plain).strip("+=-") or "none"
