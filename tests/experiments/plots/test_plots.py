"""Figures for papers: what is drawn is what was measured, on whose axes one likes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from core import GrpoLabError
from experiments.plots import plot_curves, plot_differences, plot_scores
from experiments.results.stored_study import load_study
from experiments.statistics import Curve, Judgement, Plan, Trajectory, judge

OLD = Path(__file__).parents[2] / "data" / "old_tree" / "runs" / "study"


@pytest.fixture
def judgement() -> Judgement:
    scores = {"base": [0.60, 0.62, 0.58], "mine": [0.66, 0.67, 0.65], "other": [0.60, 0.61, 0.59]}
    runs = [
        Trajectory(arm, seed, "finished", {"test/accuracy": Curve({"steps": [10.0]}, [value])})
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]
    judged = judge(Plan(metric="test/accuracy", baseline="base", seeds=(0, 1, 2), margin=0.02), runs)
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


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_a_figure_is_saved_as_any_kind(judgement: Judgement, tmp_path: Path, kind: str) -> None:
    figure = plot_differences(judgement).get_figure()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / f"differences.{kind}")
    assert (tmp_path / f"differences.{kind}").stat().st_size > 1000
