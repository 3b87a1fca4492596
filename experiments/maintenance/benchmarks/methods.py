"""What dropping the critic saves: measured peak memory and seconds a step of methods on the same batch.

    python -m experiments.maintenance.benchmarks.methods [-c smollm2] [--methods 'grpo; ppo'] [--steps 6] [--rounds 3]

Every method runs on the same prompts, samples and limits, in a process of its own. Peaks are what is in use, in two
steps (`experiments.memory.measure`). Seconds are medians over the steps after the first, of runs that alternate between
the methods for a few rounds; ratios are to the first method.
"""

import argparse
import statistics
from typing import Final

from core.parts.registry import config
from experiments.memory.forecast import forecast
from experiments.memory.measure import Measured, measure
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import (
    CONFIGS,
    build,
    find_config,
    run_text,
)

METHODS: Final = {
    "grpo": ("train.variant = @grpo()",),
    "rloo": ("train.variant = @rloo()",),
    "remax": ("train.variant = @remax()",),
    "reinforce_pp": ("train.variant = @reinforce_pp()",),
    "grpo, KL": ("train.variant = @grpo()", "grpo.kl_coef = 0.05"),
    "dpo": ("train.variant = @dpo()",),
    "ppo": ("train.variant = @ppo()",),
    "ppo, KL": ("train.variant = @ppo()", "ppo.kl_coef = 0.05"),
    "ppo, shared": ("train.variant = @ppo()", "critic.trunk = 'shared'"),
    "ppo, frozen": ("train.variant = @ppo()", "critic.trunk = 'frozen'"),
}
"""With a KL penalty a reference is held; a critic has a transformer of its own, or the policy's."""
QUIET: Final = ("evaluation.every = 1000", "evaluation.questions = 2")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="embedded", metavar="FILE")
    parser.add_argument("-b", "--bind", action="append", default=[], metavar="'NAME = VALUE'")
    parser.add_argument("--methods", default=None, metavar="LIST", help=f"of: {'; '.join(METHODS)} (default: all)")
    for name, value in (("steps", 6), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    import_parts()
    quiet_libraries()
    texts, forecasts, peaks = {}, {}, {}
    chosen = {name.strip(): METHODS[name.strip()] for name in (options.methods or ";".join(METHODS)).split(";")}
    for name, own in chosen.items():
        with config([find_config(options.config)], [*options.bind, *QUIET, *own], include_from=[CONFIGS]):
            forecasts[name], texts[name] = forecast(build("train")).peak, run_text()
        peaks[name] = measure(texts[name]).peak
    timed: dict[str, list[Measured]] = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name, text in texts.items():
            timed[name].append(measure(text, keeps_freed=True, steps=options.steps))
    seconds = {name: statistics.median(measured.seconds for measured in rounds) for name, rounds in timed.items()}
    first = next(iter(chosen))
    for name in chosen:
        memory, time = peaks[name] / peaks[first], seconds[name] / seconds[first]
        print(
            f"{name:<12} peak {peaks[name] / 2**20:6.0f} MiB ({memory:.2f}), forecast {forecasts[name] / 2**20:.0f}; "
            f"{seconds[name]:7.3f} s a step ({time:.2f}); {timed[name][0].length:.1f} tokens a response"
        )


if __name__ == "__main__":
    main()
