"""Columns under other names: which one of a table seems to be the arm, the seed, the step or the value.

A guess is never acted on. It is a question in the error of a table that lacks a column.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from experiments.results.tables.sheets import Sheet

NEEDED: Final = ("arm", "seed", "step", "value")
"""Of a tidy table."""
SCORES: Final = ("arm", "seed", "score")
"""Of a table with one score a run."""
_VALUES: Final = (
    *("accuracy", "acc", "reward", "return", "score", "value", "result", "performance", "success", "success_rate"),
    *("pass_1", "pass_at_1", "exact_match", "em", "f1", "win_rate", "loss", "metric_value", "mean"),
)
OTHERS_SAY: Final[Mapping[str, tuple[str, ...]]] = {
    "arm": (
        *("method", "variant", "algorithm", "algo", "approach", "condition", "treatment", "estimator", "agent"),
        *("policy", "trainer", "experiment", "exp", "config", "setting", "group", "model", "name", "label"),
    ),
    "seed": ("run", "run_id", "random_seed", "rng_seed", "replicate", "replication", "rep", "repeat", "trial", "fold"),
    "step": (
        *("global_step", "training_step", "train_step", "iteration", "iter", "update", "epoch", "episode"),
        *("timestep", "time_step", "rollout"),
    ),
    "value": _VALUES,
    "score": _VALUES,
}
"""By column: what it is called elsewhere, the likeliest first."""
_SPLITS: Final = re.compile(r"^(eval|test|val|validation|train|mean|avg|final)_")


def without_columns(sheet: Sheet) -> str:
    """The message for a table that lacks columns: for each, the one that it seems to be, and what to name it."""
    columns = {column.lower() for column in sheet.header}
    has_steps = {"step", "value"} & columns or likely(sheet, "step", {*columns} & {*NEEDED, *SCORES})
    taken, said = columns & {*NEEDED, *SCORES}, []
    for name in NEEDED if has_steps else SCORES:
        if name in columns:
            continue
        guess = likely(sheet, name, taken if name != "value" else taken - {"score"})
        if guess is None:
            said.append(f"no column {name!r}{_REMEDIES.get(name, '')}")
        else:
            taken.add(guess.lower())
            said.append(f"no column {name!r}: did you mean {guess!r}? then rename it to {name!r}")
    layouts = (
        f". A table has the columns {', '.join(NEEDED)}; a table of scores {', '.join(SCORES)}; TensorBoard's exports "
        "Wall time, Step, Value; W&B's Step and 'run - metric'"
    )
    all_seem_there = all("did you mean" in each for each in said)
    return f"{sheet.source}, header: {'; '.join(said)}{'' if all_seem_there else layouts}"


_REMEDIES: Final[Mapping[str, str]] = {
    "step": ": where there is one score a run, name its column 'score'",
    "value": ": rename the column that holds the numbers, and name the metric in a column 'metric'",
    "score": ": rename the column that holds the numbers",
}


def is_curve(sheet: Sheet) -> bool:
    """Whether a table of scores has several a run, and a column that seems to be the step."""
    at = [place for name in ("arm", "seed", "metric") if (place := sheet.column(name)) is not None]
    runs = [tuple(cells[place] for place in at) for _, cells in sheet.rows]
    return len(set(runs)) < len(runs) and likely(sheet, "step", {*SCORES}) is not None


def likely(sheet: Sheet, name: str, taken: set[str]) -> str | None:
    """The column that seems to be `name`: by what others call it, or by its spelling; all but arms hold numbers."""
    free = {
        _plain(column): column
        for place, column in enumerate(sheet.header)
        if column.lower() not in taken and (name == "arm" or _holds_numbers(sheet, place, whole=name == "seed"))
    }
    by_word = next((free[word] for word in OTHERS_SAY[name] if word in free), None)
    close = get_close_matches(name, free, n=1, cutoff=0.6)
    return by_word or (free[close[0]] if close else None)


def _plain(column: str) -> str:
    """`eval/Accuracy` as `accuracy`, `Methods` as `method`."""
    words = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    words = _SPLITS.sub("", words) if words not in OTHERS_SAY["step"] else words
    return words.removesuffix("s") if words not in ("loss", "success") else words


def _holds_numbers(sheet: Sheet, place: int, *, whole: bool) -> bool:
    try:
        numbers = [float(cells[place]) for _, cells in sheet.rows if cells[place]]
    except ValueError:
        return False
    return not whole or all(number.is_integer() for number in numbers)
