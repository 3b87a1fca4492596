"""Studies as they lie on disk, with scores that are chosen, for the tests of the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.store.integrity import checksum
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics import Judgement

# d = .04, .06, .02: mean .04, sd .02, t = 2 √3, p = 1 - t / √(2 + t²) = .0742 at 2 degrees of freedom;
# half-width 4.3027 × .02 / √3 = .0497; g_z = 2 × Γ(1) / Γ(1/2) = 1.128
FINALS = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.58, 0.56]}
# looks after seeds 5, 4, 3 and after all six: dapo is d = .20, .21, .19 and settled at the first (sd .01, t at 98 % and
# 2 degrees of freedom 6.965, half-width .0402), then d = 0; rloo goes on. Means over the first three seeds: grpo .54
EARLY = {
    "grpo": [0.50, 0.51, 0.52, 0.53, 0.54, 0.55],
    "dapo": [0.50, 0.51, 0.52, 0.72, 0.75, 0.75],
    "rloo": [0.55, 0.46, 0.56, 0.49, 0.59, 0.50],
}
LOOKS: dict[str, Any] = {"looks": [[3, 0.02], [6, 0.03]], "seeds": [5, 4, 3, 2, 1, 0], "failures": "worst"}
STEPS = (0, 2, 4, 6)


def write_study(
    path: Path,
    finals: Mapping[str, Sequence[float]] = FINALS,
    *,
    entropy: bool = True,
    age: float | None = None,
    response: str = "1+2=3;3",
    unfinished: Sequence[tuple[str, int, str]] = (),
    seconds: bool = True,
    rollouts: bool = True,
    record: Mapping[str, Any] | None = None,
    **declared: Any,
) -> StoredStudy:
    """A study whose `final` scores are `finals`, by seed.

    `unfinished` names runs with the status they are left in; `lost` is a failure that the machine is to blame for.
    The second arm and those after it sample twice the tokens of the first.
    """
    seeds = list(range(max(map(len, finals.values()))))
    declaration = {
        "metric": "test/accuracy",
        "scalar": "final",
        "axis": "steps",
        "budget": 6,
        "baseline": next(iter(finals)),
        "family": "baseline",
        "alpha": 0.05,
        "margin": 0.01,
        "margin_declared": True,
        "failures": "intersect",
        "seeds": seeds,
        **declared,
    }
    cards = {
        arm: {"baseline": "group mean", "clip": "[0.2, 0.28]" if place else "[0.2, 0.2]"}
        for place, arm in enumerate(finals)
    }
    whole = {
        "name": path.name,
        "hash": checksum(declaration),
        "declaration": declaration,
        "command": "grpolab compare grpo dapo --seeds 3",
        "arms": {arm: {"bindings": [f"train.variant = @{arm}()"], "card": card} for arm, card in cards.items()},
        "base": {"description": "a small model"},
        **(record or {}),
    }
    path.mkdir(parents=True)
    (path / "study.json").write_text(json.dumps(whole))
    left = {(arm, seed): status for arm, seed, status in unfinished}
    for place, (arm, scores) in enumerate(finals.items()):
        for seed, final in enumerate(scores):
            folder = path / arm / f"seed={seed}"
            status = left.get((arm, seed), "finished")
            _write_manifest(folder, arm, seed, status)
            last = 6 if status == "finished" else 4
            tokens = 2000 if place else 1000
            rows: list[dict[str, Any]] = []
            for step in range(1, last + 1):
                rows.append({"step": step, "no_spread": 0.1 * step, "total_sampled_tokens": tokens * step})
                rows[-1] |= {"entropy": 1 / step} if entropy else {}
                rows[-1] |= {"age": age} if age is not None else {}
                rows[-1] |= {"seconds": {"sample": 1.0 + seed, "evaluate": 5.0}} if seconds else {}
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            for index, step in enumerate(STEPS):
                if step <= last:
                    accuracy = 0.3 if step == 0 else final + 0.01 * (index - 2)
                    write_evaluation(folder, step, tokens * step, accuracy, 8.0 + index, response, arm != "grpo")
            for step in (1, last) if rollouts else ():
                _write_rollout(folder, step, scale=1.0 + place, own=f"{arm} wrote" if step > 1 else ">4")
    return load_study(path)


def _write_manifest(folder: Path, arm: str, seed: int, status: str) -> None:
    (folder / "eval").mkdir(parents=True)
    (folder / "rollouts").mkdir()
    manifest = {
        "status": "failed" if status == "lost" else status,
        "failure": "infrastructure" if status == "lost" else None,
        "arm": arm,
        "seed": seed,
        "error": {"failed": "the loss was nan", "lost": "the disk is full"}.get(status),
        "versions": {"torch": "2.9.0"},
        "hardware": "a processor",
        "hashes": {"prompts": f"{seed}aaaaaaaaaaaa", "initial_weights": "bbbb", "first_rollout": f"rollout{seed}"},
        "gin": "train.steps = 6",
        "seconds": 12.0,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_evaluation(
    folder: Path, step: int, tokens: int, accuracy: float, length: float, response: str, correct: bool
) -> None:
    """One evaluation with one question."""
    sample = {"text": response, "correct": correct, "length": 7}
    question = {"index": 0, "prompt": "1+2=", "answer": "3", "samples": [sample, sample]}
    summary = {"accuracy": accuracy, "length": length, "length_correct": 9.0, "length_incorrect": None}
    evaluation = {
        "step": step,
        "split": "test",
        "total_sampled_tokens": tokens,
        "summary": summary,
        "questions": [question],
    }
    (folder / "eval" / f"step={step:06d}.json").write_text(json.dumps(evaluation))


def write_curves(path: Path, right: Mapping[str, Sequence[Sequence[int]]], **declared: Any) -> StoredStudy:
    """A study whose runs have so many right answers of 256 at steps 0, 2, 4, ..., by arm and seed.

    Greedily every second question is answered right, always.
    """
    steps = range(0, 2 * max(len(run) for runs in right.values() for run in runs), 2)
    study = write_study(
        path, {arm: [0.5] * len(runs) for arm, runs in right.items()}, budget=steps[-1], failures="worst", **declared
    )
    for arm, runs in right.items():
        for seed, run in enumerate(runs):
            for file in (study.path / arm / f"seed={seed}" / "eval").iterdir():
                file.unlink()
            for step, number in zip(steps, run, strict=True):
                flags = [place < number for place in range(256)]
                questions = [
                    {
                        "index": q,
                        "prompt": "1+2=",
                        "answer": "3",
                        "greedy": {"text": "3", "correct": q % 2 == 0},
                        "samples": [{"text": "3", "correct": flag, "length": 7} for flag in flags[2 * q : 2 * q + 2]],
                    }
                    for q in range(128)
                ]
                evaluation = {
                    "step": step,
                    "split": "test",
                    "total_sampled_tokens": 1000 * step,
                    "summary": {"accuracy": number / 256, "greedy_accuracy": 0.5, "length": 8.0},
                    "questions": questions,
                }
                file = study.path / arm / f"seed={seed}" / "eval" / f"step={step:06d}.json"
                file.write_text(json.dumps(evaluation))
    return load_study(path)


def _write_rollout(folder: Path, step: int, *, scale: float, own: str) -> None:
    """A group of three responses, two of them alike, whose advantages are the arm's own."""
    texts = (">3", own, ">3")
    responses = [
        {"text": text, "reward": float(text == ">3"), "advantage": scale * (0.5 if text == ">3" else -1.0)}
        for text in texts
    ]
    group = {"prompt": "1+2=", "answer": "3", "responses": responses}
    (folder / "rollouts" / f"step={step:06d}.json").write_text(json.dumps([group]))


def judge(study: StoredStudy) -> Judgement:
    """The study's judgement, which must be there."""
    judgement = study.judge()
    assert judgement is not None
    return judgement
