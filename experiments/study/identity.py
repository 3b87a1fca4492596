"""What a run is: the facts in its manifest, and of these the ones that a resumed or reused run must share."""

import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

import core.parts.registry as registry
from core.device import takes_cpu
from core.loop.recipe import Recipe
from core.parts.bindings import references
from core.parts.registry import REGISTRIES, SETTINGS, Part
from experiments.study.configs import (
    DECLARING,
    build,
)
from experiments.study.own_code import code_digest, is_own
from experiments.study.processes import ONE, Processes
from experiments.study.settings import Arm

DRIVER: Final = Path("/proc/driver/nvidia/version")
LIBRARIES: Final = ("torch", "transformers", "accelerate", "numpy", "gin-config", "grpo-lab")
DATA: Final = "questions and answers"
"""Of a task or source that reads them from files: a digest, as the file behind a path may change."""
CODE: Final = "code of your parts"
TRAINING_KINDS: Final = frozenset(
    {
        "variant",
        "advantage",
        "objective",
        "aggregator",
        "kl",
        "correction",
        "credit",
        "selection",
        "filter",
        "shaping",
        "provider",
        "value_loss",
        "source",
    }
)
"""Kinds of parts that an untrained model's answers do not depend on."""
TRAINING_SETTINGS: Final = frozenset(
    {
        "variant",
        "source",
        "correction",
        "denominator",
        "anchor",
        "reward_weights",
        "providers",
        "steps",
        "token_budget",
        "seconds_budget",
        "prompts",
        "group_size",
        "top_p",
        "top_k",
        "min_p",
        "trainer_support",
        "epochs",
        "minibatches",
        "staleness",
        "micro_tokens",
        "checkpoint_every",
        "stored_groups",
    }
)
"""Hyper-parameters of `train` that they do not depend on either."""
FILES: Final = "source of your parts"
"""What runs of earlier versions have instead of CODE: digests of whole files, of all parts that were imported."""


def facts(
    config: str,
    arm: Arm,
    seed: int,
    processes: Processes = ONE,
    *,
    recipe: Recipe | None = None,
    like: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The entries of a run's manifest on where it came from; `identity` is what a resumed run must share.

    `recipe` is what `config` builds, where it has been built. `like`: the identity on disk, so that the new one has
    the same form where that is of an earlier version.
    """
    with registry.config(text=config, bindings=arm.bindings):
        text = registry.config_text()
        recipe = recipe or build("train")
        parts = parts_of(recipe)
    if like is not None and in_use(like.get("config", ""), parts) == in_use(text, parts):
        text = like["config"]  # they differ in what another arm uses
    own = [part for part in parts if is_own(part.function.__module__)]
    code: dict[str, Any] = {CODE: {f"{part.kind} {part.name}": code_digest(part.function) for part in own}}
    if like is not None and FILES in like:
        code = {FILES: {**like[FILES], **{part.function.__module__: part.source for part in own}}}
    data = recipe.data if like is None or DATA in like else ""
    return {
        "arm": arm.label,
        "identity": {
            "config": text,
            "seed": seed,
            **code,
            **({DATA: data} if data else {}),
            "library versions": {name: version(name) for name in LIBRARIES},
            **({"processes": str(processes)} if processes.number > 1 else {}),
        },
        "git": _revision(),
        "python": platform.python_version(),
        "hardware": hardware(),
        "command": " ".join(sys.argv),
    }


def parts_of(recipe: Recipe) -> list[Part]:
    """Every part that a recipe uses, by the config in force: its own, and those that they refer to through bindings."""
    waiting = [*recipe.parts, *(part for part in SETTINGS.values() if part.name not in DECLARING)]
    parts: dict[tuple[str, str], Part] = {}
    while waiting:
        part = waiting.pop(0)
        if (part.kind, part.name) not in parts:
            parts[part.kind, part.name] = part
            waiting += references(part)
    return [parts[key] for key in sorted(parts)]


def in_use(text: str, parts: Sequence[Part]) -> list[str]:
    """The lines of a config that bind something of these parts, and the macros in them; an import does nothing."""
    names = {part.name for part in parts}
    lines = [line for line in text.splitlines() if " = " in line]
    keys = {line: line.partition(" = ")[0].split(".") for line in lines}
    used = [line for line, key in keys.items() if len(key) > 1 and key[-2] in names]
    macros = {key[0]: line for line, key in keys.items() if len(key) == 1}
    for line in used:  # grows in the loop: a macro may name another
        used += [macros.pop(name) for name in list(macros) if re.search(rf"%{re.escape(name)}\b", line)]
    return sorted(used)


def before_training(identity: Mapping[str, Any]) -> str:
    """Digest of a run's identity without what only training reads: with it, runs begin with the same evaluation."""
    kept = {
        **identity,
        "config": [line for line in identity["config"].splitlines() if not _is_of_training(line)],
        CODE: {name: code for name, code in identity.get(CODE, {}).items() if name.split()[0] not in TRAINING_KINDS},
    }
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def _is_of_training(line: str) -> bool:
    """Whether a line of a config binds what an untrained model's answers do not depend on."""
    owner, _, parameter = line.partition(" = ")[0].rpartition(".")
    owner = owner.rpartition(".")[2]
    if owner == "train":
        return parameter in TRAINING_SETTINGS
    return owner in ("adamw", "uniform_age") or any(owner in REGISTRIES[kind] for kind in TRAINING_KINDS)


def operative(config: str, arm: Arm) -> str:
    """The gin text that a run of this arm is made of."""
    with registry.config(text=config, bindings=arm.bindings):
        return registry.config_text()


def hardware() -> str:
    """What decides the last bits: the processor and its vector instructions; before it the GPU that runs compute on."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    processor = f"{named[1] if named else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return processor if takes_cpu() else f"{_accelerator()}; {processor}"


def _accelerator() -> str:
    """The model of this process's device, its driver and CUDA's version, as far as they can be had."""
    kind = str(torch.accelerator.current_accelerator())
    name = getattr(getattr(torch, kind, None), "get_device_name", lambda: kind)()
    driver = re.search(r"NVRM version:.*?\s(\d+\.[\d.]+)\s", DRIVER.read_text()) if DRIVER.is_file() else None
    cuda = torch.version.cuda
    return ", ".join([name, *([f"driver {driver[1]}"] if driver else []), *([f"CUDA {cuda}"] if cuda else [])])


@cache
def _revision() -> str | None:
    """Git revision of the code, if it is run from a checkout and git is installed: as this process found it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed: what git finds above may be a user's own project
        return None
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return result.stdout.strip() or None
