"""`grpolab preferences`: pairs of the policy's responses, labelled by a simulated annotator of known accuracy.

Besides the fields of every file of pairs (`core.environments.datasets.pairs`), a line has `gold_chosen` and
`gold_rejected`, the task's own rewards, and `flipped`, whether the annotator was wrong; and the `answer` where that
reward needs no more.
"""

import argparse
import json
from typing import Any, Final

import torch
from rich.progress import track

import core.parts.registry as registry
from core.distributed import init
from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.loop.rollout import (
    Draw,
    sample,
)
from core.loop.run_state import RunState
from core.loop.scoring import score, start
from core.model.policy import load_policy
from core.parts.problems import Problem
from core.randomness import fold, key, stream, uniform
from core.store.files import write_text
from experiments.options import file_to_write
from experiments.study.configs import (
    CONFIGS,
    build,
    find_config,
)

PREFERENCES: Final = stream("preferences")
PROMPTS: Final = PREFERENCES.part(0)
ANNOTATOR: Final = PREFERENCES.part(1)
"""Which pairs are labelled wrongly."""
SAMPLING: Final = PREFERENCES.part(2)


def run_preferences(options: argparse.Namespace) -> int:
    """`grpolab preferences`."""
    out = file_to_write(options.out)
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
    lines = make_pairs(
        recipe, prompts=options.prompts, samples=options.samples, accuracy=options.annotator_accuracy, seed=options.seed
    )
    if not lines:
        raise GrpoLabError(f"in none of the {options.prompts} groups one response was better than another: no pair")
    write_text(out, "".join(json.dumps(line) + "\n" for line in lines))
    equal, flipped = options.prompts - len(lines), sum(line["flipped"] for line in lines)
    print(
        f"{out}: {len(lines)} pairs, {flipped} of them labelled wrongly; {equal} of {options.prompts} groups were "
        f"left out because all responses were equally good"
    )
    return 0


def make_pairs(recipe: Recipe, *, prompts: int, samples: int, accuracy: float, seed: int) -> list[dict[str, Any]]:
    """Best against worst of each group by the recipe's first reward; groups without a best and a worst are left out.

    The annotator is wrong about a pair with probability 1 - `accuracy`, whatever the pair; the pairs that an
    annotator is wrong about are among those of any less accurate one.
    """
    if recipe.environment is not None:
        raise GrpoLabError(
            f"a pair is of two responses in one turn, and train.task is played with the environment "
            f"'{recipe.environment.name}': give a task without one"
        )
    torch.set_num_threads(recipe.threads)
    gold = recipe.rewards[:1]
    start(gold, recipe.task)
    accelerator = init()
    run = RunState(recipe, seed, load_policy(recipe.policy, accelerator.device))
    prompt_key, annotator_key = key(seed, PROMPTS), torch.tensor(key(seed, ANNOTATOR))
    lines: list[dict[str, Any]] = []
    by_answer: bool | None = None
    for first in track(range(0, prompts, recipe.prompts), "sampling"):
        last = min(first + recipe.prompts, prompts)
        problems = [recipe.task.problem("train", prompt_key, i) for i in range(first, last)]
        texts = sample(run, problems, Draw(samples, key(seed, SAMPLING, first))).texts
        scores = score(gold, problems, texts)
        if scores.failure:
            raise GrpoLabError(f"a response cannot be graded: {scores.failure}")
        draws = uniform(fold(annotator_key, torch.arange(first, last))).tolist()
        for problem, group, values, draw in zip(problems, texts, scores.parts[..., 0].tolist(), draws, strict=True):
            best, worst = (values.index(extreme(values)) for extreme in (max, min))
            if values[best] == values[worst]:
                continue
            if by_answer is None:  # read from a file, a problem has only prompt and answer
                by_answer = not score(gold, [Problem(problem.prompt, problem.answer, 0)], [group]).failed
            flipped = draw >= accuracy
            chosen, rejected = (worst, best) if flipped else (best, worst)
            lines.append(
                {
                    "prompt": problem.prompt,
                    "chosen": group[chosen],
                    "rejected": group[rejected],
                    **({"answer": problem.answer} if by_answer else {}),
                    "gold_chosen": values[chosen],
                    "gold_rejected": values[rejected],
                    "flipped": flipped,
                }
            )
    return lines
