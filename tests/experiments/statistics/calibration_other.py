"""Studies that may end early, exactness, failed runs, wording, run folders, and predictions."""

import json
import math
import re
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from experiments.statistics import Comparison, Judgement
from experiments.statistics.betting import anytime_interval, log_e_process
from experiments.statistics.predictions import Prediction, Relation
from experiments.statistics.records import Family
from tests.experiments.statistics.calibration import Events, Row, Simulation, each, never
from tests.experiments.statistics.calibration_fixed import ALPHA, BETTER_OR_WORSE, WORDS, reads_as_agreement
from tests.experiments.statistics.simulations import NULLS, ever_rejected, false_claims, null_differences, peeked_t
from tests.experiments.statistics.studies import (
    SD,
    Array,
    Statuses,
    claims,
    curves,
    fixed,
    of_folder,
    of_rows,
    of_runs,
    only,
    rows_of,
    write_folder,
)

NAMES: Mapping[str, str] = {"collapsing": "one run in ten loses 10 sd", "30 items": "accuracy on 30 items"}
SIGMA = SD / math.sqrt(2)
"""The standard deviation of a run's score within its seed."""
FIXED_N = (
    "p_t",
    "p_flip",
    "p_wilcoxon",
    "adjusted_p_t",
    "adjusted_p_flip",
    "p_equivalence",
    "flip_interval",
    "detectable",
    "seeds_for_margin",
    "seeds_for_margin_high",
)
FIXED_N_WORDS = re.compile(r"paired t|max-T|Wilcoxon|TOST|sign.flips?\b(?! betting)|power|(?<!anytime )\bp = ")


# looking after every seed


def crossings(kind: str, rng: np.random.Generator, R: int) -> Events:
    return ever_rejected(null_differences(kind, R, 50, rng))[:, -1:]


def peeking(rng: np.random.Generator, R: int) -> Events:
    return peeked_t(rng.normal(size=(R, 20)))[:, None]


def always_covers(rng: np.random.Generator) -> tuple[bool, ...]:
    interval = anytime_interval(rng.normal(size=20))
    return (interval is not None and interval[0] < 0 < interval[1],)


def invariances(rng: np.random.Generator, R: int) -> Events:
    d = null_differences("t3", R, 20, rng)
    e, scaled, swapped = log_e_process(d), log_e_process(1000 * d), log_e_process(-d)
    return np.stack([np.abs(other - e).max(axis=1) > 1e-9 for other in (scaled, swapped)], axis=1)


def has_fixed_n_numbers(judgement: Judgement) -> bool:
    """Whether a p-value or interval of a fixed number of seeds is anywhere in a race's judgement."""
    plain = judgement.to_json()
    text = " ".join([*plain["notes"], *plain["warnings"], *(c["sentence"] for c in plain["comparisons"])])
    given = [c[field] for c in plain["comparisons"] for field in FIXED_N]
    beside = [plain[part] for part in ("failure_policies", "axes", "exploratory", "claim")]
    tests = {c["test"] for c in plain["comparisons"]} - {"", "sign-flip betting, anytime"}
    match = FIXED_N_WORDS.search(text.replace(" no fixed-n p-value", ""))
    return bool(match or tests or any(beside) or any(value is not None for value in given))


def race_of_two(kind: str, rng: np.random.Generator) -> tuple[bool, ...]:
    judgement = of_runs(curves(kind, 2, 20, rng), race=True, margin=1e-6)
    interval = only(judgement).effect.interval
    return (
        claims(judgement.analysis),
        interval is not None and not interval[0] <= 0 <= interval[1],
        has_fixed_n_numbers(judgement),
        reads_as_agreement(judgement),
    )


def race_of_many(family: Family, sigmas: tuple[float, ...], rng: np.random.Generator) -> tuple[bool, ...]:
    shifts = tuple(SIGMA * s for s in sigmas)
    judgement = of_runs(curves("normal", len(shifts), 20, rng, shifts), race=True, family=family, margin=1e-6)
    return false_claims(judgement.analysis, shifts), has_fixed_n_numbers(judgement)


def raced(family: Family, sigmas: tuple[float, ...], truth: str, fast: int, slow: int) -> Simulation:
    name = f"race of {truth}, {'against the baseline' if family == 'baseline' else 'all pairs'}, at most 20 seeds"
    rows = (Row(8, "any false better or worse", ALPHA, "more"), NO_FIXED_N)
    return Simulation(name, each(partial(race_of_many, family, sigmas)), rows, fast, slow)


