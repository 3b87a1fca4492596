"""What a study will cost and what it can detect, before its first run.

Time and tokens are measured: on finished runs of the same recipe on the same hardware, or on two steps of the
baseline. Memory is the probe's peak, or the forecast of `experiments.memory`. Power is that of the paired t test.
"""

import math
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from core import GrpoLabError
from core.device import takes_cpu
from core.loop.evaluation import responses_at
from core.loop.recipe import Recipe
from core.store.files import (
    parse_json,
    read_json,
)
from experiments.results.halving import halving
from experiments.results.stored_run import SEED_FOLDER
from experiments.statistics import minimum_detectable_effect, seeds_needed
from experiments.statistics.allocation import Halving
from experiments.statistics.rule import T_SEEDS
from experiments.study.identity import hardware, operative
from experiments.study.study import Study

PROBE_STEPS: Final = 2
EFFECTS: Final = (0.5, 1.0, 1.5)
"""Effects, in standard deviations of the paired difference, for which seeds are counted."""
SAMPLES: Final = ("evaluation.samples ", "evaluation.final_samples ")
"""Bindings of how many samples a question has."""


@dataclass(frozen=True)
class Pace:
    """Measured cost of a run of `recipe`: seconds by phase, tokens, and peak memory where it is known."""

    recipe: Recipe
    source: str
    sample: float
    """Seconds a step for everything but the update and the tests."""
    update: float
    """Seconds a step."""
    response: float
    """Seconds for one response to a test question."""
    start: float
    """Seconds until the model is loaded."""
    tokens: float
    """Tokens sampled for training, a step."""
    learned: bool
    """Whether any step had something to update on: if not, time and memory lack the backward pass."""
    memory: int | None = None
    """Peak bytes of the process."""

    def seconds(self, recipe: Recipe) -> float:
        """Seconds of a run of `recipe`: sampling scales with responses, updates with responses and passes.

        The number of rounds that a filter needs, and lengths that change with max_tokens, are taken as measured.
        """
        steps = self.steps(recipe)
        tested = sum(responses_at(recipe, step, last=step == steps) for step in range(steps + 1))
        return self.start + steps * self.of_step(recipe) + tested * self.response

    def sampled(self, recipe: Recipe) -> float:
        """Tokens sampled for training in a run of `recipe`."""
        return self.steps(recipe) * self.more(recipe) * self.tokens

    def steps(self, recipe: Recipe) -> int:
        """Steps that a run of `recipe` makes: all, or as many as its budget pays for."""
        if recipe.seconds_budget is not None:
            return min(recipe.steps, math.ceil(recipe.seconds_budget / self.of_step(recipe)))
        if recipe.token_budget is None:
            return recipe.steps
        return min(recipe.steps, math.ceil(recipe.token_budget / (self.more(recipe) * self.tokens)))

    def of_step(self, recipe: Recipe) -> float:
        """Seconds of a step of `recipe`, evaluation apart."""
        return self.more(recipe) * (self.sample + recipe.epochs / self.recipe.epochs * self.update)

    def more(self, recipe: Recipe) -> float:
        """How many times as many responses a step of `recipe` samples."""
        return recipe.prompts * recipe.group_size / (self.recipe.prompts * self.recipe.group_size)


def token_bound(recipe: Recipe) -> int:
    """Upper bound of the tokens sampled in training: every response at the limit, every round taken.

    A token budget ends the run with the step in which it is spent.
    """
    rounds = recipe.variant.filter_rounds if recipe.variant.filter else 1
    greedy = "greedy_rewards" in recipe.variant.needs
    step = recipe.prompts * (rounds * recipe.group_size + greedy) * recipe.max_tokens
    return recipe.steps * step if recipe.token_budget is None else min(recipe.steps * step, recipe.token_budget + step)


def earlier_paces(study: Study, out: Path) -> dict[str, Pace]:
    """The pace of each arm that has finished runs, of the same config on the same hardware, in a study in `out`."""
    texts = {operative(study.config, arm): arm.label for arm in study.settings.arms}
    here = hardware()
    by_label: dict[str, list[Pace]] = {}
    for file in sorted(out.glob("*/*/seed=*/manifest.json")):
        if not SEED_FOLDER.fullmatch(file.parent.name):
            continue  # a damaged run in quarantine
        with suppress(GrpoLabError):  # another study's broken file does not matter here
            manifest = read_json(file)
            label = texts.get(manifest.get("identity", {}).get("config", ""))
            if label and manifest.get("status") == "finished" and manifest.get("hardware") == here:
                by_label.setdefault(label, []).append(read_pace(file.parent, study.recipes[label]))
    return {label: _mean(paces, out) for label, paces in by_label.items()}


def _mean(paces: Sequence[Pace], out: Path) -> Pace:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(pace, name) for pace in paces)

    return Pace(
        paces[0].recipe,
        f"finished runs in {out}",
        sample=mean("sample"),
        update=mean("update"),
        response=mean("response"),
        start=mean("start"),
        tokens=mean("tokens"),
        learned=any(pace.learned for pace in paces),
    )


