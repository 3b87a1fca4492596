"""Section of the report: learning curves."""

from collections.abc import Mapping

from experiments.report.figures import Curve, Style, curves_figure
from experiments.report.markup import counted, legend
from experiments.report.tables import (
    Unit,
    metric_name,
    unit,
)
from experiments.results import Study


def curves_section(study: Study, styles: Mapping[str, Style]) -> str:
    """Accuracy, lengths and entropy over the budget, a thin line a run and the mean with its band."""
    split = str(study.declaration["metric"]).rpartition("/")[0]
    metric = str(study.declaration["metric"])
    measure, plain, name = unit(metric), Unit(1.0, 2, "", ""), metric_name(metric)
    share = unit("accuracy")
    wide, narrow = (5.2, 3.1), (3.42, 2.75)
    others = [key for key in study.keys if key.endswith("/accuracy") and key not in (metric, f"{split}/accuracy")]
    last = [
        ("entropy", "Entropy of the policy in training", plain),
        ("no_spread", "Groups whose rewards are all equal", share),
        *((key, f"{metric_name(key).capitalize()}, not judged", share) for key in others),
    ]
    last = [panel for panel in last if panel[0] in study.keys]
    panels: list[tuple[str, str, str, Unit, tuple[float, float]]] = [
        (metric, "steps", name.capitalize(), measure, wide),
        (metric, "sampled_tokens", f"{name.capitalize()} by sampled tokens", measure, wide),
        (f"{split}/length", "steps", "Response length, all", plain, narrow),
        (f"{split}/length_correct", "steps", "Response length, correct", plain, narrow),
        (f"{split}/length_incorrect", "steps", "Response length, incorrect", plain, narrow),
        *((key, "steps", title, scale, narrow if len(last) == 3 else wide) for key, title, scale in last),
    ]
    figures = []
    for index, (key, axis, title, scale, size) in enumerate(panels):
        if key not in study.keys:
            continue
        drawing = curves_figure(
            _runs_curves(study, key, axis, finished=True),
            styles,
            unfinished=_runs_curves(study, key, axis, finished=False),
            name=f"curve{index}",
            title=title,
            x_label={"steps": "rollout steps", "sampled_tokens": "tokens sampled in training"}[axis],
            measure=scale,
            size=size,
        )
        figures.append(f'<figure class="{"third" if size is narrow else "half"}">{drawing}</figure>')
    if not figures:
        return ""
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
    else:
        about += "There is no band: an interval over seeds needs at least three. "
    if any(not run.finished for run in study.runs):
        about += "Dotted lines that end in a cross are runs that have not finished; they enter no mean. "
    about += "Accuracy and lengths are measured on held-out questions with sampled responses, lengths in tokens."
    return (
        f'<section><h2>Learning curves</h2><p class="about">{about}</p>{legend(study, styles)}'
        f'<div class="panels">{"".join(figures)}</div></section>'
    )


def _runs_curves(study: Study, key: str, axis: str, *, finished: bool) -> dict[str, list[Curve]]:
    curves = {
        arm: [study.curve(arm, run.seed, key, axis) for run in study.runs if (run.arm, run.finished) == (arm, finished)]
        for arm in study.arms
    }
    return {arm: runs for arm, runs in curves.items() if runs}
