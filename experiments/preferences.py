"""`grpolab preferences`: pairs of responses of the configured policy, labelled by an annotator of known accuracy.

A file of pairs has a JSON object per line with `prompt`, `chosen` and `rejected`, as text or chat messages, and may
have a `margin`. Ours have in addition `answer`, `gold_chosen` and `gold_rejected`, what the task's own reward gives
them, and `flipped`, whether the annotator was wrong.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import track

import core.registry as registry
from core.errors import GrpoLabError
from core.policy import load_policy
from core.problems import Messages
from core.randomness import fold, key, uniform
from core.recipe import Recipe
from core.rollout import Draw, Run, sample
from core.scoring import score, start
from core.store import write_text
from core.tasks.files import read_rows
from experiments.study import CONFIGS, build, find_config


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, of which an annotator prefers the first."""

    prompt: str | Messages
    chosen: str
    rejected: str
    margin: float | None = None
    """By how much, where the annotator said so."""
    gold: tuple[float, float] | None = None
    """What a reward that is never wrong gives the two, where it is known."""


def run_preferences(options: argparse.Namespace) -> int:
    """`grpolab preferences`."""
    if options.prompts < 1 or options.samples < 2:
        raise GrpoLabError("--prompts must be at least 1, and --samples at least 2: a pair is made of two responses")
    if not 0 <= options.annotator_accuracy <= 1:
        raise GrpoLabError(f"--annotator-accuracy {options.annotator_accuracy}: must be a share between 0 and 1")
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
    out = Path(options.out)
    lines = make_pairs(
        recipe, prompts=options.prompts, samples=options.samples, accuracy=options.annotator_accuracy, seed=options.seed
    )
    if not lines:
        raise GrpoLabError(f"in none of the {options.prompts} groups one response was better than another: no pair")
    write_text(out, "".join(json.dumps(line) + "\n" for line in lines))
    equal, flipped = options.prompts - len(lines), sum(line["flipped"] for line in lines)
    print(f"{out}: {len(lines)} pairs, {flipped} of them labelled wrongly; {equal} of {options.prompts} groups were "
          f"left out because all responses were equally good")  # fmt: skip
    return 0


def make_pairs(recipe: Recipe, *, prompts: int, samples: int, accuracy: float, seed: int) -> list[dict[str, Any]]:
    """Best against worst of each group by the recipe's first reward; groups without a best and a worst are left out.

    The annotator is wrong about a pair with probability 1 - `accuracy`, whatever the pair; the pairs that an
    annotator is wrong about are among those of any less accurate one.
    """
    torch.set_num_threads(recipe.threads)
    gold = recipe.rewards[:1]
    start(gold)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    run = Run(recipe, seed, load_policy(recipe.policy, accelerator.device))
    stream, wrong = key(seed, "preferences", 0), torch.tensor(key(seed, "preferences", 1))
    lines = []
    for first in track(range(0, prompts, recipe.prompts), "sampling"):
        last = min(first + recipe.prompts, prompts)
        problems = [recipe.task.problem("train", stream, i) for i in range(first, last)]
        texts = sample(run, problems, Draw(samples, key(seed, "preferences", 2, first))).texts
        scores = score(gold, problems, texts)
        if scores.failure:
            raise GrpoLabError(f"a response cannot be graded: {scores.failure}")
        draws = uniform(fold(wrong, torch.arange(first, last))).tolist()
        for problem, group, values, draw in zip(problems, texts, scores.parts[..., 0].tolist(), draws, strict=True):
            best, worst = (values.index(extreme(values)) for extreme in (max, min))
            if values[best] == values[worst]:
                continue
            flipped = draw >= accuracy
            chosen, rejected = (worst, best) if flipped else (best, worst)
            lines.append({
                "prompt": problem.prompt, "chosen": group[chosen], "rejected": group[rejected],
                "answer": problem.answer, "gold_chosen": values[chosen], "gold_rejected": values[rejected],
                "flipped": flipped,
            })  # fmt: skip
    return lines


def read_pairs(source: str) -> list[Pair]:
    """Pairs from a .jsonl or .parquet file or `datasets:ID`; raises on the first row that is none, saying where."""
    pairs = [_pair(place, row) for place, row in read_rows(source)]
    if len({pair.margin is None for pair in pairs}) > 1:
        raise GrpoLabError(f"{source}: some pairs have a margin and some have none; give all of them one, or none")
    return pairs


def _pair(place: str, row: Mapping[str, Any]) -> Pair:
    prompt: Any = row.get("prompt")
    chosen: Any = row.get("chosen")
    rejected: Any = row.get("rejected")
    if _are_messages(chosen) and _are_messages(rejected) and len(chosen) > 1:
        # whole conversations, which differ in the last message; what the prompt says is in them
        prompt, other, chosen, rejected = chosen[:-1], rejected[:-1], chosen[-1:], rejected[-1:]
        if prompt != other:
            raise GrpoLabError(f"{place}: the conversations `chosen` and `rejected` differ before their last message: "
                               "both responses must be to the same prompt")  # fmt: skip
    texts: list[Any] = [x[0]["content"] if _are_messages(x) and len(x) == 1 else x for x in (chosen, rejected)]
    if not (isinstance(prompt, str) or _are_messages(prompt)) or not all(isinstance(text, str) for text in texts):
        raise GrpoLabError(f"{place} is no pair: `prompt`, `chosen` and `rejected` must be texts, or lists of chat "
                           "messages, one message for each response")  # fmt: skip
    numbers: list[Any] = [row.get(name) for name in ("margin", "gold_chosen", "gold_rejected")]
    if not all(value is None or isinstance(value, int | float) for value in numbers):
        raise GrpoLabError(f"{place}: `margin`, `gold_chosen` and `gold_rejected` must be numbers, not {numbers}")
    margin, *gold = numbers
    return Pair(prompt, texts[0], texts[1], margin, None if None in gold else (float(gold[0]), float(gold[1])))


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in value)
    )
