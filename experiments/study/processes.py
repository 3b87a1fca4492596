"""How many processes a run has, and what accelerate's configuration sets for each: a part of a run's identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from accelerate.commands.config.config_args import load_config_from_file

from core import GrpoLabError
from core.errors import near

SHIPPED: Final = Path(__file__).parents[1] / "configs" / "accelerate"


@dataclass(frozen=True)
class Processes:
    """How many processes a run has, and the environment variables by which accelerate's configuration reaches each."""

    number: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def sharding(self) -> str | None:
        """How weights and optimizer state are spread over them, if they are."""
        ways = {"ACCELERATE_USE_FSDP": "sharded", "ACCELERATE_USE_DEEPSPEED": "sharded by DeepSpeed"}
        return next((way for name, way in ways.items() if name in self.environment), None)

    def __str__(self) -> str:
        return f"{self.number}, {self.sharding}" if self.sharding else str(self.number)


ONE: Final = Processes()


def read_processes(number: int | None, config: str | None) -> Processes:
    """Those of `--processes` and `--accelerate`: a shipped configuration by name, or a file of accelerate's own."""
    if config is None:
        return Processes(number or 1)
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    path = shipped.get(config, Path(config))
    if not path.is_file():
        raise GrpoLabError(f"--accelerate {config}: no such file, and none of the shipped: {near(config, shipped)}")
    try:
        settings = load_config_from_file(str(path))
    except Exception as error:  # whatever the parser raises
        raise GrpoLabError(f"--accelerate {path} cannot be read: {error}") from error
    if settings.num_machines > 1:
        raise GrpoLabError(
            f"--accelerate {path}: num_machines = {settings.num_machines}: here a run has one machine; "
            "with several, start grpolab train on each by accelerate launch"
        )
    kind = getattr(settings.distributed_type, "name", settings.distributed_type)  # YAML reads a bare NO as false
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "FSDP", "DEEPSPEED"):
        raise GrpoLabError(
            f"--accelerate {path}: distributed_type {kind} is not supported; data parallel (ddp) and "
            "sharded (fsdp2, deepspeed_zero3) runs are"
        )
    if str(settings.mixed_precision) != "no":
        raise GrpoLabError(
            f"--accelerate {path}: mixed_precision must be 'no': precision is policy.dtype, a part of the "
            "run's identity"
        )
    environment = {}
    if kind == "FSDP":
        fsdp: Mapping[str, Any] = settings.fsdp_config or {}
        environment = {name.upper(): str(value).lower() for name, value in fsdp.items()}
        if environment.get("FSDP_ACTIVATION_CHECKPOINTING") == "true":
            raise GrpoLabError(
                f"--accelerate {path}: fsdp_activation_checkpointing is policy.gradient_checkpointing "
                "here: remove it and bind that"
            )
        environment["ACCELERATE_USE_FSDP"] = "true"
    if kind == "DEEPSPEED":
        # zero_stage becomes ..._ZERO_STAGE, zero3_init_flag ..._ZERO3_INIT, deepspeed_config_file ..._CONFIG_FILE
        environment = {
            f"ACCELERATE_DEEPSPEED_{name.removeprefix('deepspeed_').removesuffix('_flag').upper()}": str(value)
            for name, value in settings.deepspeed_config.items()
        }
        environment["ACCELERATE_USE_DEEPSPEED"] = "true"
    number = number or settings.num_processes
    if not isinstance(number, int) or number < 1:
        raise GrpoLabError(f"--accelerate {path}: num_processes must be at least 1; set it there or give --processes")
    return Processes(number, environment)
