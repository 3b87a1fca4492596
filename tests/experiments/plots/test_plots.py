"""Figures for papers: what is drawn is what was measured, on whose axes one likes."""

from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from core import GrpoLabError
from experiments import lab
from experiments.plots import (
    plot_coupling,
    plot_curves,
    plot_differences,
    plot_interquartile_means,
    plot_pass_at_k,
    plot_profile,
    plot_ranks,
    plot_scores,
)
from experiments.plots.style import in_lines
from experiments.results.stored_study import load_study
from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge
from tests.experiments.report.studies import write_study
from tests.experiments.report.test_ability import answer

OLD = Path(__file__).parents[2] / "data" / "old_tree" / "runs" / "study"


@pytest.fixture
def judgement() -> Judgement:
    scores = {"base": [0.60, 0.62, 0.58], "mine": [0.66, 0.67, 0.65], "other": [0.60, 0.61, 0.59]}
    runs = [
        Trajectory(arm, seed, "finished", {"test/accuracy": Curve({"steps": [10.0]}, [value])})
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]
    judged = judge(Plan(metric="test/accuracy", baseline="base", seeds=(0, 1, 2), margin=0.02, largest=1.0), runs)
    assert judged is not None
    return judged


def test_differences_are_drawn_in_points_with_interval_and_seeds(judgement: Judgement) -> None:
    ax = plot_differences(judgement)
    dots, interval, mean = (np.asarray(line.get_xdata(), dtype=float).tolist() for line in ax.lines[1:4])
    assert dots == [pytest.approx(6), pytest.approx(5), pytest.approx(7)]
    effect = judgement.analysis.comparisons[0].effect
    assert effect.interval is not None
    assert interval == pytest.approx([100 * end for end in effect.interval])
    assert mean == [pytest.approx(6)]
    assert ax.get_yticklabels()[0].get_text().startswith("mine\n")
    assert "difference from base" in ax.get_xlabel()
    assert ax.get_figure() is not None


def test_scores_are_drawn_by_arm_with_their_means(judgement: Judgement) -> None:
    figure = Figure()
    ax = figure.subplots()
    assert plot_scores(judgement, ax=ax) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["base", "mine", "other"]
    means = [np.asarray(line.get_ydata(), dtype=float)[0] for line in ax.lines[3:][1::2]]
    assert means == pytest.approx([60, 66, 60])


def test_curves_of_a_study_and_of_anybody(judgement: Judgement) -> None:
    study = load_study(OLD)
    ax = plot_curves(study, arms=["grpo", "rloo"])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["grpo", "rloo"]
    x, y = study.curve("grpo", 0, "test/accuracy")
    assert np.allclose(ax.lines[0].get_xdata(), x)
    assert np.allclose(ax.lines[0].get_ydata(), 100 * y)
    own = plot_curves({"a": {0: ([0, 1], [1, 2]), 1: ([0, 1], [3, 4])}}, metric="reward")
    assert np.asarray(own.lines[-1].get_ydata()).tolist() == [2, 3]
    assert own.get_ylabel() == "reward"
    with pytest.raises(GrpoLabError, match="no arm 'x': the arms are grpo, median, rloo"):
        plot_curves(study, arms=["x"])


def test_ranks_are_means_over_seeds_and_bars_join_what_is_not_told_apart(judgement: Judgement) -> None:
    """mine is first at every seed; base and other tie once, and lead each other once."""
    ax = plot_ranks(judgement)
    names = [label.get_text() for label in ax.get_yticklabels()]
    ranks = [float(np.asarray(line.get_xdata(), dtype=float)[0]) for line in ax.lines[:3]]
    assert dict(zip(names, ranks, strict=True)) == pytest.approx({"mine": 1, "base": 2.5, "other": 2.5})
    (bar,) = ax.lines[3:]
    assert np.asarray(bar.get_ydata(), dtype=float).tolist() == [0.8, 2.2], "other and base, not mine"


def test_scores_of_one_seed_are_drawn_over_each_other(judgement: Judgement) -> None:
    ax = plot_coupling(judgement)
    x, y = (np.asarray(data, dtype=float).tolist() for data in ax.lines[0].get_data())
    assert x == pytest.approx([60, 62, 58])
    assert y == pytest.approx([66, 67, 65])
    assert str(ax.lines[0].get_label()) == "mine, r = 1.00"
    assert ax.get_xlim() == ax.get_ylim()


def test_interquartile_means_and_profiles_are_those_of_the_scores(judgement: Judgement) -> None:
    """Of three scores a quarter is less than one: the middle weighs 1, the others a quarter each."""
    means = [np.asarray(line.get_xdata(), dtype=float).tolist() for line in plot_interquartile_means(judgement).lines]
    assert means == [[pytest.approx(60)], [pytest.approx(66)], [pytest.approx(60)]], "no interval below five seeds"
    base = plot_profile(judgement).lines[0]
    x, share = (np.asarray(data, dtype=float) for data in base.get_data())
    assert [share[x >= at - 1e-9][0] for at in (58, 60, 62)] == pytest.approx([100, 200 / 3, 100 / 3])
    assert share[-1] == 0


