"""What tuning declares and its result: rates in, the best rate of every arm out.

tune.rates = [1e-4, 3e-4, 1e-3]                     # what `grpolab tune` tries, the same for every arm
compare.tuned = 'runs/study-tune/tuned.json'        # what `grpolab compare` and `ablate` then take
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core import GrpoLabError, setting
from core.errors import near
from core.parts.registry import REQUIRED
from core.parts.settings import POSITIVE, SettingError
from core.store.files import read_json

FIRST_SEED: Final = 1000
"""Seeds of tuning begin here, and those of a comparison that takes what was tuned end before."""
PARAMETER: Final = "adamw.learning_rate"


@setting(limits={"rates": POSITIVE})
def tune(*, rates: Sequence[float] = REQUIRED) -> tuple[float, ...]:
    """The learning rates that every arm is tried at, in ascending order; two or more different positive numbers."""
    if len(set(rates)) != len(rates) or len(rates) < 2:
        raise SettingError("tune.rates", list(rates), "two or more different numbers, e.g. [1e-4, 3e-4]")
    return tuple(sorted(map(float, rates)))


def tuning_seeds(seeds: Sequence[int], text: str) -> tuple[int, ...]:
    """`--seeds N` as N seeds from FIRST_SEED up; a list stands as it is and may hold none below."""
    if "," not in text:
        return tuple(FIRST_SEED + seed for seed in seeds)
    if min(seeds) < FIRST_SEED:
        raise GrpoLabError(
            f"--seeds {text}: seeds of tuning start at {FIRST_SEED}, so that no comparison has them; give their number"
        )
    return tuple(seeds)


def sensitivity(
    scores: Mapping[str, Mapping[int, float]], runs: Mapping[str, Mapping[float, str]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Best rate and whole table by arm, from `scores[run][seed]` and `runs[arm][rate]`, the label of the run.

    Every run has a score at every seed, a failed one its declared score. The best rate has the highest mean over
    `seeds`, the lower rate among equals. `at_the_edge` lists arms whose best rate is the lowest or highest tried.
    """
    table: dict[str, dict[str, Any]] = {}
    best: dict[str, float] = {}
    for arm, by_rate in runs.items():
        scores_by_rate = {
            rate: {str(seed): scores[label][seed] for seed in seeds} for rate, label in sorted(by_rate.items())
        }
        means = {rate: statistics.fmean(row.values()) for rate, row in scores_by_rate.items()}
        table[arm] = {repr(rate): {"mean": means[rate], "scores": row} for rate, row in scores_by_rate.items()}
        best[arm] = max(means, key=lambda rate: means[rate])
    edges = [arm for arm, rate in best.items() if rate in (min(runs[arm]), max(runs[arm]))]
    return {"best": best, "at_the_edge": edges, "table": table}


def tuned_rates(
    path: str, arms: Mapping[str, tuple[str, ...]], config: Sequence[str], seeds: Sequence[int]
) -> dict[str, float]:
    """The tuned rate of every arm; GrpoLabError unless these very arms were tuned, in this recipe, on other seeds."""
    if not Path(path).is_file():
        raise GrpoLabError(f"compare.tuned = {path!r}: there is no such file; grpolab tune writes it")
    record = read_json(Path(path))
    missing = [key for key in ("best", "arms", "config", "seeds") if key not in record]
    if missing:
        raise GrpoLabError(
            f"compare.tuned = {path!r} has no '{missing[0]}': it is not a tuned.json; grpolab tune writes it"
        )
    shared = sorted(set(seeds) & set(record["seeds"]))
    if shared:
        raise GrpoLabError(
            f"compare.tuned = {path!r} was tuned on seed {shared[0]} too: on the seeds that "
            f"selected the rates the verdict is biased; give --seeds below {FIRST_SEED}"
        )
    other = next((line for line in sorted(set(config) ^ set(record["config"]))), None)
    if other is not None:
        raise GrpoLabError(
            f"compare.tuned = {path!r} is of another recipe (the line '{other}' is in one of them only): run grpolab "
            "tune again with this one"
        )
    for label, bindings in arms.items():
        if label not in record["best"]:
            raise GrpoLabError(f"compare.tuned = {path!r} has no arm '{label}': {near(label, record['best'])}")
        if list(bindings) != record["arms"].get(label):
            raise GrpoLabError(
                f"compare.tuned = {path!r}: arm '{label}' has other bindings than when it was tuned "
                f"({'; '.join(record['arms'].get(label, ())) or 'nothing'}); run grpolab tune again"
            )
    return {label: float(record["best"][label]) for label in arms}
