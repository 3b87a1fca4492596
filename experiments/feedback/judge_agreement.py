"""`grpolab judge`: agreement of a judge, before it is a reward, with gold verdicts on this policy's responses."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from rich.progress import track
from rich.table import Table

import core.parts.registry as registry
from core.distributed import init
from core.environments.judges.prompts import win_rates
from core.environments.rewards.judge import JudgeSettings
from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.loop.rollout import (
    Draw,
    sample,
)
from core.loop.run_state import RunState
from core.loop.scoring import score, start
from core.model.policy import load_policy
from core.randomness import key, stream
from experiments.statistics.agreement import Agreement, PairShare, agreement
from experiments.statistics.records import to_plain
from experiments.study.configs import (
    CONFIGS,
    build,
    find_config,
)
from experiments.terminal import Console

SPLIT = "tune"
JUDGE: Final = stream("judge")
"""Neither trained nor tested on."""


@dataclass(frozen=True)
class Order:
    """Position bias: pairs judged in both orders, before the orders are averaged."""

    pairs: int
    first: float
    """Mean probability of preferring the response shown first; 1/2 is no bias."""
    by_place: float
    """Share of the pairs in which the preference stays with the place when the responses are swapped."""
    one_order: PairShare
    """Share of single judgements of pairs with different gold verdicts in which the right response is preferred."""


@dataclass(frozen=True)
class JudgeResult:
    """A judge's agreement with gold verdicts, its position bias and its cost."""

    judge: str
    gold: str
    mode: str
    agreement: Agreement
    order: Order | None
    """In compare mode."""
    seconds: float
    """Per response, without loading the judge."""


def run_judge(options: argparse.Namespace) -> int:
    """`grpolab judge`."""
    files = [find_config(file) for file in options.config or ["rlaif"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        recipe: Recipe = build("train")
    result = measure(recipe, samples=options.samples, questions=options.questions, seed=options.seed)
    if options.json:
        print(json.dumps(to_plain(asdict(result)), indent=1, allow_nan=False))
    else:
        show(result, Console())
    return 0


def measure(recipe: Recipe, *, samples: int, questions: int, seed: int) -> JudgeResult:
    """Sample the policy on questions of the tune split, and grade the responses by judge and verifier."""
    judge = next((part for part in recipe.rewards if part.name == "judge"), None)
    if judge is None:
        raise GrpoLabError("train.rewards names no judge: bind, e.g., train.rewards = [@final_digit, @judge]")
    others = [part for part in (*recipe.rewards, *recipe.task.rewards) if part.name != "judge"]
    gold, settings = others[0], JudgeSettings(**judge.set_values)
    description = start([judge], recipe.task)["judge"]
    torch.set_num_threads(recipe.threads)
    accelerator = init()
    run = RunState(recipe, seed, load_policy(recipe.policy, accelerator.device))
    prompter = settings.prompter()
    values: list[list[float]] = []
    right: list[list[bool]] = []
    games: list[tuple[float, float, int]] = []
    seconds = 0.0
    for problems, texts in _sampled(run, samples, questions):
        verdicts = score([gold], problems, texts)
        if verdicts.failure:
            raise GrpoLabError(f"a question cannot be graded by '{gold.name}': {verdicts.failure}")
        right += verdicts.correct.tolist()
        started = time.perf_counter()
        if settings.mode == "score":
            values += prompter.scores(problems, texts)
        else:
            comparisons = prompter.comparisons(problems, texts, settings.opponents)
            values += [win_rates(*each, settings.opponents) for each in zip(comparisons, texts, strict=True)]
            for row, correct in zip(comparisons, verdicts.correct.tolist(), strict=True):
                games += [(a, b, int(correct[i]) - int(correct[j])) for i, j, a, b in row]
        seconds += time.perf_counter() - started
    return JudgeResult(
        judge=description,
        gold=gold.name,
        mode=settings.mode,
        agreement=agreement(values, right),
        order=order(games) if settings.mode == "compare" else None,
        seconds=seconds / (questions * samples),
    )


def _sampled(run: RunState, samples: int, questions: int) -> Iterator[tuple[Any, Any]]:
    """Problems and responses, one rollout at a time."""
    for first in track(range(0, questions, run.recipe.prompts), "judging", console=Console(stderr=True)):
        last = min(first + run.recipe.prompts, questions)
        problems = [run.recipe.task.problem(SPLIT, run.seed, i) for i in range(first, last)]
        drawn = sample(run, problems, Draw(samples, key(run.seed, JUDGE, first)))
        yield problems, drawn.texts


def order(games: list[tuple[float, float, int]]) -> Order | None:
    """Position bias from pairs (P(A) with i first, P(A) with j first, gold i - gold j); None if none is judged."""
    table = np.array(games, dtype=np.float64).reshape(-1, 3)
    a, b, gold = table[np.isfinite(table).all(1)].T
    if not a.size:
        return None
    decided = gold != 0
    # with j first, preferring B is preferring i
    preferred = np.concatenate([np.where(gold > 0, a, 1 - a)[decided], np.where(gold > 0, 1 - b, b)[decided]])
    share = PairShare(
        float((preferred > 0.5).mean() + (preferred == 0.5).mean() / 2) if preferred.size else None, preferred.size
    )
    return Order(a.size, float((a.mean() + b.mean()) / 2), float(((a > 0.5) == (b > 0.5)).mean()), share)


def show(result: JudgeResult, console: Console) -> None:
    """Two small tables."""
    a = result.agreement
    console.print(result.judge, highlight=False, markup=False)
    table = Table("", "value", f"against '{result.gold}'", title=f"{a.responses} responses to {a.questions} questions")
    table.add_row("right responses", _number(a.right), "what a judge that always says right would have for accuracy")
    if result.mode == "score":
        table.add_row("accuracy at 1/2", _number(a.accuracy), "")
    table.add_row("pairs, same question", _number(a.within.value), _pairs(a.within) + "; 0.5 is chance")
    table.add_row("pairs, all (AUC)", _number(a.overall.value), _pairs(a.overall))
    table.add_row("calibration error", _number(a.calibration_error), "")
    if result.order:
        o = result.order
        table.add_row("first is preferred", _number(o.first), f"{o.pairs} pairs in both orders; 0.5 is no bias")
        table.add_row("place decides", _number(o.by_place), "share of pairs")
        table.add_row("pairs, one order alone", _number(o.one_order.value), _pairs(o.one_order))
    table.add_row("not judged", str(a.unjudged), "responses")
    table.add_row("seconds", f"{result.seconds:.3g}", "a response")
    console.print(table)
    calibration = Table("judge's value", "responses", "mean value", "right")
    for b in a.calibration:
        calibration.add_row(f"{b.low:.1f} to {b.high:.1f}", str(b.responses), f"{b.value:.3f}", f"{b.right:.3f}")
    console.print(calibration)


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}"


def _pairs(share: PairShare) -> str:
    within = f", 95 % interval {share.interval[0]:.3f} to {share.interval[1]:.3f}" if share.interval else ""
    return f"{share.pairs} pairs{within}"
