"""Section of the report: how much of the noise of a difference is seeds, questions and samples."""

from collections.abc import Iterable

from experiments.report.context import Context
from experiments.report.formatting import number_text, unit
from experiments.report.grid import Grid, column, number_cell, text_cell, to_html
from experiments.report.markup import pair_name, section
from experiments.report.sentences import halving_sentence
from experiments.results.halving import halving
from experiments.statistics.two_level import WORTH_SAMPLING, VarianceComponents


def noise_section(context: Context) -> str:
    """Variance components of every comparison, and the effect of doubling one number.

    Their standard error is the one that the verdict rests on.
    """
    judgement, styles = context.judgement, context.styles
    if judgement is None or not judgement.variances:
        return ""
    measure = unit(judgement.analysis.metric)
    points = measure.difference
    parts = {"seed": "seeds", "question": "questions", "seed_question": "seeds × questions", "sampling": "sampling"}
    variances = dict(judgement.variances)
    if judgement.plan.questions == "fixed":
        parts.pop("question")
        variances = {pair: components.on_these_questions for pair, components in variances.items()}
    doubled = next(iter(variances.values())).doubling()
    columns = (
        column("pair", "comparison"),
        *(column(key, title, numeric=True, note="share of the variance") for key, title in parts.items()),
        column("standard_error", "standard error", numeric=True, note=points),
        *(column(f"with_{what}", f"twice the {what}", numeric=True, note=points) for what in doubled),
    )
    rows = []
    for each in judgement.analysis.comparisons:
        components = variances.get((each.arm, each.baseline))
        if components is None:
            continue
        shares = {key: getattr(components, key) / components.total if components.total else None for key in parts}
        after = components.doubling().values()
        errors = [measure.scale * error for error in (components.standard_error, *(later for _, later in after))]
        rows.append(
            (
                text_cell(f"{each.arm} vs {each.baseline}", pair_name(each, styles)),
                *(number_cell(s, f"{100 * s:.0f} %" if s is not None else "–") for s in shares.values()),
                *(number_cell(error, number_text(error, measure.digits + 1)) for error in errors),
            )
        )
    about = (
        "How much of the variance of the mean difference comes from seeds, questions and samples, estimated from the "
        "answers to single questions; and the standard error with twice as many of each. The first standard error is "
        "the verdict’s own: no share is below 0, so it is never finer than the sampled answers allow. A claim about "
        f"exactly these questions has no share for questions. {_samples(variances.values())}"
    )
    if sentence := halving_sentence(halving(context.study, judgement)):
        about += f" {sentence[0].upper()}{sentence[1:]} (as these runs took it)."
    table = to_html(Grid(columns, tuple(rows)), "Variance components")
    return section("Where the noise comes from", table, about=about) if rows else ""


def _samples(variances: Iterable[VarianceComponents]) -> str:
    """Whether more samples a question are worth their cost."""
    largest = max(components.sampling_share for components in variances)
    limit = f"{100 * WORTH_SAMPLING:.0f} %"
    if largest < WORTH_SAMPLING:
        return f"Sampling is less than {limit} of it everywhere: more samples per question are not worth their cost."
    return f"More samples per question pay where sampling is more than {limit} of it."
