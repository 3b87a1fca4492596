"""What cannot hold in TRL is refused with setting, value and remedy, before anything is loaded."""

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("trl")

import trl
from trl import GRPOConfig, GRPOTrainer

from core import CORRECTIONS
from core.errors import GrpoLabError
from experiments.bridges.trl import surface
from experiments.bridges.trl.refusals import OF_THE_VARIANT
from experiments.bridges.trl.trainer import BridgedGRPOTrainer
from experiments.bridges.variant import variant_of

pytestmark = pytest.mark.filterwarnings("ignore")


def make(variant: str, bindings: tuple[str, ...] = (), given: Any = (), **settings: Any) -> None:
    """Without a model: whatever is loaded would fail in another way."""
    config = GRPOConfig(output_dir="nowhere", use_cpu=True, bf16=False, **settings)
    rewards = [abs, min]
    BridgedGRPOTrainer("no/model", rewards, config, variant=variant_of(variant, bindings=bindings), **dict(given))


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "a step over two generations": (
        ("grpo",),
        {"gradient_accumulation_steps": 3, "steps_per_generation": 4},
        "steps_per_generation = 4 is no multiple of gradient_accumulation_steps = 3",
    ),
    "TRL's loss": (("grpo",), {"loss_type": "dr_grpo"}, "loss_type = 'dr_grpo' would not act: bind the variant's"),
    "TRL's entropy": (("grpo",), {"entropy_coef": 0.1}, "entropy_coef = 0.1 would not act: bind entropy_coef on"),
    "TRL's quantile": (("grpo",), {"top_entropy_quantile": 0.2}, "top_entropy_quantile = 0.2 would not act"),
    "TRL's mask": (("grpo",), {"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold = 0.5 would not act"),
    "TRL's truncation": (("grpo",), {"mask_truncated_completions": True}, "bind truncated = 'mask' on the variant"),
    "TRL's KL": (("grpo",), {"beta": 0.1}, "beta = 0.1 would not act: bind kl and kl_coef on the variant"),
    "two coefficients": (("grpo", ("grpo.kl_coef = 0.2",)), {"beta": 0.1}, "differs from its kl_coef = 0.2"),
    "a critic": (("ppo",), {}, "cannot be trained inside TRL: advantage whitened_gae needs values"),
    "steps that judge": (("grpo_process",), {}, "TRL's rewards are numbers for whole responses"),
    "groups in pieces": (
        ("dpo",),
        {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "num_generations": 4},
        "reads whole groups, and TRL deals their rows to different micro-batches: set steps_per_generation = 1",
    ),
    "a verdict of two functions": (
        ("dapo",),
        {},
        "its filter nonuniform reads the verifier's verdict, and there are 2",
    ),
    "an unknown verdict": (
        ("grpo", (), {"correct": "right"}),
        {},
        "correct = 'right' is no reward function; there are: abs, min",
    ),
    "a greedy baseline beside a rollout_func": (
        ("remax", (), {"rollout_func": print}),
        {},
        "its baseline is a greedy response to each prompt, which was not tried with a rollout_func",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_hold_is_refused(name: str) -> None:
    of_variant, settings, message = REFUSED[name]
    with pytest.raises(GrpoLabError) as refused:
        make(*of_variant, **settings)
    assert message in str(refused.value)


def test_a_correction_is_either_trls_or_the_variants() -> None:
    # use_vllm is set afterwards: at first it would look for vLLM
    config = GRPOConfig(output_dir="nowhere", use_cpu=True, bf16=False)
    config.use_vllm = True
    with pytest.raises(GrpoLabError, match="vllm_importance_sampling_correction = True is TRL's own"):
        BridgedGRPOTrainer("no/model", [abs], config, variant=variant_of("grpo"))
    config.use_vllm = False
    corrected = replace(variant_of("grpo"), correction=CORRECTIONS["token_truncated"])
    with pytest.raises(GrpoLabError, match="compares the trainer with another sampler"):
        BridgedGRPOTrainer("no/model", [abs], config, variant=corrected)


def test_every_setting_that_a_variant_decides_is_one_of_trls() -> None:
    assert OF_THE_VARIANT.keys() <= set(GRPOConfig.__dataclass_fields__)


def test_another_version_is_refused_with_those_that_were_tried() -> None:
    surface.check_surface(GRPOTrainer, trl.__version__)
    with pytest.raises(GrpoLabError, match=r"TRL 1\.17\.0 was not tried with grpo-lab; tried: 1\.16\.0"):
        surface.check_surface(GRPOTrainer, "1.17.0")


@pytest.mark.parametrize("name", [*surface.SURFACE, surface.LOGPS])
def test_a_method_that_has_changed_is_refused(name: str) -> None:
    changed = type("GRPOTrainer", (GRPOTrainer,), {name: lambda self, anything: anything})
    with pytest.raises(GrpoLabError, match=rf"GRPOTrainer\.{name} of TRL 1\.16\.0 takes \('self', 'anything'\), not"):
        surface.check_surface(changed, "1.16.0")
    without = type("GRPOTrainer", (), {})
    with pytest.raises(GrpoLabError, match="takes None, not"):
        surface.check_surface(without, "1.16.0")
