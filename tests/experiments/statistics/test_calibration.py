"""Error rates, power and coverage by simulation: R = 2000 studies a row, within three Monte-Carlo standard errors.

Rows go through `analyze`. Where that would take minutes (20 seeds, many comparisons) they go through the inner
functions, which other tests show to be what `analyze` uses.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics import Comparison, analyze, holm, max_t, paired_t, power, sign_flip_p

R = 2000
SD = 0.02
Family = Literal["baseline", "all"]
Array = NDArray[np.float64]


def band(p: float) -> float:
    return 3 * math.sqrt(p * (1 - p) / R)


AT_MOST = 0.05 + band(0.05)


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Scores of arms that are exchangeable within a seed."""
    if kind == "normal":
        return SD * rng.normal(size=shape) / math.sqrt(2)  # so that differences have standard deviation SD
    if kind == "lognormal":
        return rng.lognormal(size=shape)
    if kind == "collapsing":  # one run in ten loses ten standard deviations
        return rng.normal(size=shape) - 10.0 * (rng.random(shape) < 0.1)
    if kind == "30 items":
        return rng.binomial(30, 0.6, shape) / 30
    raise ValueError(kind)


@lru_cache
def two_arms(kind: str, n: int, shift: float = 0.0, margin: float = 1.5 * SD) -> list[Comparison]:
    """R studies of two arms; the second is better by `shift`."""
    rng = np.random.default_rng([n, round(1e6 * shift), *kind.encode()])
    draws = noise(kind, rng, (R, 2, n))
    draws[:, 1] += shift
    return [
        analyze(
            {"base": dict(enumerate(x.tolist())), "arm": dict(enumerate(y.tolist()))}, baseline="base", margin=margin
        ).comparisons[0]
        for x, y in draws
    ]


def rate(events: list[bool]) -> float:
    return sum(events) / len(events)


def claimed(comparisons: list[Comparison]) -> float:
    return rate([c.verdict in ("better", "worse") for c in comparisons])


@pytest.mark.parametrize("n", [3, 5])
def test_false_claims_of_the_t_test(n: int) -> None:
    studies = two_arms("normal", n)
    assert claimed(studies) == pytest.approx(0.05, abs=band(0.05))
    assert all((c.p_flip or 0) > 0.05 and (c.p_wilcoxon or 0) > 0.05 for c in studies)


@pytest.mark.parametrize("n", [8, 10])
def test_false_claims_of_the_sign_flips(n: int) -> None:
    attained = math.floor(0.05 * 2 ** (n - 1)) / 2 ** (n - 1)  # p has steps of 2 / 2^n
    assert claimed(two_arms("normal", n)) == pytest.approx(attained, abs=band(attained))
    assert rate([(c.p_t or 0) <= 0.05 for c in two_arms("normal", n)]) == pytest.approx(0.05, abs=band(0.05))
    assert rate([(c.p_wilcoxon or 0) <= 0.05 for c in two_arms("normal", n)]) <= AT_MOST


@pytest.mark.parametrize("kind", ["normal", "lognormal", "collapsing", "30 items"])
def test_false_claims_at_twenty_seeds(kind: str) -> None:
    x, y = noise(kind, np.random.default_rng(20), (2, R, 20))
    assert rate([sign_flip_p(d) <= 0.05 for d in x - y]) <= AT_MOST


@pytest.mark.parametrize("kind", ["lognormal", "collapsing", "30 items"])
@pytest.mark.parametrize("n", [5, 8])
def test_false_claims_under_odd_distributions(kind: str, n: int) -> None:
    assert claimed(two_arms(kind, n)) <= AT_MOST


@pytest.mark.parametrize(("n", "d_z"), [(5, 1.0), (10, 1.0), (5, 1.5), (20, 0.5)])
def test_power_of_the_t_test_is_as_planned(n: int, d_z: float) -> None:
    d = np.random.default_rng(n).normal(d_z, 1.0, (R, n))
    planned = power(d_z, n)
    assert rate([paired_t(row)[0] <= 0.05 for row in d]) == pytest.approx(planned, abs=band(planned))


