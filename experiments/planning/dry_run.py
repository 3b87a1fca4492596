"""What `--dry-run` prints: the arms and how they differ, what the study will cost, and the power that it buys."""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from core import GrpoLabError
from core.loop.recipe import Recipe
from core.parts.variant import differences
from experiments.launchers.reevaluation import left_to_answer
from experiments.memory.forecast import forecast
from experiments.planning.cost import (
    PROBE_STEPS,
    Pace,
    Power,
    Spread,
    earlier_paces,
    earlier_spread,
    final_samples,
    power_of,
    probe,
    token_bound,
)
from experiments.statistics import minimum_detectable_effect
from experiments.statistics.allocation import Halving, optimal_samples
from experiments.statistics.wording import REACHABLE
from experiments.study.study import Study


def show_plan(
    study: Study, out: Path, workers: int, console: Console, *, measure: bool = True, judged: bool = True
) -> None:
    """Print the plan of a study; with `measure`, run two steps of the baseline where no earlier run shows its pace."""
    power = power_lines(study, out) if judged else ()
    for line in itertools.chain(arm_lines(study), [""], cost_lines(study, out, workers, measure), power):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def arm_lines(study: Study) -> Iterator[str]:
    """The baseline's axis card, then each arm's bindings and the axes on which it differs."""
    base = study.settings.baseline
    yield f"\n{base} (baseline)"
    yield from (f"  {line}" for arm in study.settings.arms if arm.label == base for line in arm.bindings)
    yield str(study.recipes[base].variant)
    for arm in study.settings.arms:
        if arm.label == base:
            continue
        yield f"\n{arm.label}"
        yield from (f"  {line}" for line in arm.bindings or ("binds nothing",))
        for axis, (theirs, ours) in differences(study.card(base), study.card(arm.label)).items():
            yield f"    {axis}: {ours}  (instead of {theirs})"


def cost_lines(study: Study, out: Path, workers: int, measure: bool) -> Iterator[str]:
    """Runs, time, tokens and memory."""
    recipes, seeds, base = study.recipes, len(study.seeds), study.settings.baseline
    runs = len(recipes) * seeds
    at_once = min(workers, runs)
    bound = seeds * sum(map(token_bound, recipes.values()))
    paces = earlier_paces(study, out)
    if base not in paces and measure:
        yield f"(measuring {PROBE_STEPS} steps of '{base}'; --no-probe leaves it out)"
        paces[base] = probe(study)
    most = "at most " if study.settings.may_end_early else ""
    yield f"runs    {most}{len(recipes)} arms x {seeds} seeds = {runs}"
    if base in paces:
        used = {label: paces.get(label, paces[base]) for label in recipes}
        seconds = seeds * sum(used[label].seconds(recipe) for label, recipe in recipes.items())
        tokens = seeds * sum(used[label].sampled(recipe) for label, recipe in recipes.items())
        probed = paces[base].memory is not None
        filtered = any(recipe.variant.filter for recipe in recipes.values())
        # the base model leaves a filter most groups; a better one has to sample more rounds
        least = "at least " if probed and filtered else ""
        yield (
            f"time    {least}{clock(seconds)} of work, {clock(seconds / at_once)} with {at_once} at once if they do "
            "not slow each other"
        )
        yield f"tokens  {least}{tokens:,.0f} sampled in training, at most {bound:,}"
        sources = " and ".join(dict.fromkeys(pace.source for pace in used.values()))
        yield f"        measured on {sources}; arms without a run are scaled by responses and passes over them"
        if probed:
            more = " and, as fewer groups pass a filter, more rounds" if filtered else ""
            yield f"        these are first steps: later ones may sample longer responses{more}"
        if not paces[base].learned:
            yield "        no step had anything to learn from, so the backward pass is in none of these figures"
    else:
        yield "time    not known: no finished run of the baseline's recipe, and nothing was measured"
        yield f"tokens  at most {bound:,} sampled in training"
    if study.settings.reevaluate:
        left = [number for number in left_to_answer(study, out / study.settings.name) if number]
        settings = recipes[base].evaluation
        models = f"{len(left)} final models"
        if (each := study.settings.reevaluate_models) > 1:
            models = f"the last {each} evaluations' models of {len(left)} runs"
        responses = sum(left) * (1 + settings.samples)
        duration = f", about {clock(responses * paces[base].response)}" if base in paces else ""
        yield (
            f"asked   {sum(left):,} further questions in all, to {models} x {settings.samples} samples and "
            f"once greedily, after all runs{duration} (compare.reevaluate)"
        )
    yield from _memory_lines(study, paces, at_once)


def _memory_lines(study: Study, paces: Mapping[str, Pace], at_once: int) -> Iterator[str]:
    """The measured peak, or the forecast."""
    measured = next((pace.memory for pace in paces.values() if pace.memory and pace.learned), None)
    if measured:
        yield f"memory  {size(measured)} a run (peak of the measured steps), {size(at_once * measured)} with {at_once}"
        return
    try:
        largest = max(map(forecast, study.recipes.values()), key=lambda each: each.peak)
    except GrpoLabError as error:
        yield f"memory  not known: {error}"
        return
    listed = ", ".join(f"{name} {size(count)}" for name, count in largest.parts[largest.phase].items() if count)
    yield (
        f"memory  {size(largest.peak)} a run, forecast (phase '{largest.phase}': {listed}), "
        f"{size(at_once * largest.peak)} with {at_once}; the libraries' own comes on top"
    )


