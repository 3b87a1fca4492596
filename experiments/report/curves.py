"""Section of the report: learning curves over each recorded budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.report.arm_style import Style
from experiments.report.context import Context
from experiments.report.drawing import LEFT, RIGHT, Scale, band, frame, line, mark, spanning, svg, text, thinned
from experiments.report.formatting import PLAIN, Unit, axis_words, counted, metric_name, number_text, tick_text, unit
from experiments.report.markup import figure, legend, section
from experiments.results.stored_run import AXES
from experiments.results.stored_study import StoredStudy

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
Panel = tuple[str, str, Unit]
POINTS = 120  # points drawn of a curve, at most
_GOLD, _PROXY = "accuracy", "reward_parts/reward_model"  # the goal, and the learnt reward in its place

_CRITIC = {
    "value_explained_variance": "Share of the returns' variance that the critic explains",
    "value_calibration_error": "Calibration error of the critic's values",
}
_EPISODES = (
    ("turns", "Turns an episode"),
    ("tool_calls", "Tool calls an episode that worked"),
    ("tool_failures", "Tool calls an episode that failed"),
    ("turn_rewards", "Rewards of an episode's turns"),
)
_LENGTHS = (("length", "all"), ("length_correct", "correct"), ("length_incorrect", "incorrect"))


def curves_section(context: Context) -> str:
    """Accuracy, lengths, entropy and groups without spread, over steps, tokens and seconds: one block an axis."""
    study, styles = context.study, context.styles
    panels = curve_panels(study)
    axes = recorded_axes(study)
    if not panels or not axes:
        return ""
    blocks, cut = [], False
    for axis in axes:
        figures = []
        for panel in panels:
            curves, open_ones = (_runs_curves(study, panel[0], axis, finished=done) for done in (True, False))
            if not any(np.isfinite(y).any() for runs in (*curves.values(), *open_ones.values()) for _, y in runs):
                continue
            cut |= any(len(x) > POINTS for runs in (*curves.values(), *open_ones.values()) for x, _ in runs)
            drawing = curves_figure(curves, styles, unfinished=open_ones, axis=axis, title=panel[1], measure=panel[2])
            figures.append(figure(drawing, escape(panel[1]), "main" if panel[0] == study.plan.course_metric else ""))
        for arm in study.arms if _PROXY in _parts(study) else ():
            gold, proxy = (_runs_curves(study, key, axis, finished=True).get(arm, []) for key in (_GOLD, _PROXY))
            if any(np.isfinite(y).any() for _, y in proxy):
                title = f"Proxy against gold, {arm}, in training"
                figures.append(figure(proxy_figure(gold, proxy, styles[arm], axis=axis, title=title), escape(title)))
        declared = " declared" if axis == study.plan.axis else ""
        blocks.append(
            f'<div class="on-axis on-{axis}{declared}"><h3>By {axis_words(axis)}</h3>'
            f'<div class="panels">{"".join(figures)}</div></div>'
        )
    return section(
        "Learning curves", legend(styles, study.baseline), axis_switch(axes), *blocks, about=_about(study, cut)
    )


def recorded_axes(study: StoredStudy) -> list[str]:
    """The axes that every run has recorded, the declared one first."""
    axes = [axis for axis in AXES if all(axis in run.axes for run in study.runs)]
    return sorted(axes, key=lambda axis: axis != study.plan.axis)


def curve_panels(study: StoredStudy) -> list[Panel]:
    """The curves to draw: key, title and unit of what some run has recorded."""
    metric, judged = study.plan.course_metric, study.plan.metric.rpartition("/")[0]
    suite = metric.rpartition("/")[0]
    standard = (metric, f"{suite}/accuracy", f"{judged}/accuracy")
    others = [key for key in study.keys if key.endswith("/accuracy") and key not in standard]
    panels = (
        (metric, metric_name(metric).capitalize(), unit(metric)),
        *((f"{suite}/{key}", f"Response length, {words}", PLAIN) for key, words in _LENGTHS),
        *(
            (key, key.removeprefix(f"{suite}/shows/").replace("_", " ").capitalize() + ", not judged", unit(key))
            for key in study.keys
            if key.startswith(f"{suite}/shows/")
        ),
        *((f"{suite}/{key}", title, PLAIN) for key, title in _EPISODES),
        *((key, f"Reward of turn {key.removeprefix('turn_reward/')} in training", PLAIN) for key in _turns(study)),
        ("observation_tokens", "Tokens an episode that its environment says, in training", PLAIN),
        (f"{suite}/lenient_accuracy", "Right in any form, not judged", unit("lenient_accuracy")),
        *((key, f"Reward {key.removeprefix('reward_parts/')} in training", PLAIN) for key in _parts(study)),
        ("no_spread", "Groups whose rewards are all equal", unit("no_spread")),
        ("entropy", "Entropy of the policy in training", PLAIN),
        *((("age", "Age of what is learned from, in updates", PLAIN),) if _is_off_policy(study) else ()),
        *((key, title, PLAIN) for key, title in _CRITIC.items() if key in study.keys),
        *((key, f"{metric_name(key).capitalize()}, not judged", unit(key)) for key in others),
    )
    return [panel for panel in panels if panel[0] in study.keys]


def _is_off_policy(study: StoredStudy) -> bool:
    """Whether some run learned from responses of older weights."""
    return any(row.get("age") for run in study.runs for row in run.metrics)


def _turns(study: StoredStudy) -> list[str]:
    """The rewards of turns, in order, where some turn has one."""
    keys = [key for key in study.keys if key.startswith("turn_reward/")]
    has_any = any(any((row.get("turn_reward") or {}).values()) for run in study.runs for row in run.metrics)
    return sorted(keys, key=lambda key: int(key.rpartition("/")[2])) if has_any else []


def _parts(study: StoredStudy) -> list[str]:
    """The rewards by name, where there are several."""
    keys = [key for key in study.keys if key.startswith("reward_parts/")]
    return keys if len(keys) > 1 else []


def axis_switch(axes: Sequence[str], words: Callable[[str], str] = axis_words) -> str:
    """The choice of the axis, as radio buttons that need no script; on paper all axes are shown."""
    if len(axes) < 2:
        return ""
    choices = "".join(
        f'<input type="radio" name="axis" id="axis-{axis}"{" checked" if place == 0 else ""}>'
        f'<label for="axis-{axis}">{words(axis)}</label>'
        for place, axis in enumerate(axes)
    )
    return f'<fieldset class="switch"><legend>Budget</legend>{choices}</fieldset>'


def _about(study: StoredStudy, cut: bool) -> str:
    fewest = min((each.finished for each in study.counts().values() if each.finished), default=0)
    most = max(each.finished for each in study.counts().values())
    seeds = counted(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
    about = f"Thin lines are runs, one per seed; the bold line is their mean ({seeds}). "
    if most >= 3:
        about += (
            "The band is the pointwise 95\u00a0% t interval of that mean over seeds. It is not the interval of a "
            "paired difference: seeds shift all arms together, so arms may differ clearly although their bands "
            "overlap. "
        )
        about += "It describes these runs only, for the study may end early. " if study.plan.sequential else ""
    else:
        about += "There is no band: an interval over seeds needs at least three. "
    if any(not run.finished for run in study.runs):
        about += "Dotted lines that end in a cross are runs that have not finished; they enter no mean. "
    about += (
        "Accuracy and lengths are measured on held-out questions with sampled responses, lengths in tokens. A group "
        "whose rewards are all equal says nothing about which response was better."
    )
    if any(run.is_averaged for run in study.runs):
        about += " What was evaluated is a moving average of the weights (evaluation.ema_lag), which lags behind them."
    if study.plan.further:
        about += (
            " No verdict rests on these evaluations: it rests on what "
            + ("every final model" if study.models_asked == 1 else f"the models of the last {study.models_asked}")
            + f" answered afterwards, to {study.plan.further:,} further questions."
        )
    return about + (f" Of longer curves {POINTS} points are drawn." if cut else "")


def _runs_curves(study: StoredStudy, key: str, axis: str, *, finished: bool) -> dict[str, list[Curve]]:
    curves = {
        arm: [study.curve(arm, run.seed, key, axis) for run in study.runs if (run.arm, run.finished) == (arm, finished)]
        for arm in study.arms
    }
    return {arm: runs for arm, runs in curves.items() if runs}


def mean_and_band(
    curves: Sequence[Curve], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean over runs and half-width of its t interval, each `[N]`, at `x` `[N]`: returns `(x, mean, half)`.

    Runs measured at different `x` are interpolated linearly onto all of them where every run has values,
    never beyond. NaN values are left out point by point; the half-width is NaN where fewer than 3 runs have a
    value.
    """
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    first = curves[0][0]
    if all(np.array_equal(x, first) for x, _ in curves):
        grid, values = first, np.stack([y for _, y in curves])
    else:
        low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        grid = np.unique(np.concatenate([x for x, _ in curves]))
        grid = grid[(grid >= low) & (grid <= high)]
        values = np.stack([np.interp(grid, x, y) for x, y in curves])
    n = (~np.isnan(values)).sum(axis=0)
    mean = np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)
    square = np.nansum((values - mean) ** 2, axis=0) / np.maximum(n - 1, 1)
    half = stats.t.ppf(0.5 + level / 2, np.maximum(n - 1, 1)) * np.sqrt(square / np.maximum(n, 1))
    return grid, mean, np.where(n >= 3, half, np.nan)