def read_pace(folder: Path, recipe: Recipe) -> Pace:
    """The pace of the run of `recipe` in `folder`, loading left out; GrpoLabError when its metrics cannot be read."""
    try:
        rows = [parse_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        seconds = [row["seconds"] for row in rows]
        tested = sum(responses_at(recipe, row["step"], last=row is rows[-1]) for row in rows)
        return Pace(
            recipe,
            str(folder),
            sample=statistics.fmean(s["sample"] + s.get("fill", 0.0) for s in seconds),
            update=statistics.fmean(s.get("update", 0.0) for s in seconds),
            response=sum(s["evaluate"] for s in seconds) / max(1, tested),
            start=0.0,
            tokens=statistics.fmean(row["sampled_tokens"] for row in rows),
            learned=any(row["trained_tokens"] for row in rows),
        )
    except (OSError, ValueError, KeyError) as error:
        raise GrpoLabError(f"{folder / 'metrics.jsonl'} cannot be read: {error}") from error


def probe(study: Study) -> Pace:
    """Run the first steps of the baseline in this process, in a temporary folder, and read its pace."""
    from experiments.launchers.job import Job, run_job

    label = study.settings.baseline
    arm = next(arm for arm in study.settings.arms if arm.label == label)
    short = replace(arm, bindings=(*arm.bindings, f"train.steps = {PROBE_STEPS}"))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(short, study.seeds[0], study.config, folder)
        began = time.perf_counter()
        run_job(job, lambda _: None)
        elapsed = time.perf_counter() - began
        pace = read_pace(Path(folder), replace(study.recipes[label], steps=PROBE_STEPS))
        start = max(0.0, elapsed - float(job.store.manifest["seconds"]))
    source = f"{PROBE_STEPS} steps of '{label}' on this machine"
    return replace(pace, source=source, start=start, memory=peak_memory())


def peak_memory() -> int:
    """Most bytes that this process has held so far: of the accelerator where there is one, else resident."""
    if not takes_cpu():
        return int(torch.accelerator.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True)
class Power:
    """What `seeds` paired seeds can detect, at the level of one of m comparisons (Bonferroni) and 80 % power."""

    seeds: int
    comparisons: int
    alpha: float
    detectable: float | None
    """The smallest effect, in standard deviations of the difference; None where no test is made."""
    needed: Mapping[float, int]
    """Seeds by effect."""

    def seeds_for(self, effect: float) -> int:
        """Seeds that detect an effect, in standard deviations of the difference."""
        return max(T_SEEDS, seeds_needed(effect, self.alpha))


def power_of(study: Study) -> Power | None:
    """The power that the declared seeds buy; None for a single arm."""
    settings, arms, n = study.settings, len(study.settings.arms), len(study.seeds)
    if arms < 2:
        return None
    m = arms - 1 if settings.family == "baseline" else math.comb(arms, 2)
    bare = Power(n, m, settings.alpha / m, None, {})
    needed = {effect: bare.seeds_for(effect) for effect in EFFECTS}
    detectable = minimum_detectable_effect(n, bare.alpha) if n >= T_SEEDS else None
    return replace(bare, detectable=detectable, needed=needed)


@dataclass(frozen=True)
class Spread:
    """The standard deviation of paired differences in an earlier study, pooled over its arms."""

    sd: float
    pairs: int
    seeds: int
    source: str
    known: Halving | None = None
    """Its noise and seconds, where they are known."""

    def at(self, samples: int | None) -> "Spread":
        """With other samples a question than it had, if there are any: `known` says by how much they change it."""
        if self.known is None or samples is None or samples == self.known.now.samples:
            return self
        return replace(self, sd=self.known.noise.sd(samples))


def earlier_spread(study: Study, out: Path) -> Spread | None:
    """The spread in a finished study of the same model, task, tests, metric and budget; this study's own folder first.

    Pooled as the root of the mean variance over the arms that have T_SEEDS shared seeds with the baseline, and no finer
    than the answers allow. It may have had another number of samples a question, where its noise by these is known.
    """
    from experiments.results.stored_study import load_study

    own = out / study.settings.name / "study.json"
    for file in sorted(out.glob("*/study.json"), key=lambda file: (file != own, file)):
        with suppress(GrpoLabError):  # as above
            record = read_json(file)["declaration"]
            if _setting(record) != _setting(study.declaration):
                continue
            earlier = load_study(file.parent)
            scores = earlier.scores()
            base = scores[earlier.baseline]
            columns = [
                [seeds[s] - base[s] for s in seeds if s in base]
                for arm, seeds in scores.items()
                if arm != earlier.baseline
            ]
            columns = [column for column in columns if len(column) >= T_SEEDS]
            if not columns:
                continue
            judgement = earlier.judge()
            known = halving(earlier, judgement) if judgement else None
            sd = math.sqrt(statistics.fmean(statistics.variance(column) for column in columns))
            sd = known.noise.sd(known.now.samples) if known else sd
            if known is not None or _asked(record) == _asked(study.declaration):
                return Spread(sd, len(columns), min(map(len, columns)), str(file.parent), known)
    return None


def final_samples(recipe: Recipe) -> int | None:
    """Samples a question that the final score of a run rests on; None where a budget ends it at a step of its own."""
    settings = recipe.evaluation
    if recipe.token_budget is not None or recipe.seconds_budget is not None:
        return None
    return sum(settings.samples_at(step, recipe.steps) for step in settings.final_steps(recipe.steps))


def _asked(declaration: Mapping[str, Any]) -> list[str]:
    """The bindings of how many samples a question has."""
    return sorted(line for line in declaration["config"] if line.startswith(SAMPLES))


def _setting(declaration: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two studies must share for their noise to be comparable."""
    config: list[str] = declaration["config"]
    task = next((re.sub(r".*@([\w.]+).*", r"\1.", line) for line in config if line.startswith("train.task ")), "?")
    fixed = ("policy.", "train.task ", "evaluation.", task)
    measure = (declaration["metric"], declaration.get("reevaluate"))
    lines = sorted(line for line in config if line.startswith(fixed) and not line.startswith(SAMPLES))
    return measure, declaration["budget"], lines
