"""Every shipped variant, and all that a run may be made of, on the pretend device: no tensor in a wrong place."""

from pathlib import Path
from typing import Final

import pytest

from core import VARIANTS
from core.model.policy import PolicySettings, load_policy
from tests.pretend.process import on_pretend
from tests.pretend.runs import Trained, command, preferences_and_what_learns_from_them, straight_and_resumed, trained
from tests.pretend.test_loop import check_steady

pytestmark = pytest.mark.slow

LACKS_A_PROVIDER: Final = "grpo_process"
"""Of step rewards, which are a task's business."""
SOURCES: Final = {"sft": ("train.source = @worked_solutions()", "train.group_size = 1", "train.max_tokens = 40")}
REWARDED: Final = ("import tests.pretend.parity", "train.rewards = [@parity]")
"""A model of random weights has something to learn."""
RUNS: Final[dict[str, tuple[str, ...]]] = {
    "a reference that moves": ("train.variant = @grpo()", "grpo.kl_coef = 0.1", "reference.every = 1"),
    "KL in the reward": ("train.variant = @grpo()", "grpo.kl_coef = 0.1", "grpo.kl_place = 'reward'", "grpo.kl = @k1"),
    "temperature": ("train.variant = @grpo()", "train.temperature = 0.7"),
    "a shared critic": ("train.variant = @ppo()", "critic.trunk = 'shared'"),
    "a frozen critic": (
        "train.variant = @ppo()",
        "critic.trunk = 'frozen'",
        "ppo.kl_coef = 0.1",
        "ppo.kl_target = 0.1",
    ),
    "adapters and a reference": ("train.variant = @grpo()", "grpo.kl_coef = 0.1", "policy.lora_rank = 4"),
    "adapters, bfloat16, activations computed again": (
        "train.variant = @grpo()",
        "policy.lora_rank = 4",
        "policy.dtype = 'bfloat16'",
        "policy.gradient_checkpointing = True",
    ),
    "float16": ("train.variant = @grpo()", "policy.dtype = 'float16'"),
    "micro-batches and epochs": ("train.variant = @grpo()", "train.micro_tokens = 60", "train.epochs = 2"),
    "a moving average": ("train.variant = @grpo()", "evaluation.ema_lag = 0.2", "evaluation.surprise = True"),
    "staleness": ("train.variant = @grpo()", "train.staleness = 1"),
    "mixed staleness, filter": ("train.variant = @dapo()", "train.staleness = @uniform_age()", "uniform_age.most = 2"),
    "truncated sampling": ("train.variant = @grpo()", "train.top_p = 0.9", "train.top_k = 8"),
    "truncated sampling, trained on what was kept": (
        "train.variant = @grpo()",
        "train.top_p = 0.9",
        "train.trainer_support = 'truncated'",
    ),
    "a perturbed sampler, corrected": (
        "train.variant = @grpo()",
        "train.generator = @perturbed()",
        "perturbed.divergence = 1e-3",
        "train.correction = @token_truncated",
    ),
}


@pytest.fixture
def untaught(tiny_folder: Path) -> tuple[str, ...]:
    """What binds a model of one layer: two thirds of what the embedded one computes are the other two."""
    return (f"policy.model = '{tiny_folder}'", *REWARDED)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {LACKS_A_PROVIDER}))
def test_a_variant_takes_two_steps(name: str, untaught: tuple[str, ...]) -> None:
    check_finished(on_pretend(trained, *untaught, f"train.variant = @{name}()", *SOURCES.get(name, ())))


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_takes_two_steps(name: str, untaught: tuple[str, ...]) -> None:
    check_finished(on_pretend(trained, *untaught, *RUNS[name]))


def test_branches_that_long_responses_and_large_models_take() -> None:
    """The fused attention kernel, logits in many chunks and blocks, noise from a table, prompts held once."""
    patches = {
        "core.model.packing.LARGE_SCORES": 0,
        "core.model.logps.CHUNK_ELEMENTS": {"cpu": 200, "other": 200},
        "core.model.logps.BLOCK_ELEMENTS": {"cpu": 50, "other": 50},
        "core.generation.noise.SMALL_VOCABULARY": 0,
        "core.generation.native.SMALL_VOCABULARY": 0,
        "core.model.caching.MANY_COLUMNS": 0,
    }
    check_finished(on_pretend(trained, "train.variant = @grpo()", "grpo.kl_coef = 0.1", patches=patches))


@pytest.mark.parametrize(
    "name", ["a reference that moves", "adapters and a reference", "staleness", "a moving average"]
)
def test_a_run_gone_on_with_ends_with_the_same_bits(name: str) -> None:
    straight, resumed = on_pretend(straight_and_resumed, *RUNS[name], "train.steps = 3")
    assert straight.hashes == resumed.hashes
    assert straight.hashes["final_weights"] != straight.hashes["initial_weights"]


def test_preferences_a_reward_model_and_what_learns_from_them() -> None:
    for found in on_pretend(preferences_and_what_learns_from_them):
        check_finished(found)


def test_a_judge_grades(tiny_folder: Path, tmp_path: Path) -> None:
    judge = load_policy(PolicySettings(str(tiny_folder)))
    judge.model.config.max_position_embeddings = 1024
    judge.save(tmp_path / "judge")
    (tmp_path / "principles.txt").write_text("1+1=2")
    bindings = (
        f"judge.model = '{tmp_path / 'judge'}'",
        f"judge.principles = '{tmp_path / 'principles.txt'}'",
        "judge.verdicts = ('1', '0')",
    )
    check_finished(on_pretend(trained, *bindings, "train.group_size = 2", config="rlaif"))


def test_the_lens_on_a_model() -> None:
    words = ("lens", "grpo", "rloo", "--model", "embedded", "--prompts", "4", "--group-size", "2")
    on_pretend(command, *words, "-b", "train.max_tokens = 24", "--out", "lens")


def check_finished(found: Trained) -> None:
    assert len(found.lines) == 2
    assert found.hashes["final_weights"]
    assert any(line["grad_norm"] for line in found.lines)  # it did update
    assert found.launches > 1000
    check_steady(found)
