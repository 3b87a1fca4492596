"""What a run of verl says about its variant, and what is refused before anything is started."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from core import CORRECTIONS
from core.errors import GrpoLabError
from experiments.bridges.variant import variant_of
from experiments.bridges.verl.refusals import ACTOR, OF_THE_VARIANT, refuse, verdict_note
from experiments.bridges.verl.settings import Settings

CONFIG: Mapping[str, Any] = {
    "data.seed": 3,
    "critic.enable": None,
    "trainer.use_v1": True,
    "trainer.v1.trainer_mode": "sync",
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": None,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_kl_loss": False,
    **{name: default for name, (default, _) in OF_THE_VARIANT.items()},
}


class Node(dict[str, Any]):
    """A configuration whose values are reached as attributes too."""

    __getattr__ = dict.__getitem__


def config(**changes: Any) -> Node:
    """verl's, as far as the bridge reads it; dots are written as two underscores."""
    tree = Node()
    for name, value in {**CONFIG, **{name.replace("__", "."): x for name, x in changes.items()}}.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, Node())
        node[last] = value
    return tree


def refusal(name: str, *bindings: str, settings: Settings | None = None, **changes: Any) -> str:
    variant = variant_of(name, bindings=bindings)
    with pytest.raises(GrpoLabError) as refused:
        refuse(variant, settings or Settings(name), config(**changes))
    return str(refused.value)


def test_settings_are_read_from_verls_configuration() -> None:
    given = {"variant": "dapo", "import": ["mine"], "bind": ["dapo.eps_high = 0.3"], "keyed_noise": True, "seed": 3}
    assert Settings.of(given) == Settings("dapo", ("mine",), ("dapo.eps_high = 0.3",), 3, keyed_noise=True)
    made = Settings.of({"variant": "dapo", "bind": ["dapo.eps_high = 0.31"]}).make()
    assert made.objective.settings()["eps_high"].value == 0.31


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"no variant: give \+actor_rollout_ref.grpolab.variant=NAME"),
        ({"variant": "dapo", "binds": []}, "grpolab.binds is no setting; did you mean bind"),
        ({"variant": "dapo", "import": "mine"}, r"grpolab.import = 'mine' must be a list: \[mine\]"),
        ({"variant": "gdpo", "reward_parts": ["acc"], "reward_weights": [1, 2]}, "2 numbers for 1 reward_parts"),
    ],
)
def test_what_is_missing_or_unknown_is_named(given: Any, message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        Settings.of(given)


def test_what_a_variant_can_be_is_let_through() -> None:
    refuse(variant_of("dapo"), Settings("dapo"), config())
    refuse(
        variant_of("grpo", bindings=["grpo.kl_coef = 0.1"]), Settings("grpo"), config(**{f"{ACTOR}.use_kl_loss": True})
    )
    refuse(variant_of("gdpo"), Settings("gdpo", reward_parts=("acc", "form")), config())


@pytest.mark.parametrize("name", OF_THE_VARIANT)
def test_a_setting_of_verl_that_would_not_act_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(GrpoLabError) as refused:
        refuse(variant_of("dapo"), Settings("dapo"), config(**{name: "other"}))
    said = f"variant 'dapo' in verl: {name} = 'other' would not act: {OF_THE_VARIANT[name][1]}"
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("remax", {}, "advantage greedy_baseline needs greedy_rewards: verl trains on every response"),
        ("dapo", {"trainer__use_v1": False}, "trainer.use_v1 = False: it must be True"),
        ("dapo", {"trainer__v1__trainer_mode": "separate_async"}, "it must be 'sync'"),
        ("dapo", {"critic__enable": True}, "the bridge trains no critic"),
        ("dapo", {f"{ACTOR}.strategy": "veomni"}, "strategy = 'veomni': it must be one of fsdp, fsdp2, megatron"),
        ("dapo", {f"{ACTOR}.use_kl_loss": True}, "use_kl_loss = True would not act"),
        ("dapo", {"actor_rollout_ref__rollout__n": 1}, "rollout.n = 1: its advantage needs groups of at least 2"),
        ("gdpo", {}, "name what the reward function returns beside its score"),
        ("optimal_token", {"actor_rollout_ref__model__use_fused_kernels": True}, "set .*use_fused_kernels=False"),
    ],
)
def test_what_cannot_hold_is_refused(variant: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        refuse(variant_of(variant), Settings(variant), config(**changes))


def test_what_a_variant_reads_has_to_be_switched_on() -> None:
    assert "set actor_rollout_ref.actor.use_kl_loss=True" in refusal("grpo", "grpo.kl_coef = 0.1")
    corrected = replace(variant_of("grpo"), correction=CORRECTIONS["token_truncated"])
    with pytest.raises(GrpoLabError, match=r"rollout\.calculate_log_probs=True"):
        refuse(corrected, Settings("grpo"), config())


def test_keyed_noise_needs_a_seed_and_a_sampler_that_takes_one() -> None:
    keyed = Settings("dapo", keyed_noise=True)
    refuse(variant_of("dapo"), keyed, config())
    assert "set data.seed" in refusal("dapo", settings=keyed, data__seed=None)
    assert "vllm alone takes a seed" in refusal("dapo", settings=keyed, actor_rollout_ref__rollout__name="sglang")
    manager = {"actor_rollout_ref__rollout__agent__agent_loop_manager_class": "mine.Manager"}
    assert "agent_loop_manager_class: leave that out" in refusal("dapo", settings=keyed, **manager)


def test_a_variant_that_reads_the_verdict_says_so() -> None:
    assert "'acc'" in verdict_note(variant_of("dapo"))
    assert verdict_note(variant_of("grpo")) == ""
