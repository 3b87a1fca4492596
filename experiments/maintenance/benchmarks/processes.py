"""Seconds a step of one run on one and two processes of this machine; each has its share of the cores as threads.

    python -m experiments.maintenance.benchmarks.processes -c smollm2 -b 'train.steps = 4'

The first step is not counted. Also whether the first step's reward and gradient norm are those of one process.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import core.parts.registry as registry
from experiments.launchers.job import Job, run_job
from experiments.options import add_config_options
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import (
    CONFIGS,
    find_config,
    run_text,
)
from experiments.study.processes import Processes, read_processes
from experiments.study.settings import Arm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    options = parser.parse_args()
    import_parts()
    quiet_libraries()
    cores = os.cpu_count() or 1
    kinds = {"1 process": Processes(), "2, ddp": read_processes(2, "ddp"), "2, fsdp2": read_processes(2, "fsdp2")}
    for name, processes in kinds.items():
        bindings = [*options.bind, f"train.threads = {max(1, cores // processes.number)}"]
        with registry.config([find_config(file) for file in options.config], bindings, include_from=[CONFIGS]):
            text = run_text()
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            run_job(Job(Arm("run", ()), 0, text, folder, processes=processes), lambda _: None)
            whole = time.perf_counter() - begun
            lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        steps = [sum(line["seconds"].get(phase, 0.0) for phase in ("sample", "fill", "update")) for line in lines[1:]]
        tokens = [line["sampled_tokens"] for line in lines[1:]]
        print(
            f"{name:10} {statistics.fmean(steps):.2f} s a step, {1000 * sum(steps) / sum(tokens):.2f} ms a sampled "
            f"token; {whole:.0f} s in all; first step: reward {lines[0]['reward']:.4f}, "
            f"gradient norm {lines[0]['grad_norm']:.5f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
