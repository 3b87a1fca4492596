"""Error rates, power and coverage by simulation: the beginning of what `make calibrate` runs, each within its band.

Where whole studies would take minutes (20 seeds, many comparisons) 2000 of them also go through the inner functions,
which other tests show to be what a judgement rests on.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.report.formatting import verdict_text
from experiments.report.page import render
from experiments.results.stored_study import load_study
from experiments.statistics import holm, max_t, sign_flip_p
from experiments.statistics.records import Family
from tests.calibrate import PAGE, SECTIONS, SIMULATIONS, line, page, promised, updated
from tests.experiments.statistics.calibration import Measured, Row, Simulation
from tests.experiments.statistics.calibration_fixed import AGREEMENT
from tests.experiments.statistics.calibration_samples import CHOICES, answered, of_real
from tests.experiments.statistics.real_answers import ANSWERS, READINGS, scores
from tests.experiments.statistics.simulations import band, noise
from tests.experiments.statistics.studies import claims, curves, of_folder, of_runs, only, write_folder

R = 2000
AT_MOST = 0.05 + band(0.05, R)


@pytest.mark.slow
@pytest.mark.parametrize("simulation", [each for each in SIMULATIONS if each.fast], ids=lambda each: each.studied)
def test_rates_are_within_their_bands(simulation: Simulation) -> None:
    outside = [str(rate) for rate in simulation.measure(simulation.fast) if not rate.inside]
    assert not outside


@pytest.mark.parametrize(("n", "rate"), [(5, 0.05), (8, 12 / 256)])
def test_false_claims_about_equal_arms_in_tables_are_counted_in_two_thousand(n: int, rate: float) -> None:
    """From the rows of a table to the verdict: the t test at 5 seeds, at 8 the sign flips, with steps of 2 / 2^n."""
    (simulation,) = [each for each in SIMULATIONS if each.studied == f"two equal arms, normal, {n} seeds, as a table"]
    claimed = simulation.rows[0]
    assert claimed.counted.startswith("called better or worse")
    assert Measured("", claimed, simulation.fast, 0).band == pytest.approx(
        (rate - band(rate, 2000), rate + band(rate, 2000))
    )


@pytest.mark.parametrize("kind", ["normal", "lognormal", "collapsing", "30 items"])
def test_false_claims_at_twenty_seeds(kind: str) -> None:
    x, y = noise(kind, np.random.default_rng(20), (2, R, 20))
    assert sum(sign_flip_p(d) <= 0.05 for d in x - y) / R <= AT_MOST


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 8, 10])
@pytest.mark.parametrize("family", ["baseline", "all"])
@pytest.mark.parametrize(("arms", "better"), [(4, 2), (8, 0), (8, 3)])
def test_familywise_error_of_the_adjusted_p(n: int, family: Family, arms: int, better: int) -> None:
    """The last `better` arms gain 1.5 standard deviations; any claim about two arms that are equal is an error."""
    rng = np.random.default_rng([arms, n, better])
    scores = rng.normal(size=(R, 1, n)) + rng.normal(size=(R, arms, n))
    scores[:, arms - better :] += 1.5
    pairs = [(j, i) for i in range(1 if family == "baseline" else arms) for j in range(i + 1, arms)]
    same = [k for k, (j, i) in enumerate(pairs) if (j >= arms - better) == (i >= arms - better)]
    wrong = 0
    for study in scores:
        d = np.column_stack([study[j] - study[i] for j, i in pairs])
        if n < 8:
            t = d.mean(axis=0) / d.std(axis=0, ddof=1) * math.sqrt(n)
            p = holm(2 * stats.t.sf(np.abs(t), n - 1))
        else:
            p = max_t(d)
        wrong += bool((p[same] <= 0.05).any())
    assert wrong / R <= AT_MOST


# the machinery


@pytest.mark.parametrize(
    ("row", "count", "band", "inside"),
    [
        (Row(1, "", 0.5), 65, (0.35, 0.65), True),  # 3 √(.25 / 100) = .15
        (Row(1, "", 0.5), 66, (0.35, 0.65), False),
        (Row(1, "", 0.5, "more"), 0, (0.0, 0.65), True),
        (Row(1, "", 0.5, "more"), 66, (0.0, 0.65), False),
        (Row(1, "", 0.5, "less"), 100, (0.35, 1.0), True),
        (Row(1, "", 0.5, "less"), 34, (0.35, 1.0), False),
        (Row(1, "", 0.5, width=0.01), 66, (0.34, 0.66), True),
        (Row(1, "", 0.0, "more"), 0, (0.0, 0.0), True),
        (Row(1, "", 0.0, "more"), 1, (0.0, 0.0), False),
    ],
)
def test_bands_by_hand(row: Row, count: int, band: tuple[float, float], inside: bool) -> None:
    measured = Measured("", row, 100, count)
    assert measured.band == pytest.approx(band)
    assert measured.inside == inside


def test_a_short_run_is_the_beginning_of_a_long_one() -> None:
    simulation = Simulation("coins", lambda rng, R: rng.random((R, 1)) < 0.5, (Row(1, "heads", 0.5),), 0, 0)
    assert simulation.chunks(600) == [(0, 250), (1, 250), (2, 100)]
    assert simulation.counts(0, 250) == simulation.counts(0, 250) != simulation.counts(1, 250)
    (measured,) = simulation.measure(600)
    assert measured.count == sum(simulation.counts(*chunk)[0] for chunk in simulation.chunks(600))
    assert measured.inside


def test_names_are_seeds_and_thus_distinct() -> None:
    names = [each.studied for each in SIMULATIONS]
    assert len(set(names)) == len(names)
    assert {row.item for each in SIMULATIONS for row in each.rows} == set(SECTIONS)


def test_simulated_answers_are_right_as_often_as_they_should_be_and_their_surprise_has_mean_0() -> None:
    p = np.array([0.2, 0.5, 0.9, 1.0])
    right, surprise = answered(p, np.random.default_rng(0).random((4, 20_000, CHOICES + 1)))
    assert (np.abs(right.mean(1) - p) <= band(0.5, 20_000)).all()
    assert (np.abs(surprise.mean(1)) <= 3 * surprise.std(1) / math.sqrt(20_000)).all()
    assert np.corrcoef(right[1], surprise[1])[0, 1] > 0.5


def test_real_arms_are_judged_by_the_answers_of_their_runs() -> None:
    arms = [[(0, 2), (0, 5), (0, 9)], [(1, 0), (1, 1), (1, 15)]]
    for reading in READINGS.values():
        one, other = (np.mean([scores(reading)[run] for run in arm]) for arm in arms)
        assert of_real(arms, reading).effect.mean_difference == pytest.approx(other - one)
    expected = ANSWERS["weights"].right[1, 3, :, :, :2].mean()
    assert scores(READINGS["accuracy by 2 x 3 samples"])[1, 3] == pytest.approx(expected)


# the page


def test_the_page_has_a_section_and_says_what_is_outside() -> None:
    text = page([Measured("coins", Row(4, "heads", 0.5), 100, 50), Measured("dice", Row(4, "a six", 0.5), 100, 16)])
    assert "**2 rows over 200 studies, 1 outside its band.**" in text
    assert "| coins | heads | 100 | 0.5 | 0.5000 | 0.0500 | 0.3500 to 0.6500 | inside |" in text
    assert "| dice | a six | 100 | 0.5 | 0.1600 | 0.0367 | 0.3500 to 0.6500 | **outside** |" in text


def test_the_page_names_every_row_and_no_other() -> None:
    """Written anew by `make calibrate`: a row that is new, or worded or meant otherwise, is not there yet."""
    lines = PAGE.read_text().splitlines()
    measured = [Measured(each.studied, row, each.slow, 0) for each in SIMULATIONS for row in each.rows]
    blank = page(measured).splitlines()
    assert [promised(line) for line in lines if line.startswith("|")] == [
        promised(line) for line in blank if line.startswith("|")
    ]
    assert [line for line in lines if not line.startswith(("|", "**"))] == [
        line for line in blank if not line.startswith(("|", "**"))
    ]


def test_a_part_of_the_page_is_made_anew_and_the_rest_kept() -> None:
    text = PAGE.read_text()
    simulation = SIMULATIONS[0]
    measured = [Measured(simulation.studied, row, simulation.slow, 7) for row in simulation.rows]
    changed = [
        (old, new)
        for old, new in zip(text.splitlines(), updated(text, measured).splitlines(), strict=True)
        if old != new
    ]
    assert {promised(old) for old, _ in changed[1:]} <= {promised(line(each)) for each in measured}
    assert all(new in [line(each) for each in measured] for _, new in changed[1:])
    assert f"{7 / simulation.slow:.4f}" in changed[-1][1]
    assert updated("", measured) == page(measured)


# wording, beyond what is counted


@pytest.mark.parametrize("n", [3, 5, 8])
def test_inconclusive_does_not_read_as_agreement_in_tables_either(n: int) -> None:
    rng = np.random.default_rng(n)
    comparisons = [only(of_runs(curves("normal", 2, n, rng))) for _ in range(20)]
    texts = {verdict_text(c) for c in comparisons if c.verdict == "inconclusive"}
    assert texts
    assert not any(AGREEMENT.search(text) for text in texts)


def test_a_report_shows_both_failure_policies_and_survives_a_curve_of_nan(tmp_path: Path) -> None:
    values = curves("normal", 2, 5, np.random.default_rng(0))
    values[1, 2] = math.nan
    folder = write_folder(tmp_path / "study", values, {(1, 2): "failed"})
    judgement = of_folder(folder)
    assert {policy: analysis and len(analysis.seeds) for policy, analysis in judgement.policies.items()} == {
        "worst": 5,
        "intersect": 4,
    }
    text = re.sub(r"\s+", " ", render(load_study(folder), judgement))
    assert "failures: worst" in text
    assert "failures: intersect" in text
    assert "0.0625 &gt; 0.05" in text or "0.0625 > 0.05" in text
    assert claims(judgement.analysis) == claims(judgement.policies["worst"])
