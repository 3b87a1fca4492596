"""`grpolab-verl`: verl's own command with a variant, named by `+actor_rollout_ref.grpolab.variant=NAME`."""

import importlib.util
import sys


def main() -> None:
    """Train; a mistake ends with one readable message and exit code 2."""
    if importlib.util.find_spec("verl") is None:
        print(
            "grpolab-verl: verl is not installed here. It asks for another transformers than the bench: take its own "
            "environment, and add what the bridge needs: pip install gin-config; pip install --no-deps grpo-lab",
            file=sys.stderr,
        )
        sys.exit(2)
    from experiments.bridges.verl.command import train

    train()
