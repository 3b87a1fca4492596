"""How a study grows: what a new declaration may change of the one before, and the results known by then.

More seeds after those that there are, more arms, further questions to the final models, another error rate, margin,
threshold or prediction. What existing runs did may not change.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import core.parts.registry as registry
from core import GrpoLabError
from experiments.results.history import chained, plain
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import load_study
from experiments.study.identity import in_use, operative, parts_of
from experiments.study.settings import Arm
from experiments.study.study import Study

GROWS: Final = frozenset(
    {"seeds", "arms", "alpha", "margin", "margin_declared", "threshold", "claim", "looks"}
    | {"reevaluate", "reevaluate_models"}
)
"""What a new declaration may change; `config`, `data` and `ablation` as far as no arm that exists is changed by it."""
_CHECKED: Final = frozenset({"config", "data", "ablation"})
_ASKED: Final = ("evaluation.questions ", "evaluation.samples ", "evaluation.final_samples ")
"""Bindings of how many answers the evaluations of a run have."""


def check_growth(study: Study, before: Mapping[str, Any]) -> None:
    """Raise `GrpoLabError` where a study cannot grow from the declaration `before`, with the reason."""
    now = plain({"data": {}, **study.declaration})
    if missing := [name for name in ("arms", "config", "seeds") if name not in before]:
        raise GrpoLabError(f"its declaration, of an earlier version, does not say its {missing[0]}")
    fixed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k) and k not in GROWS | _CHECKED)
    if fixed:
        name = fixed[0]
        raise GrpoLabError(
            f"{name} was {before.get(name)!r} and would be {now.get(name)!r}: results were seen under the former. "
            "A study can only grow in seeds, arms, further questions (compare.reevaluate), alpha, margin, threshold, "
            "looks and predictions"
        )
    if now["seeds"][: len(before["seeds"])] != before["seeds"]:
        raise GrpoLabError(f"the seeds {before['seeds']} are declared: more can be added at the end, and none removed")
    if removed := [arm for arm in before["arms"] if arm not in now["arms"]]:
        raise GrpoLabError(f"arm '{removed[0]}' is declared and would be missing: a declared arm cannot be removed")
    if before.get("looks") != now["looks"] and now["looks"][: len(before.get("looks") or [])] != before.get("looks"):
        raise GrpoLabError(f"the looks {before['looks']} are declared: more can be added at the end")
    if now["looks"] and not before.get("looks"):
        raise GrpoLabError(
            "looks must be declared before the first run: the results of this study have been seen without them"
        )
    further, declared = now.get("reevaluate") or 0, before.get("reevaluate") or 0
    if further < declared:
        raise GrpoLabError(
            f"{declared} further questions are declared (compare.reevaluate): their answers are part of the verdict, "
            "so the number can only grow"
        )
    models, were = (each.get("reevaluate_models") or 1 for each in (now, before))
    if declared and models != were:
        raise GrpoLabError(
            f"{were} of each run's models were asked further questions (compare.reevaluate_models), and their answers "
            f"seen: {models} cannot be asked now"
        )
    for label in before["arms"]:
        if (was := before.get("data", {}).get(label)) and was != now.get("data", {}).get(label):
            raise GrpoLabError(f"the questions and answers of arm '{label}' have changed since it was declared")
        _check_arm(study, label, before)


def _check_arm(study: Study, label: str, before: Mapping[str, Any]) -> None:
    """Raise where an arm would not run as it was declared."""
    arm = next(arm for arm in study.settings.arms if arm.label == label)
    text = operative("".join(f"{line}\n" for line in before["config"]), Arm(label, tuple(before["arms"][label])))
    with registry.config(text=study.config, bindings=arm.bindings):
        now, parts = registry.config_text(), parts_of(study.recipes[label])
    was, is_now = (in_use(config, parts) for config in (text, now))
    if was != is_now:
        why = ""
        if all(line.startswith(_ASKED) for line in set(was) ^ set(is_now)):
            why = (
                ". A run's score is the mean of its last evaluations, and only its final model is kept. To ask "
                "it further questions and let the verdict rest on them: compare.reevaluate = 512 with --grow"
            )
        lost, new = ("; ".join(sorted(set(x) - set(y))) or "nothing" for x, y in ((was, is_now), (is_now, was)))
        raise GrpoLabError(
            f"arm '{label}' would run differently (was {lost}, is {new}): give the changed settings to a new arm{why}"
        )


def results_so_far(folder: Path) -> dict[str, Any]:
    """The results of a study when it is declared anew: whole rows of seeds, finished runs, and verdicts."""
    study = load_study(folder)
    try:
        judgement = study.judge()
    except StudyError as error:
        raise StudyError(f"{folder} cannot grow before it can be judged: {error}") from error
    scores = study.scores()
    rows = takewhile(lambda seed: all(seed in scores[arm] for arm in study.arms), study.seeds)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": len(list(rows)),
        "finished": {arm: [r.seed for r in study.runs if r.arm == arm and r.finished] for arm in study.arms},
        "verdicts": [
            {
                "arm": c.arm,
                "baseline": c.baseline,
                "n": c.effect.n,
                "verdict": c.verdict,
                "mean_difference": c.effect.mean_difference,
                "adjusted_p": c.adjusted_p,
            }
            for c in (judgement.analysis.comparisons if judgement else ())
        ],
    }


def superseded(record: Mapping[str, Any], folder: Path) -> list[Mapping[str, Any]]:
    """The history of a study, its present declaration now the last entry."""
    history = record.get("history", [])
    return [
        *history,
        {
            "hash": record.get("hash") or chained(record["declaration"], history),
            "declaration": record["declaration"],
            "command": record.get("command", ""),
            "seen": results_so_far(folder),
        },
    ]