def curves_figure(
    curves: Mapping[str, Sequence[Curve]],
    styles: Mapping[str, Style],
    *,
    unfinished: Mapping[str, Sequence[Curve]],
    axis: str,
    title: str,
    measure: Unit,
    budget: str = "",
) -> str:
    """Learning curves: a thin line per run, a bold mean per arm with its 95 % t interval over runs.

    `curves` maps an arm to the `(x, y)` of its finished runs; `unfinished` ones are dotted, end in a
    cross and enter no mean. `budget` says in words what the axis counts, if not what a study's does.
    """
    width, height = 440.0, 286.0
    drawn = [curve for runs in (*curves.values(), *unfinished.values()) for curve in runs]
    # from the runs alone: with few seeds a band can be wider than the picture
    y = spanning([v * measure.scale for _, values in drawn for v in values.tolist()], height - 44, 12)
    x = Scale(0.0, max((float(xs[-1]) for xs, _ in drawn if len(xs)), default=1.0) or 1.0, LEFT, width - RIGHT)
    within: Callable[[float], float] = lambda value: y(min(max(value, y.low), y.high))  # noqa: E731
    y_text: Callable[[float], str] = lambda value: f"{tick_text(value)}{measure.value}"  # noqa: E731
    parts = frame(x, y, budget or _budget_words(axis), "", tick_text, y_text, whole=axis != "seconds")
    runs_lines, means, descriptions = [], [], []
    for arm, style in styles.items():
        for xs, ys in curves.get(arm, ()):
            runs_lines.append(_run_line(x, y, thinned(xs, ys * measure.scale, POINTS), "run", style))
        for xs, ys in unfinished.get(arm, ()):
            points = thinned(xs, ys * measure.scale, POINTS)
            runs_lines.append(_run_line(x, y, points, "open-run", style))
            points = [point for point in points if np.isfinite(point[1])]
            if points:
                runs_lines.append(mark(x(points[-1][0]), y(points[-1][1]), Style(style.tone, "X", "-")))
        grid, mean, half = mean_and_band(curves.get(arm, ()))
        if not len(grid):
            continue
        indices = np.unique(np.linspace(0, len(grid) - 1, min(POINTS, len(grid))).round().astype(int))
        at = [x(value) for value in grid[indices].tolist()]
        low, high = (within_all(within, (mean + s * half)[indices] * measure.scale) for s in (-1, 1))
        parts.append(band(at, low, high, style))
        middle = [(a, y(v)) for a, v in zip(at, (mean[indices] * measure.scale).tolist(), strict=True)]
        means.append(line(middle, "mean", style, dashed=True))
        finite = [point for point in middle if np.isfinite(point[1])]
        means += [mark(*finite[place], style) for place in _marked(len(finite))]
        if finite:
            last = float(mean[np.isfinite(mean)][-1]) * measure.scale
            descriptions.append(f"{arm} ends at {number_text(last, measure.digits)}{measure.value}")
    label = f"{title} by {budget or axis_words(axis)}: {'; '.join(descriptions) or 'no finished run'}."
    return svg([*parts, *runs_lines, *means], width, height, label)


