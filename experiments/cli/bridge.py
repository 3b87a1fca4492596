"""`grpolab bridge`: what of a variant holds inside TRL or verl, and the command that trains it there."""

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence

from experiments.bridges.options import add_part_options

MODEL_AND_DATA = {
    "trl": "--model_name_or_path MODEL --dataset_name DATASET --reward_funcs REWARD",
    "verl": "data.train_files=FILE data.val_files=FILE actor_rollout_ref.model.path=MODEL",
}
"""What stands for the engine's own options in the command."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `grpolab bridge`."""
    parser.add_argument("engine", choices=("trl", "verl"), help="the trainer that generates and steps")
    parser.add_argument("variant", metavar="VARIANT", help="a variant's name")
    add_part_options(parser)


def run_bridge(options: argparse.Namespace) -> int:
    """Print the card and the command line."""
    from experiments.bridges.support import TITLES, support
    from experiments.bridges.variant import variant_of

    variant = variant_of(options.variant, modules=options.modules, bindings=options.bind)
    lines = support(options.engine, variant)
    counts = Counter(line.degree for line in lines)
    summary = ", ".join(f"{counts[degree]} {degree}" for degree in ("exact", "approximate", "not possible"))
    print(f"{variant.name} inside {TITLES[options.engine]}: {summary}\n")
    widths = [max(len(text) for text in column) for column in zip(*((x.degree, x.subject) for x in lines), strict=True)]
    for line in lines:
        print(f"  {line.degree:<{widths[0]}}  {line.subject:<{widths[1]}}  {line.why}".rstrip())
    print("\nThe prompts, their order, the sampler, the optimizer and evaluation stay the trainer's.")
    if counts["not possible"]:
        print("What is not possible is refused at start. Other parts can be bound in its place with -b.")
    else:
        needs_reference, needs_sampler = variant.uses_kl, "behaviour_logps" in variant.needs
        print("To train it, with the trainer's own options at the end:\n")
        for command in commands(options, needs_reference, needs_sampler):
            print(f"  {command}")
    return 0


def commands(options: argparse.Namespace, needs_reference: bool, needs_sampler: bool) -> list[str]:
    """The command lines that train the variant: of one process or several."""
    rest = MODEL_AND_DATA[options.engine]
    if options.engine == "verl":
        return [f"grpolab-verl {shlex.join(_for_verl(options, needs_reference, needs_sampler))} {rest}"]
    own = ["--variant", options.variant]
    own += [word for module in options.modules for word in ("--import", module)]
    own += [word for binding in options.bind for word in ("--bind", binding)]
    sampler = ["--use_vllm", "True", "--vllm_importance_sampling_correction", "False"] if needs_sampler else []
    line = shlex.join([*own, "--", *sampler]) + f" {rest}"
    return [f"grpolab-trl {line}", f"accelerate launch $(which grpolab-trl) {line}"]


def _for_verl(options: argparse.Namespace, needs_reference: bool, needs_sampler: bool) -> list[str]:
    """Overrides in the grammar of Hydra."""
    here = "+actor_rollout_ref.grpolab."
    own = [f"{here}variant={options.variant}"]
    own += [f"{here}import={_list(options.modules)}"] if options.modules else []
    own += [f"{here}bind={_list(options.bind)}"] if options.bind else []
    own += ["actor_rollout_ref.actor.use_kl_loss=True"] if needs_reference else []
    own += ["actor_rollout_ref.rollout.calculate_log_probs=True"] if needs_sampler else []
    return own


def _list(texts: Sequence[str]) -> str:
    """A list of quoted strings; a backslash is one only before a quote there."""
    quoted = (text.replace('\\"', '\\\\"').replace('"', '\\"') for text in texts)
    return "[" + ",".join(f'"{text}"' for text in quoted) + "]"
