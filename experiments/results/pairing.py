"""What the hashes in manifests say of the pairing: they answer what scores alone can only ask."""

from collections.abc import Sequence
from typing import Final

from experiments.results.stored_run import StoredRun
from experiments.statistics import Comparison
from experiments.statistics.wording import ARMS_DIFFER, SEED_APPLIED, SHARE_SEEDS

PAIRED_BY: Final = {"prompts": "prompts", "initial_weights": "initial weights", "first_rollout": "first rollouts"}
"""Hashes of a manifest that two runs of a seed share unless their arms vary what they come from."""


def answered(note: str, comparisons: Sequence[Comparison], runs: Sequence[StoredRun]) -> str:
    """A sentence on two arms with its question answered, as far as the manifests of their finished runs can."""
    for each in comparisons:
        if note.startswith((f"{each.arm} vs {each.baseline}: ", f"{each.arm} vs {each.baseline} on ")):
            ours, theirs = (
                {run.seed: run for run in runs if run.arm == arm and run.finished} for arm in (each.arm, each.baseline)
            )
            pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
            for question, answer in (
                (SHARE_SEEDS, _shared(pairs)),
                (SEED_APPLIED, _applied(list(ours.values()))),
                (ARMS_DIFFER, _differ(pairs)),
            ):
                note = note.replace(question, answer or question)
    return note if note.endswith((".", "?")) else f"{note}."


def _shared(pairs: Sequence[tuple[StoredRun, StoredRun]]) -> str:
    if not _known([run for pair in pairs for run in pair], *PAIRED_BY):
        return ""
    unlike = [words for key, words in PAIRED_BY.items() if any(a.hash(key) != b.hash(key) for a, b in pairs)]
    if unlike:
        return f"the two arms do not share their {' and '.join(unlike)}"
    return f"yet they do share {', '.join(PAIRED_BY.values())} seed by seed, by their hashes"


def _applied(runs: Sequence[StoredRun]) -> str:
    if not _known(runs, "prompts") or len(runs) < 2:
        return ""
    if len({run.hash("prompts") for run in runs}) == 1:
        return "the seed is not applied, for all seeds had the same prompts"
    return "the seed is applied, for prompts differ from seed to seed"


def _differ(pairs: Sequence[tuple[StoredRun, StoredRun]]) -> str:
    if not _known([run for pair in pairs for run in pair], "final_weights"):
        return ""
    if all(a.hash("final_weights") == b.hash("final_weights") for a, b in pairs):
        return "the two arms do the same, for their trained weights are the same"
    return "the two arms differ in their trained weights all the same"


def _known(runs: Sequence[StoredRun], *keys: str) -> bool:
    return bool(runs) and all(run.hash(key) for run in runs for key in keys)
