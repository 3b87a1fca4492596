"""Whether runs of one seed are a pair, by the hashes in their manifests, which answer what scores leave open."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from experiments.results.stored_run import StoredRun, StudyError
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


def unlike_runs(runs: Sequence[StoredRun], baseline: str, key: str) -> dict[str, list[int]]:
    """Where the manifests' hash of `key` differs from the baseline's at the same seed: `{arm: seeds}`."""
    reference = {run.seed: run for run in runs if run.arm == baseline}
    unlike: dict[str, list[int]] = {}
    for run in runs:
        if run.seed in reference and not _alike(run, reference[run.seed], key):
            unlike.setdefault(run.arm, []).append(run.seed)
    return unlike


def pairing_notes(runs: Sequence[StoredRun], baseline: str, varies: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on arms that are unlike the baseline; `varies` is by arm the hashes that it changes by intent.

    Raises StudyError for runs that are no pair, where nothing accounts for it.
    """
    return [
        _note_unlike(runs, (arm, baseline), seeds, key, key in varies[arm])
        for key in PAIRED_BY
        for arm, seeds in unlike_runs(runs, baseline, key).items()
    ]


def _note_unlike(runs: Sequence[StoredRun], pair: tuple[str, str], seeds: Sequence[int], key: str, meant: bool) -> str:
    (arm, baseline), words, where = pair, PAIRED_BY[key], ", ".join(map(str, seeds))
    if meant:
        return (
            f"{arm} varies what its {words} come from, so at seed {where} they differ from {baseline}'s; "
            "how much pairing by seed still buys is the correlation of the two arms."
        )
    ours, theirs = (next(run for run in runs if (run.arm, run.seed) == (label, seeds[0])) for label in pair)
    if key == "first_rollout" and ours.manifest.get("hardware") != theirs.manifest.get("hardware"):
        return f"{arm} and {baseline} ran on different hardware at seed {where}: their {words} differ."
    raise StudyError(
        f"{arm} and {baseline} are no pair at seed {where}: their {words} differ, and nothing that the arm "
        f"varies accounts for it; remove {ours.path} and run this seed again"
    )


def _alike(run: StoredRun, other: StoredRun, key: str) -> bool:
    """Whether two runs share what a hash of their manifests is of, as far as both have come; True while unknown."""
    ours, theirs = run.hash(key), other.hash(key)
    if key == "prompts" and run.steps != other.steps:  # on a token budget runs end at different steps
        last = min(run.steps, other.steps)
        ours, theirs = (
            next((str(row.get("prompts_hash", "")) for row in each.metrics if row["step"] == last), "")
            for each in (run, other)
        )
    return not ours or not theirs or ours == theirs


def refuse_other_data(runs: Sequence[StoredRun], declared: Mapping[str, Any]) -> None:
    """StudyError where two runs judged one question by different answers, or a run has other data than declared."""
    remedy = "remove its folder and run this seed again"
    splits = sorted({evaluation["split"] for run in runs for evaluation in run.evals})
    seen: dict[tuple[str, int, str], tuple[StoredRun, object]] = {}
    for run in runs:
        data = declared.get(run.arm)
        recorded = (run.manifest.get("identity") or {}).get("questions and answers")
        if data and recorded and data != recorded:
            raise StudyError(
                f"{run.path}: this run had other questions or answers than the study was declared with: the file "
                f"behind its task has changed; restore the file, {remedy}"
            )
        for split in splits:
            for place, question in enumerate(run.questions(split)):
                prompt, answer = json.dumps(question.get("prompt")), question.get("answer")
                other, theirs = seen.setdefault((split, place, prompt), (run, answer))
                if answer != theirs:
                    raise StudyError(
                        f"{run.path}: judged question {place} of '{split}' by the answer {answer!r:.40}, and "
                        f"{other.path} by {theirs!r:.40}; keep the right answer, {remedy}"
                    )


def _shared(pairs: Sequence[tuple[StoredRun, StoredRun]]) -> str:
    if not _have_hashes([run for pair in pairs for run in pair], *PAIRED_BY):
        return ""
    unlike = [words for key, words in PAIRED_BY.items() if any(a.hash(key) != b.hash(key) for a, b in pairs)]
    if unlike:
        return f"the two arms do not share their {' and '.join(unlike)}"
    return f"yet they do share {', '.join(PAIRED_BY.values())} seed by seed, by their hashes"


def _applied(runs: Sequence[StoredRun]) -> str:
    if not _have_hashes(runs, "prompts") or len(runs) < 2:
        return ""
    if len({run.hash("prompts") for run in runs}) == 1:
        return "the seed is not applied, for all seeds had the same prompts"
    return "the seed is applied, for prompts differ from seed to seed"


def _differ(pairs: Sequence[tuple[StoredRun, StoredRun]]) -> str:
    if not _have_hashes([run for pair in pairs for run in pair], "final_weights"):
        return ""
    if all(a.hash("final_weights") == b.hash("final_weights") for a, b in pairs):
        return "the two arms do the same, for their trained weights are the same"
    return "the two arms differ in their trained weights all the same"


def _have_hashes(runs: Sequence[StoredRun], *keys: str) -> bool:
    return bool(runs) and all(run.hash(key) for run in runs for key in keys)