def proxy_figure(gold: Sequence[Curve], proxy: Sequence[Curve], style: Style, *, axis: str, title: str) -> str:
    """Means over an arm's runs of accuracy (bold, left scale) and of the learnt reward (dashed, right scale).

    Where the one falls while the other rises, the policy exploits the mistakes of the reward model.
    """
    width, height = 440.0, 286.0
    means = [mean_and_band(curves)[:2] for curves in (gold, proxy)]
    shown = (style, replace(style, dash=(0, (3.0, 2.0))))
    x = Scale(0.0, max((float(xs[-1]) for xs, _ in means if len(xs)), default=1.0) or 1.0, LEFT, width - 40)
    scales = [
        spanning((scale * values).tolist(), height - 44, 26)
        for scale, (_, values) in zip((100.0, 1.0), means, strict=True)
    ]
    percent: Callable[[float], str] = lambda value: f"{tick_text(value)}%"  # noqa: E731
    parts = frame(x, scales[0], _budget_words(axis), "right", tick_text, percent, whole=axis != "seconds")
    parts += [text(x.end + 7, scales[1](v) + 4, tick_text(v), "tick") for v in scales[1].ticks(6)]
    parts.append(text(width, 14, "learnt reward, dashed", "label", "end"))
    descriptions = []
    for (xs, ys), y, kind, scale in zip(means, scales, shown, (100.0, 1.0), strict=True):
        points = [(x(a), y(b)) for a, b in thinned(xs, scale * ys, POINTS)]
        parts.append(line(points, "mean", kind, dashed=True))
        finite = (scale * ys)[np.isfinite(ys)]
        descriptions.append(
            f"from {number_text(finite[0], 2)} to {number_text(finite[-1], 2)}" if len(finite) else "unknown"
        )
    return svg(parts, width, height, f"{title}: right {descriptions[0]} %, learnt reward {descriptions[1]}.")


def within_all(within: Callable[[float], float], values: NDArray[np.float64]) -> list[float]:
    """Positions of values, kept inside the figure."""
    return [within(value) if np.isfinite(value) else value for value in values.tolist()]


def _run_line(x: Scale, y: Scale, points: Sequence[tuple[float, float]], kind: str, style: Style) -> str:
    return line([(x(a), y(b)) for a, b in points], kind, style)


def _marked(n: int) -> list[int]:
    """Places of a mean that carry the arm's marker: the last, and a few before it."""
    step = max(1, -(-n // 5))
    return list(range(n - 1, -1, -step))[:5]


def _budget_words(axis: str) -> str:
    return "tokens sampled in training" if axis == "sampled_tokens" else axis_words(axis)
