"""What a study ends with in the terminal: table, warnings, a plain sentence for each verdict, and what to do next."""

from typing import Final

from rich.table import Table

from experiments.report.formatting import Unit, counted, measured_unit, number_text
from experiments.report.sentences import plain_sentence
from experiments.statistics import Judgement
from experiments.statistics.rule import T_SEEDS
from experiments.terminal import Console

MAX_SEEDS_NAMED: Final = 50
"""Larger numbers of seeds stand in the verdicts, but are not recommended."""
SEEDS_TO_BEGIN_WITH: Final = 5


def show_verdicts(
    table: Table,
    judgement: Judgement,
    console: Console,
    *,
    next_step: str,
    more: str,
    halving: str = "",
    measure: Unit | None = None,
    verbose: bool = False,
) -> None:
    """Print one screen; `more` is the command for the rest, which `verbose` prints: tests and p in words, notes.

    `halving`, a sentence, is shown where something is inconclusive, and with `verbose`.
    """
    interim = interim_notes(judgement)
    notes = [note for note in judgement.analysis.notes if note not in interim]
    console.print(table)
    for warning in (*interim, *judgement.warnings):
        console.print(f"warning: {warning}", style="bold yellow", highlight=False, markup=False)
    lines = [
        plain_sentence(each, judgement, measure or measured_unit(judgement)) for each in judgement.analysis.comparisons
    ]
    if judgement.claim is not None:
        lines.append(f"what was predicted: {judgement.claim.outcome}")
    if verbose:
        lines += [each.sentence for each in judgement.analysis.comparisons]
        lines += effect_sizes(judgement)
        lines += [f"predicted: {each.sentence}" for each in (judgement.claim.assessments if judgement.claim else ())]
        lines += [f"note: {note}" for note in notes]
    if halving and (verbose or is_inconclusive(judgement)):
        lines.append(halving)
    lines.append(f"next: {next_step}")
    if not verbose:
        lines.append(f"tests, p-values and {counted(len(notes), 'note')}: {more}")
    console.print()
    for line in lines:
        console.print(line, highlight=False, markup=False)


def effect_sizes(judgement: Judgement) -> list[str]:
    """The effect sizes of all comparisons in one line, with what they are."""
    sizes = [
        f"{each.arm} vs {each.baseline} {number_text(each.effect.g_z, 2, signed=True)}"
        for each in judgement.analysis.comparisons
        if each.effect.g_z is not None
    ]
    what = "effect sizes g_z (mean difference over the sd of the seeds' differences, corrected for few seeds)"
    return [f"{what}: {', '.join(sizes)}"] if sizes else []


def interim_notes(judgement: Judgement) -> list[str]:
    """Notes that no reader of a verdict may miss: that seeds are still to come."""
    return [note for note in judgement.analysis.notes if note.startswith("Interim")]


def seeds_for_all(judgement: Judgement) -> int | None:
    """The seeds that all inconclusive comparisons need; None where some are not known, there already, or too many."""
    inconclusive = [c.fixed_n for c in judgement.analysis.comparisons if c.verdict == "inconclusive"]
    needed = [
        fixed.seeds_for_margin for fixed in inconclusive if fixed is not None and fixed.seeds_for_margin is not None
    ]
    known = len(needed) == len(inconclusive) and len(judgement.plan.seeds) < max(needed, default=0) <= MAX_SEEDS_NAMED
    return max(needed) if known else None


def too_few_for_a_test(judgement: Judgement) -> bool:
    """Whether some comparison has fewer seeds than a test takes."""
    return any(each.effect.n < T_SEEDS for each in judgement.analysis.comparisons)


def is_inconclusive(judgement: Judgement) -> bool:
    """Whether some comparison has been tested and not settled."""
    return any(each.verdict == "inconclusive" for each in judgement.analysis.comparisons)