def with_looks(looks: tuple[tuple[int, float], ...], fast: int, slow: int) -> Simulation:
    n = looks[-1][0]

    def study(rng: np.random.Generator) -> tuple[bool, ...]:
        return (claims(of_runs(curves("normal", 2, n, rng), looks=looks).analysis),)

    description = ", ".join(f"{size} ({level:g})" for size, level in looks)
    return Simulation(
        f"two equal arms, looks after (at level) {description} seeds",
        each(study),
        (Row(8, f"{BETTER_OR_WORSE} at any look", ALPHA, "more"),),
        fast,
        slow,
    )


NO_FIXED_N = never(11, "a fixed-n p, interval or power in sentences, notes or JSON")
RACE_OF_TWO = (
    Row(8, BETTER_OR_WORSE, ALPHA, "more"),
    Row(8, "the anytime interval lacks the truth", ALPHA, "more"),
    NO_FIXED_N,
    WORDS,
)


# exactness


def exact(rng: np.random.Generator) -> tuple[bool, ...]:
    """Any small study, with ties half of the time."""
    kind, family = rng.choice(["normal", "30 items"]), rng.choice(["baseline", "all"])
    arms, n = int(rng.integers(2, 5)), int(rng.integers(3, 11))
    values = curves(str(kind), arms, n, rng)
    analysis = of_runs(values, family=family).analysis
    scores = {arm.arm: np.array(arm.scores) for arm in analysis.arms}
    order = [0, *(1 + rng.permutation(arms - 1)).tolist()]
    shuffled = of_runs(values[order][:, rng.permutation(n)], family=family).analysis
    again = {(f"a{order[int(c.arm[1:])]}", f"a{order[int(c.baseline[1:])]}"): c for c in shuffled.comparisons}
    faults = np.zeros(5, dtype=np.bool_)
    for c in analysis.comparisons:
        raw, adjusted, m = fixed(c).p_flip or 0.0, fixed(c).adjusted_p_flip or 0.0, len(analysis.comparisons)
        tested = c.verdict != "untestable"  # differences that all agree have p = 1 by decree
        faults |= (
            tested and abs(raw - by_scipy(scores[c.arm] - scores[c.baseline], ties=kind == "30 items")) > 1e-12,
            not raw or not all((p * 2 ** (n - 1)).is_integer() for p in (raw, adjusted)),
            adjusted < raw,
            m == 1 and raw != adjusted,
            not alike(c, again.get((c.arm, c.baseline)), again.get((c.baseline, c.arm))),
        )
    return tuple(faults.tolist())


