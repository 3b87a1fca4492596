"""The work that `compare_revisions.py` times: a few steps of training, with the code in the current folder.

Takes the name of a config and bindings. Prints one JSON line: processor seconds of a step after the first, and of all
before the first ends; peak memory in GiB; the hash of the final weights.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main() -> None:
    """Train and print."""
    import torch

    import core
    import experiments.study.settings  # noqa: F401 - registers what studies are bound to
    from core.loop.train import run
    from core.parts.registry import config
    from core.store.run_folder import RunStore
    from experiments.setup import import_parts, quiet_libraries
    from experiments.study.configs import CONFIGS, build

    if Path.cwd() not in Path(core.__file__).parents:
        sys.exit(f"core was imported from {core.__file__}, not from the revision in {Path.cwd()}")
    torch.set_num_threads(1)
    import_parts()
    quiet_libraries()
    name, *bindings = sys.argv[1:]
    with config([CONFIGS / f"{name}.gin"], bindings):
        recipe = build("train")
    times: list[float] = []

    def note(_: Mapping[str, Any]) -> None:
        """When a step ended."""
        times.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        run(recipe, 0, store, facts={"identity": {}}, watch=note)
        weights = store.manifest["hashes"]["final_weights"]
    figures = {
        "seconds": (times[-2] - times[0]) / (len(times) - 2),  # the last step is followed by an evaluation
        "start": times[0],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "weights": weights,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
