"""What of a DeepSpeed configuration is used, and what is refused; that it trains is in `test_ranks`."""

import json
from pathlib import Path

import pytest
import torch

from core import GrpoLabError
from core.model.deepspeed import Zero3, zero_settings
from core.model.policy import PolicySettings, load_policy
from core.model.sharding import configured_sharding
from experiments.study.processes import read_processes


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The shipped configuration, as processes get it."""
    for name, value in read_processes(None, "deepspeed_zero3").environment.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_the_shipped_configuration_asks_for_stage_3() -> None:
    assert configured_sharding() is not None
    assert zero_settings()["stage"] == 3


@pytest.mark.usefixtures("environment")
def test_deepspeed_understands_it() -> None:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert DeepSpeedZeroConfig(**zero_settings()).stage == 3


def test_of_a_file_the_settings_of_zero_count(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    zero = {"stage": 3, "overlap_comm": False, "reduce_bucket_size": "auto"}
    (tmp_path / "mine.json").write_text(json.dumps({"zero_optimization": zero, "gradient_clipping": 7}))
    environment.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "mine.json"))
    assert zero_settings() == {"stage": 3, "overlap_comm": False}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ZERO_STAGE", "2", "zero_stage = 2 .* must be 3"),
        ("OFFLOAD_PARAM_DEVICE", "cpu", "offload_param_device .* must be 'none'"),
        ("OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device .* must be 'none'"),
        ("ZERO3_INIT", "true", "zero3_init_flag .* must be false"),
    ],
)
def test_what_is_not_supported_is_named(name: str, value: str, message: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(GrpoLabError, match=message):
        configured_sharding()


def test_half_precision_is_refused() -> None:
    with pytest.raises(GrpoLabError, match="'float16' does not work with DeepSpeed"):
        Zero3({"stage": 3}, load_policy(PolicySettings("embedded")).model, torch.float16)
