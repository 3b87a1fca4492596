"""One run on two processes: they find each other, and take the step that one process takes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from experiments.doctor.finding import CAVEAT, FAILS, REPORT, WORKS, Finding
from experiments.doctor.models import subject_of
from experiments.doctor.training import name, small_bindings, trained
from experiments.doctor.visit import Visit

RANKS: Final = 2
WAYS: Final = {"two processes": "ddp", "two processes, sharded": "fsdp2"}
"""Rows, and the shipped configuration of accelerate of each."""
APART: Final = 1e-4
"""Relative difference of a first gradient's norm: sums are added in another order."""


def check_ranks(visit: Visit) -> Iterator[Finding]:
    """The small run on two processes, by NCCL where there are two GPUs and else by gloo on the CPU."""
    import torch

    import core.parts.registry as registry
    from core.device import VARIABLE
    from experiments.study.configs import CONFIGS, find_config, run_text

    by_nccl = torch.cuda.is_available() and torch.cuda.device_count() >= RANKS
    more = "; NCCL was not tried, for want of a second GPU" if subject_of(visit).on_gpu and not by_nccl else ""
    if not by_nccl:
        os.environ[VARIABLE] = "cpu"
    manifest, lines = trained(visit, "one process")
    before = {"hashes": manifest["hashes"], "metrics": lines}
    with registry.config([find_config("embedded")], small_bindings(subject_of(visit)), include_from=[CONFIGS]):
        text = run_text()
    how = "NCCL" if by_nccl else "gloo on the CPU"
    for title, configuration in WAYS.items():
        found = _in_two(text, Path(visit.scratch) / title, configuration)
        yield judge_ranks(name(title, visit), before, *found, how, more)


def _in_two(text: str, folder: Path, configuration: str) -> tuple[Any, Any]:
    """Hashes and first line of metrics of a run on two processes."""
    from experiments.launchers.torchrun import run_in_processes
    from experiments.study.processes import read_processes
    from experiments.study.settings import Arm

    run_in_processes(text, Arm("grpo", ()), 0, str(folder), read_processes(RANKS, configuration), lambda _: None)
    hashes = json.loads((folder / "manifest.json").read_text())["hashes"]
    return hashes, json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def judge_ranks(title: str, before: Any, hashes: Any, first: Any, how: str, more: str = "") -> Finding:
    """The row of two processes' first step beside that of one."""
    if hashes["prompts"] != before["hashes"]["prompts"]:
        return Finding(title, FAILS, f"{how}: other prompts than one process has{more}", REPORT)
    if hashes["first_rollout"] != before["hashes"]["first_rollout"]:
        seen = f"{how}: the same prompts and other samples than one process has: a last bit flipped a token{more}"
        return Finding(title, CAVEAT, seen, "Hold the number of processes fixed throughout a study.")
    one, two = before["metrics"][0]["grad_norm"], first["grad_norm"]
    apart = abs(two / one - 1)
    seen = f"{how}: the same prompts and samples; the first gradient's norm differs by {apart:.1g} of itself{more}"
    if not apart <= APART:
        return Finding(title, FAILS, seen, REPORT, {"apart": apart})
    return Finding(title, WORKS, seen, numbers={"apart": apart})
