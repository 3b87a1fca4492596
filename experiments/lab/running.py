"""Runs and resumes studies and single runs from Python: what `grpolab compare`, `ablate` and `train` do."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from core import SETTINGS, Part
from core.errors import GrpoLabError, near
from core.parts.arguments import checked
from core.parts.gin_reader import known_parts
from core.parts.import_path import find_modules_in
from core.parts.other_libraries import elsewhere
from core.parts.registry import as_part
from core.parts.settings import COUNT, NOT_NEGATIVE
from experiments.lab.runs import Run, Study, load_run, load_study
from experiments.launchers.choice import where
from experiments.launchers.run import run_jobs
from experiments.launchers.trackers import check_trackers
from experiments.options import PROCESSES
from experiments.planning.plan import RunOptions, plan_jobs
from experiments.planning.single import plan_run, run_job
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import find_config
from experiments.study.processes import read_processes
from experiments.study.settings import check_folder_name
from experiments.study.study import prepare_study
from experiments.terminal import Console

Files: TypeAlias = str | Path | Sequence[str | Path]
"""One gin file or several; a name alone is looked for among the shipped ones."""
NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


@checked(seeds=NOT_NEGATIVE, workers=COUNT, processes=PROCESSES)
def compare(
    files: Files,
    bindings: str | Sequence[str] = (),
    *,
    seeds: int | Sequence[int] | None = None,
    out: Path | str = "runs",
    workers: int | None = None,
    grow: bool = False,
    launcher: str = "local",
    launcher_options: Mapping[str, Any] = NO_OPTIONS,
    accelerate: str | None = None,
    processes: int | None = None,
    track: Sequence[str] = (),
    progress: bool = True,
    **declared: Any,
) -> Study:
    """Run every arm under identical seeds, or go on where that stopped; returns the study, ready to be judged.

    `files` and `bindings` are gin, as after `-c` and `-b`; `bindings` may import modules: "import my_estimators".
    Other keywords declare the study as `compare.KEYWORD` does: `arms={"grpo": "train.variant = @grpo()", ...}`,
    `variants=["grpo", "rloo"]`, `baseline`, `name`, `margin`, `metric`, ... `seeds`: how many, or which. `grow` extends
    a study that is there, by seeds or arms. Runs are processes of this machine, `workers` at a time, or what another
    `launcher` makes of them: `launcher="ray", launcher_options={"address": "auto", "cpus": 2}`; `accelerate`,
    `processes` and `track` are the options of the command line. `progress` shows how far they are. What is compared
    must be importable: a part that is defined in a notebook or in the script itself is refused.

    Raises GrpoLabError for what cannot work, before anything runs, and for an arm that breaks.
    """
    _enter()
    given = [find_config(str(file)) for file in _listed(files)]
    study = prepare_study(given, [*_listed(bindings), *_declarations(declared)], _seeds(seeds))
    if len(study.recipes) == 1:
        raise GrpoLabError(
            "compare has one arm, and nothing to compare it with: give arms=, variants= or a file with more"
        )
    _refuse_unimportable([study.config, *(line for arm in study.settings.arms for line in arm.bindings)])
    console = Console(quiet=not progress)
    options = RunOptions(
        Path(out),
        where(launcher, launcher_options),
        workers,
        read_processes(processes, accelerate),
        check_trackers(list(track)),
        grow=grow,
    )
    plan = plan_jobs(study, options, console)
    assert plan is not None
    run_jobs(plan, console)
    result = load_study(plan.folder)
    if result.stored.broken:
        arm, cause = next(iter(result.stored.broken.items()))
        raise GrpoLabError(f"arm '{arm}' is broken: {cause}\nMend it, and the same call goes on")
    return result


@checked(seed=NOT_NEGATIVE, processes=PROCESSES)
def train(
    files: Files = "embedded",
    bindings: str | Sequence[str] = (),
    *,
    seed: int = 0,
    name: str = "train",
    out: Path | str = "runs",
    accelerate: str | None = None,
    processes: int | None = None,
    track: Sequence[str] = (),
    progress: bool = True,
) -> Run:
    """Train one run, or go on where it stopped; returns it, finished.

    `files` and `bindings` are gin, as after `-c` and `-b`. Its folder is `OUT/NAME/VARIANT/seed=SEED`.

    Raises GrpoLabError for what cannot work, before anything runs, and for a run that fails.
    """
    _enter()
    check_folder_name("train: name =", str(name))
    console = Console(quiet=not progress)
    job, recipe = plan_run(
        _listed(files),
        _listed(bindings),
        Path(out) / name,
        int(seed),
        console,
        processes=read_processes(processes, accelerate),
        track=check_trackers(list(track)),
    )
    _refuse_unimportable([job.config])
    run_job(job, recipe, console)
    return load_run(job.folder)


def _enter() -> None:
    """Make this process one that finds parts and modules as the command line does."""
    find_modules_in(os.getcwd())
    import_parts()
    quiet_libraries()


def _listed(given: Any) -> list[str]:
    return [str(given)] if isinstance(given, str | Path) else [str(each) for each in given]


def _seeds(seeds: Any) -> Sequence[int] | None:
    if seeds is None:
        return None
    return [int(seed) for seed in seeds] if isinstance(seeds, Iterable) else list(range(int(seeds)))


def _declarations(declared: Mapping[str, Any]) -> list[str]:
    """Keywords as gin bindings of `compare`."""
    known = [name for name in SETTINGS["compare"].defaults if name != "seeds"]
    lines = []
    for name, value in declared.items():
        if name not in known:
            raise GrpoLabError(f"compare() has no keyword '{name}': {elsewhere(name) or near(name, known)}")
        value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
        if name == "variants":
            value = [value] if isinstance(value, str | Part) else value
            value = [each if isinstance(each, str) else as_part(each, "variant", "variants").name for each in value]
            lines.append(f"compare.variants = [{', '.join(f'@{each}' for each in value)}]")
        else:
            plain = {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else value
            lines.append(f"compare.{name} = {plain!r}")
    return lines


def _refuse_unimportable(texts: Iterable[str]) -> None:
    """Refuse parts that live in the running script or notebook: a run's process could not import them."""
    referenced = {name for text in texts for name in re.findall(r"@([\w.]+)", text)}
    for part in known_parts():
        if part.function.__module__ == "__main__" and referenced & {part.name, part.selector}:
            raise GrpoLabError(
                f"{part.kind} '{part.name}' is defined in this notebook or script, which the processes of runs cannot "
                "import: write it into a file, my_parts.py say, and give the binding 'import my_parts'"
            )
