"""Predictions: read, judged, and never supported by a lack of evidence."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.analysis import analyze
from experiments.statistics.predictions import ClaimVerdict, Prediction, assess
from tests.experiments.statistics.studies import fixed

BASE = [0.50, 0.52, 0.54, 0.56, 0.58]
TENTH = [0.60, 0.61, 0.65, 0.66, 0.69]  # d = .10, .09, .11, .10, .11: sd .0084


def table(**arms: list[float]) -> Mapping[str, Mapping[int, float]]:
    return {arm: dict(enumerate(row)) for arm, row in arms.items()}


def outcome(text: str, x: list[float], y: list[float] = BASE) -> str:
    verdict = assess([Prediction.parse(text)], lambda metric: table(x=x, y=y))
    assert verdict is not None
    return verdict.outcome


def test_a_prediction_is_read() -> None:
    prediction = Prediction.parse(" dr_grpo <  grpo on test/length_incorrect by 0.5")
    assert prediction == Prediction("dr_grpo", "<", "grpo", "test/length_incorrect", 0.5)
    assert str(prediction) == "dr_grpo lower than grpo on test/length_incorrect, margin 0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a beats b on m by 1", "cannot be read: write it like"),
        ("a > b on m", "cannot be read"),
        ("a > a on m by 1", "two different arms"),
        ("a > b on m by 0", "margin above 0"),
        ("a > b on m by much", "margin above 0"),
        ("a > b on m by nan", "margin above 0"),
    ],
)
def test_what_is_no_prediction_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prediction.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > y on m by 0.02", "supported"),
        ("x < y on m by 0.02", "not supported"),
        ("x = y on m by 0.02", "not supported"),
        ("x = y on m by 0.2", "supported"),
        ("x > y on m by 0.2", "not supported"),  # a difference, but a negligible one
        ("x = y on m by 0.105", "underpowered"),  # mean .102, and the interval reaches beyond .105
    ],
)
def test_a_clear_difference(text: str, expected: str) -> None:
    assert outcome(text, TENTH) == expected


@pytest.mark.parametrize("relation", [">", "<", "="])
def test_noise_supports_nothing(relation: str) -> None:
    noisy = [0.9, 0.2, 0.8, 0.1, 0.7]
    assert outcome(f"x {relation} y on m by 0.02", noisy) == "underpowered"


@pytest.mark.parametrize("relation", ["<", ">"])
def test_equivalence_speaks_against_a_difference(relation: str) -> None:
    close = [y + d for y, d in zip(BASE, (0.001, -0.001, 0.002, -0.002, 0.0), strict=True)]
    assert outcome(f"x {relation} y on m by 0.02", close) == "not supported"


def test_a_claim_is_as_weak_as_its_weakest_prediction() -> None:
    def of(*texts: str) -> ClaimVerdict:
        arms = {"m": table(x=TENTH, y=BASE), "n": table(x=[0.9, 0.2, 0.8, 0.1, 0.7], y=BASE)}
        verdict = assess([Prediction.parse(text) for text in texts], arms.__getitem__)
        assert verdict is not None
        return verdict

    assert of("x > y on m by 0.02", "x > y on n by 0.02").outcome == "underpowered"
    assert of("x < y on m by 0.02", "x > y on n by 0.02").outcome == "not supported"
    alone, both = of("x > y on m by 0.02"), of("x > y on m by 0.02", "x > y on n by 0.02")
    raw = fixed(analyze(table(y=BASE, x=TENTH), baseline="y").comparisons[0]).p_t
    assert raw is not None
    assert alone.assessments[0].p_difference == pytest.approx(raw)
    assert both.assessments[0].p_difference == pytest.approx(2 * raw)  # Holm over two


def test_an_underpowered_prediction_says_how_many_seeds_it_takes() -> None:
    verdict = assess([Prediction.parse("x > y on m by 0.02")], lambda _: table(x=[0.9, 0.2, 0.8, 0.1, 0.7], y=BASE))
    assert verdict is not None
    assert "seeds would detect the margin" in verdict.assessments[0].sentence


def test_too_few_seeds_and_unknown_arms() -> None:
    prediction = [Prediction.parse("x > y on m by 0.02")]
    assert assess(prediction, lambda _: table(x=[0.9, 0.2], y=BASE)) is None
    with pytest.raises(ValueError, match="no arm 'x' there; arms are y"):
        assess(prediction, lambda _: table(y=BASE))
    with pytest.raises(ValueError, match="needs a prediction"):
        assess([], lambda _: table(y=BASE))


@pytest.mark.slow
def test_a_true_null_is_rarely_taken_for_a_difference() -> None:
    """2000 claims about two arms that are the same: a difference is called supported in 2.5 % of them (one side)."""
    rng = np.random.default_rng(0)
    called = 0
    for x, y in rng.normal(size=(2000, 2, 5)).tolist():
        scores = table(x=x, y=y)
        verdict = assess([Prediction.parse("x > y on m by 0.1")], {"m": scores}.__getitem__)
        assert verdict is not None
        called += verdict.outcome == "supported"
    assert abs(called / 2000 - 0.025) <= 3 * math.sqrt(0.025 * 0.975 / 2000)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(0.01, 0.5))
def test_opposite_predictions_are_never_both_supported(d: list[float], margin: float) -> None:
    y = [0.01 * s for s in range(len(d))]
    x = [a + b for a, b in zip(y, d, strict=True)]
    outcomes = [outcome(f"x {relation} y on m by {margin}", x, y) for relation in "<>="]
    assert outcomes.count("supported") <= 1