def power_lines(study: Study, out: Path) -> Iterator[str]:
    """The smallest effect that the seeds detect and the seeds that effects need; of looks, what each alone detects."""
    power = power_of(study)
    if power is None:
        yield "power   one arm: nothing is compared"
        return
    comparisons = "1 comparison" if power.comparisons == 1 else f"{power.comparisons} comparisons"
    if study.settings.may_end_early:
        yield from _early_power_lines(study, power, comparisons)
        return
    level = f"{comparisons}, alpha {power.alpha:.3g} each, 80 % power"
    if power.detectable is None:
        yield f"power   {power.seeds} seeds decide nothing: a test takes 3 or more ({level})"
    else:
        yield f"power   {power.seeds} seeds detect {power.detectable:.2f} sd of the paired difference ({level})"
    counts = ", ".join(f"{effect:g} sd: {n}" for effect, n in power.needed.items())
    yield f"        seeds needed for an effect of {counts}"
    yield from _spread_lines(study, out, power)


def _early_power_lines(study: Study, power: Power, comparisons: str) -> Iterator[str]:
    """The cost in power of stopping early, and what each look detects by itself."""
    looks = study.settings.looks
    why = f"alpha is split among {len(looks)} looks" if looks else "a race pays for looking after every seed"
    yield f"power   less than that of {power.seeds} seeds with a single look at the end: {why}"
    for n, alpha in looks:
        effect = minimum_detectable_effect(n, alpha / power.comparisons)
        yield (
            f"        the look after {n} seeds, level {alpha:g}: {effect:.2f} sd of the paired difference "
            f"({comparisons}, 80 % power)"
        )


def _spread_lines(study: Study, out: Path, power: Power) -> Iterator[str]:
    """The same in the metric's unit, where an earlier study shows what a standard deviation is."""
    earlier, metric, margin = earlier_spread(study, out), study.settings.metric, study.settings.margin
    recipe = study.recipes[study.settings.baseline]
    if earlier is None:
        yield f"        what one sd is in {metric} is not known: no finished study of this kind in {out}"
        yield from _answers_lines(study, recipe)
        return
    samples = final_samples(recipe)
    spread = earlier.at(samples)
    if spread.sd > 0:
        yield (
            f"        in {earlier.source} ({earlier.pairs} pairs of arms, {earlier.seeds} seeds) one sd was "
            f"{earlier.sd:.3g} of {metric}"
        )
        if spread is not earlier:
            yield f"        with {samples} samples a question, as declared now, it would have been {spread.sd:.3g}"
        if power.detectable is not None:
            yield f"        at that, {power.seeds} seeds detect {power.detectable * spread.sd:.3g}"
        needed = power.seeds_for(margin / spread.sd)
        seeds = f"{needed} seeds" if needed <= REACHABLE else f"more than {REACHABLE} seeds, which is not reachable"
        yield f"        and the margin of {margin:g} needs {seeds}"
    if earlier.known is not None and samples is not None:
        yield from _samples_lines(earlier, earlier.known, samples, recipe.evaluation.samples)


def _samples_lines(earlier: Spread, known: Halving, samples: int, least: int) -> Iterator[str]:
    """What sampled answers were of the spread, and how many give the smallest interval for the time.

    `least`: samples a question of every evaluation.
    """
    noise, cost, each = known.noise, known.cost, known.multiple
    share = noise.within / known.now.samples / noise.sd(known.now.samples) ** 2
    best = each * max(least, round(optimal_samples(noise, cost) / each))
    yield (
        f"samples {100 * share:.0f} % of the variance of a difference there was sampled answers, {known.now.samples} "
        f"a question; now {samples} are declared"
    )
    more = cost.total(1, best) / cost.total(1, samples) - 1
    if best == samples:
        yield "        which is the smallest interval for the time"
        return
    yield (
        f"        the smallest interval for the time takes evaluation.final_samples = {best}: one sd of "
        f"{earlier.at(best).sd:.3g} instead of {earlier.at(samples).sd:.3g} for {100 * more:+.0f} % time"
    )


def _answers_lines(study: Study, recipe: Recipe) -> Iterator[str]:
    """What sampled answers alone may do to a difference, where nothing has been measured."""
    samples, questions = final_samples(recipe), recipe.evaluation.questions
    if samples is None or not study.settings.metric.endswith("/accuracy") or study.settings.scalar != "final":
        return
    # each of two arms has a share of Q K answers, of variance 1/4 at most
    yield (
        f"samples {questions} questions x {samples} samples behind a score: sampled answers alone make one sd of "
        f"{math.sqrt(0.5 / (questions * samples)):.2g} at most (evaluation.final_samples)"
    )


def clock(seconds: float) -> str:
    """`1:02:03`."""
    total = round(seconds)
    return f"{total // 3600}:{total // 60 % 60:02d}:{total % 60:02d}"


def size(count: float) -> str:
    """`1.5 GiB`, `3 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
