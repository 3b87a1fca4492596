"""Section of the report: the outcome of every planned run."""

from collections.abc import Mapping
from typing import Final

from experiments.report.arm_style import Style
from experiments.report.context import Context
from experiments.report.formatting import POLICY_WORDS, listed
from experiments.report.grid import Cell, Column, Grid, column, number_cell, text_cell, to_html
from experiments.report.grids import seed_grid
from experiments.report.markup import arm_name, breakable, section
from experiments.results.pairing import PAIRED_BY
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement

OUTCOME_WORDS: Final = (
    "A run has failed when its training broke down, or when the cause is unknown; it is lost when the machine is to "
    "blame. A finished run has collapsed when it ends with less than half of what it had gained, or below where it "
    "began; declined when it keeps half but less than nine tenths; dipped when it was below half on its way and came "
    "back: each beyond the noise of its evaluations, and by more than Δ. The failure rate is the share of failed and "
    "collapsed runs among those that ended, with its exact 95\u00a0% interval."
)


def outcomes_section(context: Context) -> str:
    """Counts by arm with the exact interval of the failure rate, and every run with its score."""
    study, judgement = context.study, context.judgement
    parts = []
    if judgement is not None:
        failures = judgement.plan.failures
        about = f"{OUTCOME_WORDS} As declared ({failures}), {POLICY_WORDS[failures]}."
        parts += [
            f'<p class="about">{about}</p>',
            to_html(outcome_grid(judgement, context.styles), "Outcomes"),
            "<h3>Every run</h3>",
        ]
    parts.append(to_html(seed_grid(study), "Every run", "runs"))
    return section("Runs", *parts, about=_identity(study))


def outcome_grid(judgement: Judgement, styles: Mapping[str, Style]) -> Grid:
    """The outcomes of every arm's runs, counted."""
    counts = ("planned", "finished", "failed", "lost", "pending", "imputed", "collapsed", "declined", "dipped")
    columns = (
        column("arm", "arm"),
        *(column(key, key, numeric=True) for key in counts),
        Column(("rate", "rate_low", "rate_high"), "failure rate", numeric=True),
        column("causes", "causes"),
    )
    rows = []
    for each in judgement.outcomes:
        ended = each.finished + each.failed
        rate = (each.failed + each.collapsed) / ended if ended else None
        words = "–"
        if rate is not None and each.failure_rate is not None:
            low, high = each.failure_rate
            words = f"{100 * rate:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
        rows.append(
            (
                text_cell(each.arm, arm_name(each.arm, styles)),
                *(number_cell(getattr(each, key), str(getattr(each, key))) for key in counts),
                Cell(words, (rate, *(each.failure_rate or (None, None)))),
                text_cell("; ".join(each.causes), f'<small class="cause">{breakable("; ".join(each.causes))}</small>'),
            )
        )
    return Grid(columns, tuple(rows))


def _identity(study: StoredStudy) -> str:
    """Whether runs are paired with the baseline, by the manifests' hashes, in words."""
    sentences = []
    for key, words in PAIRED_BY.items():
        unlike = study.unlike(key)
        which = {
            arm: "every seed" if len(seeds) == len(study.seeds) else f"seed {listed(list(map(str, seeds)))}"
            for arm, seeds in unlike.items()
        }
        if unlike:
            differing = listed([f"{breakable(arm)} ({seeds})" for arm, seeds in which.items()])
            sentences.append(f"The {words} differ from the baseline’s in {differing}.")
        elif len(study.arms) > 1 and any(run.hash(key) for run in study.runs if run.arm != study.baseline):
            sentences.append(f"The {words} are the same in all arms, seed by seed.")
    return " ".join(sentences)