def by_scipy(d: Array, *, ties: bool) -> float:
    """Ties of scores k/30 are made exact first: scipy takes them as they are in floats."""
    result = stats.permutation_test(
        (np.round(30 * d) if ties else d,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=2**d.size,
        vectorized=True,
    )
    return float(result.pvalue)


def alike(c: Comparison, same: Comparison | None, mirrored: Comparison | None) -> bool:
    """Whether a comparison agrees with the same pair's in another order of arms and seeds."""
    other = same or mirrored
    assert other is not None
    verdict = c.verdict if same else {"better": "worse", "worse": "better"}.get(c.verdict, c.verdict)
    pairs = [(fixed(c).p_t, fixed(other).p_t), (fixed(c).p_flip, fixed(other).p_flip), (c.adjusted_p, other.adjusted_p)]
    near = all(math.isclose(p or 0, q or 0, rel_tol=1e-9) for p, q in pairs)
    return near and verdict == other.verdict


EXACT = (
    never(9, "sign-flip p is not that of `scipy.stats.permutation_test` (1e-12)"),
    never(9, "p is no multiple of 2 / 2^n"),
    never(9, "max-T p is below the raw p"),
    never(9, "max-T p of one comparison is not the raw p"),
    never(9, "p or verdict changes with the order of arms or seeds"),
)


# failed runs


def random_statuses(arms: int, n: int, rng: np.random.Generator, status: str = "failed") -> Statuses:
    return {(int(a), int(s)): status for a, s in np.argwhere(rng.random((arms, n)) < 0.1)}


def failing(n: int, rng: np.random.Generator) -> tuple[bool, ...]:
    judgement = of_rows(rows_of(curves("normal", 2, n, rng), random_statuses(2, n, rng)))
    return claims(judgement.policies["worst"]), claims(judgement.policies["intersect"])


def deleted(rng: np.random.Generator) -> tuple[bool, ...]:
    """One run leaves the table: n is smaller by one, and the notes and counts say so."""
    n, a, s = int(rng.integers(6, 10)), int(rng.integers(3)), int(rng.integers(6))
    rows = [row for row in rows_of(curves("normal", 3, n, rng)) if (row["arm"], row["seed"]) != (f"a{a}", s)]
    judgement = of_rows(rows)
    notes = " ".join((*judgement.analysis.notes, *judgement.warnings))
    lost = {each.arm: each.lost for each in judgement.outcomes}
    noted = f"a{a} lacks seed {s}." in notes and f"a{a} has no run for seed {s}" in notes
    counted = lost == {f"a{k}": int(k == a) for k in range(3)}
    return ({c.effect.n for c in judgement.analysis.comparisons} != {n - 1} or not noted or not counted,)


def imputed(rng: np.random.Generator) -> tuple[bool, ...]:
    """One run fails, by its status or because all its values are nan; the floor of 0 is below its first evaluation."""
    n, a, s = int(rng.integers(5, 10)), int(rng.integers(2)), int(rng.integers(5))
    values = curves("normal", 2, n, rng)
    by_status = of_rows(rows_of(values, {(a, s): "failed"}))
    values[a, s] = math.nan
    by_value = of_rows(rows_of(values))
    entered = [
        (j.analysis.arms[a].n, j.analysis.arms[a].scores[s], j.outcomes[a].imputed) for j in (by_status, by_value)
    ]
    sizes = [
        {policy: c["a1 vs a0"]["n"] for policy, c in j.to_json()["failure_policies"].items()}
        for j in (by_status, by_value)
    ]
    named = any(f"a{a}, seed {s} counts as failed" in each for each in by_value.warnings)
    return entered != [(n, 0.0, 1)] * 2, sizes != [{"worst": n, "intersect": n - 1}] * 2, not named


def in_folders(rng: np.random.Generator) -> tuple[bool, ...]:
    """The same study as a folder of runs and as a table, some runs failed."""
    arms, n = int(rng.integers(2, 4)), int(rng.choice([3, 5, 8]))
    values, statuses = curves("normal", arms, n, rng), random_statuses(arms, n, rng)
    by_table = of_rows(rows_of(values, statuses))
    with tempfile.TemporaryDirectory() as folder:
        by_folder = of_folder(write_folder(Path(folder) / "study", values, statuses))
    same = [bare(j) for j in (by_folder, by_table)]
    return (same[0] != same[1],)


def bare(judgement: Judgement) -> object:
    """Verdicts and numbers without the metric's name."""
    plain = judgement.to_json()
    comparisons = [{k: v for k, v in c.items() if k != "sentence"} for c in plain["comparisons"]]
    return json.loads(json.dumps([comparisons, plain["failure_policies"], plain["outcomes"], plain["coupling"]]))


FAILING = (
    Row(10, f"{BETTER_OR_WORSE}, failed runs at their declared score", ALPHA, "more"),
    Row(10, f"{BETTER_OR_WORSE}, without the seeds of failed runs", ALPHA, "more"),
)


# predictions


def predicted(
    n: int, shifts: tuple[float, ...], relations: tuple[Relation, ...], margin: float, rng: np.random.Generator
) -> tuple[bool, ...]:
    """(supported, not supported, some prediction supported); arm k is predicted `relations[k]` a0; sd units."""
    predictions = tuple(
        Prediction(f"a{k}", relation, "a0", "accuracy", margin * SD) for k, relation in enumerate(relations, start=1)
    )
    values = curves("normal", len(shifts) + 1, n, rng, (0.0, *(SD * shift for shift in shifts)))
    claim = of_runs(values, predictions=predictions).claim
    assert claim is not None
    return (
        claim.outcome == "supported",
        claim.outcome == "not supported",
        any(each.outcome == "supported" for each in claim.assessments),
    )


def predictions(
    truth: str,
    n: int,
    shifts: tuple[float, ...],
    relations: tuple[Relation, ...],
    margin: float,
    counted: str,
    fast: int,
    slow: int,
) -> Simulation:
    place = (SUPPORTED, NOT_SUPPORTED, SOME).index(counted)
    study = partial(predicted, n, shifts, relations, margin)
    row = Row(12, counted, ALPHA, "more")
    return Simulation(f"{truth}, {n} seeds", each(lambda rng: (study(rng)[place],)), (row,), fast, slow)


SUPPORTED, NOT_SUPPORTED, SOME = "the claim is supported", "the claim is not supported", "some prediction is supported"
PREDICTIONS: tuple[tuple[str, int, tuple[float, ...], tuple[Relation, ...], float, str, int, int], ...] = (
    ("predicted: better; true: equal", 5, (0.0,), (">",), 0.1, SUPPORTED, 300, 10_000),
    ("predicted: better; true: equal", 8, (0.0,), (">",), 0.1, SUPPORTED, 0, 5000),
    ("predicted: three differences; true: all equal", 5, (0.0,) * 3, (">", "<", ">"), 0.1, SOME, 100, 5000),
    ("predicted: two better; true: one, by 10 sd", 5, (10.0, 0.0), (">", ">"), 0.1, SUPPORTED, 0, 5000),
    ("predicted: equivalent; true: apart by the margin", 5, (1.5,), ("=",), 1.5, SUPPORTED, 200, 10_000),
    ("predicted: two equivalent; true: both apart by the margin", 5, (1.5, -1.5), ("=", "="), 1.5, SOME, 0, 5000),
    (
        "predicted: one better, one equivalent; true: by 20 sd, and apart by the margin",
        5,
        (20.0, 4.0),
        (">", "="),
        4.0,
        SUPPORTED,
        100,
        5000,
    ),
    ("predicted: equivalent; true: equal", 5, (0.0,), ("=",), 0.5, NOT_SUPPORTED, 0, 5000),
    ("predicted: three equivalent; true: all equal", 5, (0.0,) * 3, ("=",) * 3, 0.5, NOT_SUPPORTED, 0, 5000),
    ("predicted: two better; true: both, by the margin", 5, (1.5, 1.5), (">", ">"), 1.5, NOT_SUPPORTED, 100, 5000),
)
OTHER: tuple[Simulation, ...] = (
    *(
        Simulation(
            f"sequences of 50 differences of two equal arms, {NAMES.get(kind, kind)}",
            partial(crossings, kind),
            (Row(8, "E reaches 1/α at any seed", ALPHA, "more"),),
            2000,
            20_000,
        )
        for kind in NULLS
    ),
    Simulation(
        "sequences of 50 differences with mean 0, exponential less 1",
        partial(crossings, "skewed"),
        (Row(8, "E reaches 1/α at any seed, as measured before: not symmetric", 0.107, width=0.007),),
        2000,
        20_000,
    ),
    Simulation(
        "sequences of 20 differences of two equal arms, normal",
        peeking,
        (Row(8, "a paired t test after every seed rejects at any, as documented", 0.23, width=0.005),),
        2000,
        20_000,
    ),
    Simulation(
        "20 normal differences",
        each(always_covers),
        (Row(8, "the anytime interval held the truth at every seed", 0.95, "less"),),
        500,
        20_000,
    ),
    Simulation(
        "sequences of 20 heavy-tailed differences",
        invariances,
        (never(8, "E changes with the unit of the scores"), never(8, "E changes when the arms are swapped")),
        2000,
        20_000,
    ),
    *(
        Simulation(
            f"race of two equal arms, {NAMES.get(kind, kind)}, at most 20 seeds",
            each(partial(race_of_two, kind)),
            RACE_OF_TWO,
            *((20, 2000) if kind == "normal" else (0, 1000)),
        )
        for kind in NULLS
    ),
    raced("baseline", (0, 0, 0, 0, 0), "five equal arms", 0, 500),
    raced("all", (0, 0, 0), "three equal arms", 15, 600),
    raced("all", (0, 0, 0, 0, 0), "five equal arms", 0, 400),
    raced("all", (0, 0, 0, 0, 3), "five arms, one 3 sd better", 0, 500),
    raced("baseline", (0, 0, 0, 0, -3), "five arms, one 3 sd worse", 0, 500),
    with_looks(((5, 0.01), (6, 0.015), (7, 0.025)), 200, 10_000),
    with_looks(((8, 0.01), (12, 0.015), (20, 0.025)), 0, 2000),
    Simulation("studies of 2 to 4 arms and 3 to 10 seeds, with ties half of the time", each(exact), EXACT, 50, 4000),
    *(
        Simulation(
            f"two equal arms whose runs fail one time in ten, {n} seeds, as a table",
            each(partial(failing, n)),
            FAILING,
            fast,
            slow,
        )
        for n, fast, slow in ((5, 300, 10_000), (8, 150, 10_000), (10, 0, 5000))
    ),
    Simulation(
        "tables that lack one run",
        each(deleted),
        (never(10, "n changes by more or less than one, or without a note and a count"),),
        50,
        2000,
    ),
    Simulation(
        "tables in which one run failed or has only nan",
        each(imputed),
        (
            never(10, "the failed run is not imputed and counted"),
            never(10, "a policy is missing from the JSON"),
            never(10, "a run of nan is not named as failed"),
        ),
        50,
        2000,
    ),
    Simulation(
        "folders of runs, one in ten failed, beside the same study as a table",
        each(in_folders),
        (never(10, "verdicts, p-values, intervals or counts differ"),),
        12,
        50,
    ),
    *(predictions(*given) for given in PREDICTIONS),
)