def test_pass_at_k_before_training_and_after(tmp_path: Path) -> None:
    """1 of 4 right: k / 4; 2 of 4 right: 1/2, then 1 - 1/6, then sure."""
    write_study(tmp_path / "study")
    for folder in (tmp_path / "study").glob("*/seed=*"):
        answer(folder, 0, 1)
        answer(folder, 6, 2 if folder.parent.name == "dapo" else 1)
    base, grpo, dapo = plot_pass_at_k(load_study(tmp_path / "study")).lines
    for line, percent in ((base, [25, 50, 75, 100]), (grpo, [25, 50, 75, 100]), (dapo, [50, 100 * 5 / 6, 100, 100])):
        assert np.asarray(line.get_ydata(), dtype=float).tolist() == pytest.approx(percent)
    with pytest.raises(GrpoLabError, match="takes 4 samples a question"):
        plot_pass_at_k(load_study(OLD))


def test_a_name_is_broken_at_its_marks_and_keeps_both_ends() -> None:
    assert in_lines("grpo") == "grpo"
    assert in_lines("dapo_with_eps_high=0.28", 13) == "dapo_with_\neps_high=0.28"
    assert in_lines("one two three four five", 9) == "one two\n…four five"
    assert in_lines("clip_" + "unbreakable" * 3, 8) == "clip_\n" + "unbreakable" * 3
    assert in_lines("") == ""


def test_percent_that_was_given_stays_percent() -> None:
    scores = {"base": {0: 60, 1: 62, 2: 58}, "mine": {0: 66, 1: 67, 2: 65}}
    verdicts = lab.judge(scores, baseline="base", metric="accuracy", margin=1)
    ax = lab.plot_differences(verdicts)  # verdicts are taken as their judgement is
    assert np.asarray(ax.lines[1].get_xdata()).tolist() == [6, 5, 7]
    assert "points" not in ax.get_xlabel()
    assert np.asarray(lab.plot_scores(verdicts).lines[0].get_ydata()).tolist() == [60, 66]
    assert np.asarray(plot_coupling(verdicts).lines[0].get_xdata()).tolist() == [60, 62, 58]
    assert np.asarray(plot_interquartile_means(verdicts.judgement).lines[0].get_xdata()).tolist() == [60]
    assert max(np.asarray(plot_profile(verdicts.judgement).lines[1].get_xdata(), dtype=float)) == 67


@pytest.mark.parametrize("arm", ["$\\frac$", "_mine", "a_b%^{c}<b>"])
def test_an_arm_of_any_name_is_drawn_as_it_is_called(arm: str, tmp_path: Path) -> None:
    verdicts = lab.judge({"base": {0: 1, 1: 2, 2: 2}, arm: {0: 3, 1: 5, 2: 4}}, baseline="base")
    curves = lab.plot_curves({"base": {0: ([0, 1], [1, 2])}, arm: {0: ([0, 1], [1, 3])}}, metric=arm)
    legend = curves.get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["base", arm]
    judged = [draw(verdicts.judgement) for draw in (plot_differences, plot_scores, plot_ranks, plot_coupling)]
    spread = [draw(verdicts.judgement) for draw in (plot_interquartile_means, plot_profile)]
    for place, ax in enumerate([*judged, *spread, curves]):
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{place}.svg")
        assert arm in unescape((tmp_path / f"{place}.svg").read_text())


def test_curves_of_a_study_as_lab_has_it() -> None:
    ax = lab.plot_curves(lab.load_study(OLD), arms=["grpo"])
    assert np.array_equal(ax.lines[0].get_ydata(), plot_curves(load_study(OLD), arms=["grpo"]).lines[0].get_ydata())


@pytest.mark.parametrize("source", [{}, [1], {"a": [1]}, {"a": {0: 0.5}}, {"a": {0: ([0, 1], [1])}}, {"a": {0: "x"}}])
def test_what_are_no_curves_is_one_message(source: Any) -> None:
    with pytest.raises(GrpoLabError, match="curve"):
        plot_curves(source)


def test_what_are_no_verdicts_is_one_message() -> None:
    with pytest.raises(GrpoLabError, match=r"verdicts, as lab\.judge"):
        plot_differences({"a": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_a_figure_is_saved_as_any_kind(judgement: Judgement, tmp_path: Path, kind: str) -> None:
    figure = plot_differences(judgement).get_figure()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / f"differences.{kind}")
    assert (tmp_path / f"differences.{kind}").stat().st_size > 1000
