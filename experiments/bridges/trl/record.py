"""What a run writes beside TRL's own files: what it was, and the state that a checkpoint of TRL's does not hold."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from core.errors import GrpoLabError
from core.parts.variant import Variant

RECORD: Final = "grpolab.json"
STATE: Final = "grpolab_state.pt"


def write_record(folder: str, variant: Variant, seed: int, is_keyed: bool) -> None:
    """Write `grpolab.json`: variant, card, seed, whether its noise is keyed, and versions."""
    record = {
        "engine": "trl",
        "variant": variant.name,
        "seed": seed,
        "keyed_noise": is_keyed,
        "card": dict(variant.card()),
        "versions": {name: _version(name) for name in ("grpo-lab", "trl", "transformers", "torch")},
    }
    _replace(Path(folder) / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def write_state(checkpoint: str, state: dict[str, Any]) -> None:
    """Put the state into a checkpoint's folder."""
    Path(checkpoint).mkdir(parents=True, exist_ok=True)
    torch.save(state, Path(checkpoint) / f"{STATE}.tmp")
    os.replace(Path(checkpoint) / f"{STATE}.tmp", Path(checkpoint) / STATE)


def read_state(checkpoint: str, variant: str) -> dict[str, Any]:
    """The state in a checkpoint's folder; raises `GrpoLabError` where there is none, or that of another variant."""
    path = Path(checkpoint) / STATE
    if not path.exists():
        raise GrpoLabError(f"{path} is missing: {checkpoint} was not written by variant '{variant}'; start a new run")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["variant"] != variant:
        raise GrpoLabError(f"{path} is of variant '{state['variant']}', not '{variant}': resume with that one")
    return state


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
