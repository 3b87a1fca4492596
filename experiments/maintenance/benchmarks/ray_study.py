"""Five variants x four seeds, by local processes and on three Ray nodes of which one is lost in the middle.

    python -m experiments.maintenance.benchmarks.ray_study

Prints whether the tables and every result file are the same, how many runs were begun again, and what both took. The
nodes are on this machine, so seconds compare the launchers' overhead, not their reach.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

SEEDS: Final = 4
STEPS: Final = 10
NODES: Final = 3
STUDY: Final = [
    "compare",
    "-c",
    "demo",
    "--seeds",
    str(SEEDS),
    "-b",
    f"train.steps = {STEPS}",
    "-b",
    "evaluation.every = 3",
    "-b",
    "train.checkpoint_every = 2",
]


def results(study: Path) -> dict[str, Any]:
    """Every result of a study by its place, clocks left out."""
    contents: dict[str, Any] = {}
    for pattern in ("tables/*", "*/seed=*/eval/*/*.json", "*/seed=*/rollouts/*", "*/seed=*/checkpoint/*"):
        contents |= {str(file.relative_to(study)): file.read_bytes() for file in study.glob(pattern)}
    for file in study.glob("*/seed=*/metrics.jsonl"):
        rows = map(json.loads, file.read_text().splitlines())
        contents[str(file.relative_to(study))] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return contents


def steps(study: Path) -> int:
    """Steps made so far."""
    return sum(file.read_bytes().count(b"\n") for file in study.glob("*/seed=*/metrics.jsonl"))


def grpolab(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """The study, with these options."""
    command = [sys.executable, "-m", "experiments.cli.main", *STUDY, "--out", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output_of(process: "subprocess.Popen[str]") -> Sequence[str]:
    """Its output; an error unless it ended with exit status 0."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(printed)
    return printed.splitlines()


def main() -> None:
    """Run both and print how they compare."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        begun = time.perf_counter()
        output_of(grpolab(folder / "local", "--workers", str(NODES)))
        local = time.perf_counter() - begun

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES - 1)]
        try:
            begun = time.perf_counter()
            process = grpolab(folder / "ray", "--launcher", "ray", "--address", cluster.address)
            half = len(list((folder / "local" / "demo").glob("*/seed=*"))) * STEPS // 2
            while process.poll() is None and steps(folder / "ray" / "demo") < half:
                time.sleep(0.1)
            cluster.remove_node(nodes[-1], allow_graceful=False)
            printed = output_of(process)
            rayed = time.perf_counter() - begun
        finally:
            cluster.shutdown()

        ours, theirs = (results(folder / name / "demo") for name in ("local", "ray"))
        tables = [{k: v for k, v in files.items() if k.startswith("tables/")} for files in (ours, theirs)]
        same = sum(ours.get(name) == theirs.get(name) for name in ours.keys() | theirs.keys())
        again = sum("begun again on" in line for line in printed)
        print(f"tables           {'identical' if tables[0] == tables[1] else 'DIFFERENT'} ({len(tables[0])} files)")
        print(f"result files     {same} of {len(ours.keys() | theirs.keys())} identical")
        print(f"runs begun again {again}, after 1 of {NODES} nodes was lost at half of all steps")
        print(f"seconds          {local:.0f} by {NODES} local processes, {rayed:.0f} on {NODES} nodes of one CPU")


if __name__ == "__main__":
    main()
