"""What a run's configuration says of its arm and seed, as each library keeps it.

transformers   `training_args.bin` in the run's folder or a checkpoint: a pickle, of which only plain values are read
hydra (verl)   `.hydra/config.yaml`, beside the run or anywhere in what is analyzed, if it names the run's experiment
W&B, trackio   the configuration in the log
our bridges    the key `grpolab` of verl's `actor_rollout_ref`, or `grpolab.json` in the run's folder
"""

import io
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from experiments.results.tables.engines.log import Log, Settings, document, text_of
from experiments.results.tables.sheets import TableError

BRIDGE: Final = "grpolab.json"
HYDRA: Final = Path(".hydra", "config.yaml")
_ARGUMENTS: Final = "training_args.bin"


def settings_of(log: Log, hydra: Iterable[Path]) -> Settings:
    """Of the log itself, else of a file beside the run, else of a hydra configuration that names it."""
    if log.settings.source:
        return log.settings
    folder = log.run if log.run.is_dir() else log.run.parent
    own = folder == log.run
    if own and (folder / BRIDGE).is_file():
        return _from_bridge(document(folder / BRIDGE), str(folder / BRIDGE))
    if own and (
        arguments := next(iter(sorted([*folder.glob(_ARGUMENTS), *folder.glob(f"checkpoint-*/{_ARGUMENTS}")])), None)
    ):
        return from_mapping(read_arguments(arguments), str(arguments))
    if own and (folder / HYDRA).is_file():
        return from_mapping(read_yaml(folder / HYDRA), str(folder / HYDRA))
    for file in hydra:
        config = read_yaml(file)
        trainer = _level(config, "trainer")
        if trainer.get("experiment_name") == log.run.name and trainer.get("project_name") == log.run.parent.name:
            return from_mapping(config, str(file))
    return Settings()


def from_mapping(config: Mapping[str, Any], source: str) -> Settings:
    """Of a configuration of verl's, or of one with a `seed` at the top."""
    arm = config.get("arm")
    arm = arm if isinstance(arm, str) else None
    actor = config.get("actor_rollout_ref")
    if not isinstance(actor, Mapping):
        return Settings(source, arm, _whole(config.get("seed")))
    data, bridge = _level(config, "data"), _level(actor, "grpolab")
    seed = _whole(data.get("seed"))
    settings = _from_bridge(bridge, source) if bridge else Settings(source)
    return Settings(
        source,
        settings.arm or arm,
        settings.seed if seed is None else seed,
        unseeded_data="seed" in data and data["seed"] is None,
        keyed_noise=settings.keyed_noise,
    )


def _from_bridge(config: Mapping[str, Any], source: str) -> Settings:
    variant = config.get("variant")
    return Settings(
        source,
        variant if isinstance(variant, str) else None,
        _whole(config.get("seed")),
        keyed_noise=config.get("keyed_noise") is True,
    )


def _level(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    level = config.get(name)
    return level if isinstance(level, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file that is one mapping."""
    try:
        config = yaml.safe_load(text_of(file))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TableError(f"{file}: not YAML ({reason}); copy the file anew, or take it out") from None
    if not isinstance(config, dict):
        raise TableError(f"{file}: not a mapping of settings; copy the file anew, or take it out")
    return config


class _Inert:
    """Stands in for every class and function that a pickle names: nothing of it is imported or run."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, *_: Any) -> None:
        """Of a dictionary of another type."""


class _Plain(pickle.Unpickler):
    """Reads plain values and nothing else."""

    def find_class(self, *_: str) -> Any:
        return _Inert

    def persistent_load(self, *_: Any) -> Any:
        return None


def read_arguments(file: Path) -> Mapping[str, Any]:
    """The plain values of transformers' TrainingArguments, as torch.save writes them; {} where there are none.

    The file is a pickle, which could run anything: no class or function that it names is imported.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            data = archive.read(name) if name else b""
        arguments = _Plain(io.BytesIO(data)).load()
    except Exception:  # whatever a damaged archive or pickle raises: the seed is then not known
        return {}
    state = getattr(arguments, "state", None)
    return state if isinstance(state, Mapping) else {}
