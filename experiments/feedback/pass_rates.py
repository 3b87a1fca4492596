"""`grpolab pass-rates`: how often the model passes each training question before training."""

import argparse
import json
from pathlib import Path
from typing import Final

from rich.progress import track

import core.parts.registry as registry
from core.distributed import init
from core.environments.tasks.files import Files
from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.loop.rollout import (
    Draw,
    grade,
    sample,
)
from core.loop.run_state import RunState
from core.model.policy import load_policy
from core.randomness import key, stream
from core.store.files import write_text
from experiments.options import file_to_write
from experiments.study.configs import (
    CONFIGS,
    build,
    find_config,
)

PASS_RATES: Final = stream("pass_rates")


def run_pass_rates(options: argparse.Namespace) -> int:
    """`grpolab pass-rates`."""
    out = file_to_write(options.out)
    with registry.config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
    measure(recipe, out, samples=options.samples, seed=options.seed)
    print(f'{out}; use it with -b "files.pass_rates = {str(out)!r}" -b "files.between = (0.1, 0.9)"')
    return 0


def measure(recipe: Recipe, out: Path, *, samples: int, seed: int) -> None:
    """Sample every training question at the training temperature; writes a question and its pass rate per line."""
    task = recipe.task
    if not isinstance(task, Files):
        raise GrpoLabError("pass-rates needs a finite set of questions, from files: bind train.task = @files()")
    accelerator = init()
    run = RunState(recipe, seed, load_policy(recipe.policy, accelerator.device))
    lines = []
    # one epoch of a stream meets every question once
    for first in track(range(0, len(task.questions["train"]), recipe.prompts), "measuring"):
        last = min(first + recipe.prompts, len(task.questions["train"]))
        problems = [task.problem("train", seed, i) for i in range(first, last)]
        drawn = sample(run, problems, Draw(samples, key(seed, PASS_RATES, first)))
        scores = grade(recipe.rewards[:1], drawn)
        if scores.failure:
            raise GrpoLabError(f"a training question cannot be graded: {scores.failure}")
        for problem, correct in zip(problems, scores.correct, strict=True):
            rate = float(correct.float().mean())
            lines.append(json.dumps({"question": problem.data["question"], "pass_rate": rate, "samples": samples}))
    write_text(out, "\n".join(lines) + "\n")