def test_power_of_the_verdict_is_as_planned() -> None:
    planned = power(1.5, 5)
    better = rate([c.verdict == "better" for c in two_arms("normal", 5, 1.5 * SD)])
    assert better == pytest.approx(planned, abs=band(planned))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_coverage_of_the_t_interval(n: int) -> None:
    inside = [c.interval is not None and c.interval[0] < 0 < c.interval[1] for c in two_arms("normal", n)]
    assert rate(inside) == pytest.approx(0.95, abs=band(0.95))


@pytest.mark.parametrize("n", [8, 10])
def test_coverage_of_the_sign_flip_interval(n: int) -> None:
    inside = [
        c.flip_interval is not None and c.flip_interval[0] < 0 < c.flip_interval[1] for c in two_arms("normal", n)
    ]
    assert rate(inside) >= 0.95 - band(0.95)
    assert rate(inside) <= 0.97  # p has small steps here, so the interval is not much too wide either


def test_false_equivalence_at_the_margin() -> None:
    studies = two_arms("normal", 5, shift=SD, margin=SD)
    accepted = rate([(c.p_equivalence or 0) <= 0.05 for c in studies])
    assert 0.05 - band(0.05) <= accepted <= AT_MOST


def test_power_of_equivalence() -> None:
    studies = two_arms("normal", 10)
    equivalent = [(c.p_equivalence or 0) <= 0.05 for c in studies]
    assert rate(equivalent) == pytest.approx(0.993, abs=band(0.993))
    found = [c.verdict == "equivalent" or c.smaller_than_margin for c in studies]
    assert found == equivalent


def studies_of(arms: int, n: int, better: int = 0) -> Array:
    """Scores [R, arms, n] with a shared seed effect; the last `better` arms gain 1.5 standard deviations."""
    rng = np.random.default_rng([arms, n, better])
    scores = rng.normal(size=(R, 1, n)) + rng.normal(size=(R, arms, n))
    scores[:, arms - better :] += 1.5
    return scores


@pytest.mark.parametrize(("n", "better"), [(5, 0), (8, 2)])
def test_familywise_error_of_the_verdict(n: int, better: int) -> None:
    """Four arms against the baseline: any claim about an arm that truly equals it is an error."""
    wrong = []
    for study in studies_of(4, n, better):
        scores = {f"a{k}": dict(enumerate(row.tolist())) for k, row in enumerate(study)}
        comparisons = analyze(scores, baseline="a0").comparisons[: 3 - better]
        wrong.append(any(c.verdict in ("better", "worse") for c in comparisons))
    assert rate(wrong) <= AT_MOST
    if not better:
        assert rate(wrong) >= 0.05 - 2 * band(0.05)  # the correction is not needlessly strict


@pytest.mark.parametrize("n", [5, 8, 10])
@pytest.mark.parametrize("family", ["baseline", "all"])
@pytest.mark.parametrize(("arms", "better"), [(4, 0), (8, 0), (8, 3)])
def test_familywise_error_of_the_adjusted_p(n: int, family: Family, arms: int, better: int) -> None:
    pairs = [(j, i) for i in range(1 if family == "baseline" else arms) for j in range(i + 1, arms)]
    same = [k for k, (j, i) in enumerate(pairs) if (j >= arms - better) == (i >= arms - better)]
    wrong = []
    for study in studies_of(arms, n, better):
        d = np.column_stack([study[j] - study[i] for j, i in pairs])
        if n < 8:
            t = d.mean(axis=0) / d.std(axis=0, ddof=1) * math.sqrt(n)
            p = holm(2 * stats.t.sf(np.abs(t), n - 1))
        else:
            p = max_t(d)
        wrong.append(bool((p[same] <= 0.05).any()))
    assert rate(wrong) <= AT_MOST
