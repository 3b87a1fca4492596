"""A few steps of the real loop: they train, they are the same bits again, and a stopped run goes on to the same end."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from experiments.doctor.finding import FAILS, REPORT, SKIPPED, WORKS, Finding
from experiments.doctor.models import Subject, subject_of
from experiments.doctor.visit import EMBEDDED, Visit

STEP: Final = "a step of training"
SMALL: Final = (
    "train.variant = @grpo()",
    "train.steps = 2",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 24",
    "train.minibatches = 2",
    "train.checkpoint_every = 1",
    "evaluation.questions = 4",
    "evaluation.samples = 2",
    "evaluation.every = 2",
)
"""Of the recipe, beside the embedded default's."""


def check_step(visit: Visit) -> Iterator[Finding]:
    """Two steps from sampling to the stored model: losses and gradients are finite, and weights move."""
    manifest, lines = trained(visit, "step")
    hashes, last = manifest["hashes"], lines[-1]
    numbers = {"hashes": hashes, "metrics": [_timeless(line) for line in lines], "seconds": last["seconds"]}
    norms = [line["grad_norm"] for line in lines]
    seen = f"two steps, gradient norms {', '.join(f'{norm:.3g}' for norm in norms)}"
    if hashes["final_weights"] == hashes["initial_weights"] or not all(norm > 0 for norm in norms):
        yield Finding(name(STEP, visit), FAILS, f"{seen}; the weights did not move", REPORT, numbers)
    else:
        yield Finding(name(STEP, visit), WORKS, f"{seen}; the weights moved", numbers=numbers)


def check_identical(visit: Visit) -> Iterator[Finding]:
    """The same run in another process: the same weights, samples and metrics to the last bit."""
    yield _same_as_before(visit, "two runs bit-identical", "again", stop_after=None)


def check_resumed(visit: Visit) -> Iterator[Finding]:
    """The same run, stopped after its first step and resumed: the same weights to the last bit."""
    yield _same_as_before(visit, "a resumed run bit-identical", "resumed", stop_after=1)


def _same_as_before(visit: Visit, title: str, folder: str, stop_after: int | None) -> Finding:
    before = visit.earlier.get(name(STEP, visit), {})
    if not before:
        return Finding(name(title, visit), SKIPPED, f"'{STEP}' did not get so far")
    if stop_after:
        trained(visit, folder, stop_after=stop_after)
    manifest, lines = trained(visit, folder)
    metrics, hashes = [_timeless(line) for line in lines], manifest["hashes"]
    different = [key for key, value in before["hashes"].items() if hashes[key] != value]
    steps = zip(before["metrics"], metrics, strict=True)
    different += sorted({key for one, other in steps for key in one if one[key] != other.get(key)})
    if different:
        seen = f"other {', '.join(different[:6])} than in '{STEP}'"
        return Finding(name(title, visit), FAILS, seen, REPORT, {"different": different})
    return Finding(name(title, visit), WORKS, "weights, samples and metrics are equal to the last bit")


def name(title: str, visit: Visit) -> str:
    """A row's name: of which model it is."""
    return f"{title} ({visit.label})"


def trained(visit: Visit, folder: str, stop_after: int | None = None) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """The manifest and the metrics of a small run below the doctor's own folder, which removes its checkpoints."""
    from core.loop.train import Interrupted, run
    from core.store.integrity import METRICS
    from core.store.run_folder import RunStore

    recipe = small_recipe(subject_of(visit))
    place = Path(visit.scratch) / f"{visit.label} {folder}"

    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == stop_after:
            raise Interrupted

    try:
        run(recipe, 0, RunStore(place), facts={"identity": {}}, watch=watch)
    except Interrupted:
        return {}, []
    manifest = json.loads((place / "manifest.json").read_text())
    lines = [json.loads(line) for line in (place / METRICS).read_text().splitlines()]
    shutil.rmtree(place / "checkpoint")
    return manifest, lines


def small_recipe(subject: Subject) -> Any:
    """A recipe of two steps on sums; a model that knows none is rewarded by `experiments.doctor.spread`."""
    import core.parts.registry as registry
    from experiments.setup import import_parts, quiet_libraries
    from experiments.study.configs import CONFIGS, build, find_config

    import_parts()
    quiet_libraries()
    with registry.config([find_config("embedded")], small_bindings(subject), include_from=[CONFIGS]):
        return build("train")


def small_bindings(subject: Subject) -> list[str]:
    """The bindings of that recipe."""
    if subject.model == EMBEDDED:
        return [*SMALL, *subject.bindings]
    return ["import experiments.doctor.spread", *SMALL, "train.rewards = [@spread]", *subject.bindings]


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without the clocks."""
    return {key: value for key, value in line.items() if key not in ("seconds", "cpu_seconds")}
