"""How time grows: lines and powers by hand, and responses whose length is known."""

from pathlib import Path

import pytest
import torch

from core.generation.base import Request
from core.model.policy import PolicySettings, load_policy
from experiments.cli.main import main
from experiments.maintenance.benchmarks.growth import BASE, SHORT, Growth, Unending, clock, draw, rows
from experiments.maintenance.benchmarks.whole_runs import ARMS, compare_command


def test_a_line_is_one_whatever_does_not_grow() -> None:
    growth = Growth((1, 2, 4, 8), (5.0, 7.0, 11.0, 19.0))  # 3 + 2 n
    assert growth.fitted() == pytest.approx([5, 7, 11, 19])
    assert growth.deviation == pytest.approx(0, abs=1e-9)
    assert growth.exponent == pytest.approx(1, abs=0.01)


def test_a_square_is_no_line() -> None:
    """The nearest line to 1 and 4 at 1 and 2, with nothing fixed below 0, is b n: 2 (b - 1) + 2 (2 b / 4 - 1) = 0."""
    assert Growth((1, 2), (1.0, 4.0)).fitted() == pytest.approx([1.2, 2.4])
    growth = Growth((1, 2, 3, 4), (1.0, 4.0, 9.0, 16.0))
    assert growth.deviation > 0.3
    assert growth.exponent == pytest.approx(2, abs=0.01)


def test_the_table_says_how_far_it_is_from_a_line() -> None:
    table = list(rows({"steps": Growth((1, 2), (1.0, 4.0))}))
    assert table[-1].startswith("| steps of a run | 1: 1, 2: 4 | 40 % |")


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    series = {"steps": Growth((1, 2), (1.0, 2.0)), "tokens": Growth((1, 2), (1.0, 3.0))}
    for name in ("one.svg", "other.svg"):
        draw(series, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_nothing_ends_a_response_and_the_policy_stays_as_it_was() -> None:
    policy = load_policy(PolicySettings("embedded", "float32"))
    ends = policy.end_tokens
    (generation,) = Unending().generate(policy, [Request([torch.tensor([1, 2, 3])], 4, 30, noise_key=1)])
    assert generation.mask.all()
    assert generation.mask.shape == (1, 4, 30)
    assert policy.end_tokens == ends


def test_every_step_is_clocked() -> None:
    times = clock(prompts=2, samples=2, tokens=4)
    assert len(times) == BASE["steps"] + 2
    assert times == sorted(times)


def test_the_study_that_grows_by_seeds_can_be_declared(tmp_path: Path) -> None:
    words = compare_command(str(tmp_path), 2, ARMS, *SHORT)[3:]
    assert main([*words, "--dry-run", "--no-probe"]) == 0
