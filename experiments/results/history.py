"""The declarations of a study: the one in force and, if it grew, those before it with the results known by then.

    "hash"         of the declaration in force and of the whole history before it
    "history"      oldest first: {"hash", "declaration", "command", "seen"}
    "seen"         by the time a declaration was superseded: {"when", "seeds", "finished", "verdicts"}

Every hash is of all that came before it, so that an edited history is noticed.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from core.store.integrity import checksum
from experiments.statistics.grown import Look

_CHANGES: Final = {
    "alpha": "the error rate was {0:g} and is {1:g}",
    "margin": "the margin was {0:g} and is {1:g}",
    "threshold": "the score to be reached was {0} and is {1}",
    "looks": "looks were {0} and are {1}",
}
"""Wording of a change, by setting."""


def chained(declaration: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Digest of a declaration and of the history before it; without one, of the declaration as it stands."""
    return checksum({"declaration": declaration, "history": list(history)}) if history else checksum(declaration)


def is_edited(record: Mapping[str, Any]) -> bool:
    """Whether a study's record was changed after it was written: some hash does not match.

    Raises ValueError where it is no record at all.
    """
    history = record.get("history", [])
    records = [*history, record] if isinstance(history, list) else []
    if not records or not all(isinstance(x, dict) and isinstance(x.get("declaration"), dict) for x in records):
        raise ValueError("a declaration is missing")
    return any("hash" in x and x["hash"] != chained(x["declaration"], history[:k]) for k, x in enumerate(records))


def looks_of(record: Mapping[str, Any]) -> tuple[Look, ...]:
    """The looks at a study before its present declaration."""
    return tuple(
        Look(
            int(entry["seen"]["seeds"]),
            len(entry["declaration"]["arms"]),
            float(entry["declaration"].get("alpha", 0.05)),
            int(entry["declaration"].get("reevaluate") or 0),
        )
        for entry in record.get("history", [])
    )


def notes_of(record: Mapping[str, Any]) -> list[str]:
    """How a study grew, a sentence for each declaration that was superseded."""
    history = [*record.get("history", []), record]
    return [_sentence(before, after["declaration"]) for before, after in pairwise(history)]


def _sentence(entry: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, seen = entry["declaration"], entry["seen"]
    runs = sum(len(seeds) for seeds in seen["finished"].values())
    verdicts = "; ".join(
        f"{v['arm']} vs {v['baseline']} {v['verdict']} ({v['mean_difference']:+.3g}, n = {v['n']})"
        for v in seen["verdicts"]
    )
    changes = [f"{len(before['seeds'])} seeds became {len(now['seeds'])}"] if before["seeds"] != now["seeds"] else []
    added = [arm for arm in now["arms"] if arm not in before["arms"]]
    if added:
        changes.append(f"{', '.join(added)} came in, and the family counts all {len(now['arms'])} arms")
    changes += [
        words.format(before[k], now[k]) for k, words in _CHANGES.items() if k in before and before[k] != now.get(k)
    ]
    earlier, later = before.get("reevaluate") or 0, now.get("reevaluate") or 0
    if earlier and later != earlier:
        changes.append(f"{earlier:,} further questions to the final models became {later:,}")
    elif later != earlier:
        changes.append(
            f"{_asked(now)} were asked {later:,} further questions, on which alone the verdict rests since then"
        )
    if before.get("claim") != now.get("claim"):
        changes.append("the predictions were declared then, with these results known")
    if now.get("race") or now.get("looks"):
        changes.append("the error rate is kept, as looking was declared before the first run")
    return (
        f"Grown on {seen['when'][:10]}, after {runs} runs ({verdicts or 'no verdict yet'}): {'; '.join(changes)}. "
        f"Hash of the declaration before: {entry['hash'][:16]}."
    )


def _asked(declaration: Mapping[str, Any]) -> str:
    models = declaration.get("reevaluate_models") or 1
    return "the final models" if models == 1 else f"the models of each run's last {models} evaluations"


def plain(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """A declaration as it is when read back from JSON."""
    parsed: dict[str, Any] = json.loads(json.dumps(declaration))
    return parsed
