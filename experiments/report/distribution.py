"""Section of the report: interquartile means and performance profiles, with intervals from one joint bootstrap."""

import zlib
from collections.abc import Mapping
from html import escape

import numpy as np

from experiments.report.arm_style import Style
from experiments.report.context import Context, Judged
from experiments.report.drawing import LEFT, RIGHT, band, frame, line, mark, shortened, spanning, svg, text, width_of
from experiments.report.formatting import (
    Unit,
    counted,
    difference_text,
    interval_text,
    level_text,
    metric_name,
    tick_text,
    value_text,
)
from experiments.report.markup import figure, legend, section
from experiments.report.tables import common_scores
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement
from experiments.statistics.bootstrap import (
    MIN_SEEDS,
    TRUSTED_SEEDS,
    IqmEstimate,
    iqm_differences,
    iqm_intervals,
    performance_profile,
)


def distribution_section(context: Context) -> str:
    """Of a study, whose resamples are always the same."""
    return distribution(context, resampling_key(context.study))


def distribution(context: Judged, key: str) -> str:
    """Beyond the mean: interquartile means, and the share of runs that reach each score; resamples are drawn by key."""
    judgement, styles = context.judgement, context.styles
    if judgement is None or not is_resampled(judgement):
        return ""
    analysis = judgement.analysis
    scores = common_scores(analysis)
    measure, level, n = context.measure, level_text(judgement), len(scores[analysis.baseline])
    estimates = iqm_intervals(scores, 1 - analysis.alpha, rng=resampling(key))
    about = (
        "The interquartile mean leaves out the best and the worst quarter of the runs; the profile shows for every "
        "score the share of runs that reach it. "
    )
    if n < MIN_SEEDS:
        about += f"Below {MIN_SEEDS} seeds there are too few distinct resamples for a bootstrap, so no intervals. "
    else:
        about += f"Intervals are {level} percentile bootstrap ones; whole seeds are drawn, the same for all arms. "
        if n < TRUSTED_SEEDS:
            about += f"<strong>Approximate</strong>: with {counted(n, 'seed')} they are too narrow. "
    about += "No verdict rests on them."
    against = iqm_differences(scores, analysis.baseline, 1 - analysis.alpha, rng=resampling(key))
    less_text = "; ".join(_against(arm, each, measure) for arm, each in against.items())
    in_points = f", {measure.difference}" if measure.difference else ""
    less = f'<p class="about">Difference from {escape(analysis.baseline)}{in_points}: {less_text}.</p>'
    rough = " (approximate)" if MIN_SEEDS <= n < TRUSTED_SEEDS else ""
    panels = figure(_iqm_figure(estimates, styles, measure, analysis.metric), f"Interquartile means{rough}")
    panels += figure(_profile_figure(key, judgement, styles, measure), f"Share of runs that reach a score{rough}")
    shown = legend(styles, analysis.baseline)
    return section("Beyond the mean", shown, f'<div class="panels">{panels}</div>', less, about=about)


def is_resampled(judgement: Judgement) -> bool:
    """Whether a bootstrap over seeds has a meaning: not for one seed, nor where the data decided when to stop."""
    return not judgement.plan.sequential and len(judgement.analysis.seeds) > 1


def _against(arm: str, each: IqmEstimate, measure: Unit) -> str:
    """An arm's interquartile mean less the baseline's, with its interval."""
    within = f" ({interval_text(each.interval, measure)})" if each.interval else ""
    return f"{escape(arm)} {difference_text(each.value, measure)}{within}"


def resampling_key(study: StoredStudy) -> str:
    """What a study's resamples are drawn by."""
    return str(study.record.get("hash") or study.name)


def resampling(key: str) -> np.random.Generator:
    """The generator of resamples: those of one key are always the same."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def _iqm_figure(estimates: Mapping[str, IqmEstimate], styles: Mapping[str, Style], measure: Unit, metric: str) -> str:
    row, width = 34.0, 440.0
    left, height = 20 + max(width_of(shortened(arm, 20)) for arm in estimates), 14 + 34.0 * len(estimates)
    ends = [measure.scale * end for each in estimates.values() for end in (each.value, *(each.interval or ()))]
    x = spanning(ends, left, width - 62, pad=0.08)
    parts, descriptions = [], []
    for value in x.ticks(6):
        parts += [line([(x(value), 4), (x(value), height)], "grid")]
        parts += [text(x(value), height + 17, f"{tick_text(value)}{measure.value}", "tick", "middle")]
    parts += [line([(left, height), (width - 62, height)], "axis")]
    parts += [text((left + width - 62) / 2, height + 35, metric_name(metric), "label", "middle")]
    for place, (arm, each) in enumerate(estimates.items()):
        y = 20 + row * place
        parts.append(text(left - 12, y + 4, shortened(arm, 20), "name", "end"))
        if each.interval is not None:
            parts.append(line([(x(measure.scale * end), y) for end in each.interval], "bar", styles[arm]))
        parts.append(mark(x(measure.scale * each.value), y, styles[arm], size=1.25))
        parts.append(text(width - 2, y + 4, value_text(each.value, measure), "label", "end"))
        within = f" ({' to '.join(value_text(end, measure) for end in each.interval)})" if each.interval else ""
        descriptions.append(f"{arm} {value_text(each.value, measure)}{within}")
    return svg(parts, width, height + 44, f"Interquartile means: {'; '.join(descriptions)}.")


def _profile_figure(key: str, judgement: Judgement, styles: Mapping[str, Style], measure: Unit) -> str:
    analysis = judgement.analysis
    width, height = 440.0, 286.0
    # a share changes only at a score, so between two of them nothing is left out
    scores = common_scores(analysis)
    thresholds = sorted({score for row in scores.values() for score in row})
    profiles = performance_profile(scores, thresholds, 1 - analysis.alpha, rng=resampling(key))
    x = spanning([measure.scale * value for value in thresholds], LEFT, width - RIGHT, pad=0.05)
    y = spanning([0.0, 100.0], height - 44, 12, pad=0.03)
    label = metric_name(analysis.metric)
    parts = frame(x, y, f"{label} of at least", "", lambda v: f"{tick_text(v)}{measure.value}", lambda v: f"{v:g} %")
    # a score equal to the threshold reaches it: the share holds up to the threshold and falls behind it
    steps = [x.low / measure.scale, *thresholds]
    lines = []
    for arm, profile in profiles.items():
        stairs: dict[str, list[tuple[float, float]]] = {"share": [], "low": [], "high": []}
        for place, _ in enumerate(thresholds):
            for end in (steps[place], steps[place + 1]):
                for name, points in stairs.items():
                    points.append((x(measure.scale * end), y(100 * getattr(profile, name)[place])))
        stairs["share"].append((stairs["share"][-1][0], y(0.0)))
        if profile.n >= MIN_SEEDS:
            at, low = zip(*stairs["low"], strict=True)
            parts.append(band(at, low, [b for _, b in stairs["high"]], styles[arm]))
        lines.append(line(stairs["share"], "mean", styles[arm], dashed=True))
        half = _median(scores[arm])
        lines.append(mark(x(measure.scale * half), y(100 * profile.share[thresholds.index(half)]), styles[arm]))
    description = "; ".join(
        f"half of the runs of {arm} reach {value_text(_median(scores[arm]), measure)}" for arm in profiles
    )
    return svg([*parts, *lines], width, height, f"Performance profiles: {description}.")


def _median(scores: tuple[float, ...]) -> float:
    """The largest score that at least half of the runs reach."""
    return sorted(scores, reverse=True)[-(-len(scores) // 2) - 1]
