"""What the bridge stands on in verl, its seeds, and what goes into verl's checkpoints."""

import asyncio
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import GrpoLabError
from experiments.bridges.running import RunningVariant
from experiments.bridges.variant import variant_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("verl")
    pytest.importorskip("transfer_queue")
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from experiments.bridges.verl import surface
    from experiments.bridges.verl.command import prepare
    from experiments.bridges.verl.refusals import MUST_BE, OF_THE_VARIANT
    from experiments.bridges.verl.seeds import KeyedAgentLoopManager, KeyedAgentLoopWorker, request_seed
    from experiments.bridges.verl.trainer import BridgedTrainer


def verls(*overrides: str) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", list(overrides))


GIVEN = (
    "+actor_rollout_ref.grpolab.variant=dapo",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.rollout.name=vllm",
)


def test_what_the_bridge_stands_on_is_as_it_was() -> None:
    surface.refuse_untried()


def test_another_version_and_another_signature_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "version", lambda _: "0.10.0")
    with pytest.raises(GrpoLabError, match=r"verl 0\.10\.0 is installed, and the bridge was tried with 0\.9\.1 alone"):
        surface.refuse_untried()
    monkeypatch.undo()
    monkeypatch.setattr(PPOTrainerSync.__mro__[1], "_compute_advantage", lambda self, batch: None)
    with pytest.raises(GrpoLabError, match=r"_compute_advantage takes \(self, batch\), and the bridge was made for"):
        surface.refuse_untried()


def test_defaults_of_what_would_not_act_are_verls() -> None:
    config = verls(*GIVEN)
    for name, (default, _) in {**OF_THE_VARIANT, **MUST_BE}.items():
        value = config
        for part in name.split("."):
            value = value[part]
        assert value == default, name


def test_a_run_that_can_be_says_what_it_trains_and_that_it_was_never_run_end_to_end() -> None:
    config = verls(*GIVEN, "data.seed=3")
    told = prepare(config)
    assert told.startswith("grpo-lab: variant 'dapo' inside verl 0.9.1; the bridge was compared with the bench step by")
    assert "never run end to end" in told
    assert "'acc'" in told
    assert config.actor_rollout_ref.grpolab.seed == 3
    assert config.actor_rollout_ref.grpolab.folder == str(Path.cwd())
    assert config.critic.enable is False
    assert config.actor_rollout_ref.actor.calculate_entropy is False
    assert not config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")


def test_bindings_are_read_as_the_card_writes_them() -> None:
    text = r'+actor_rollout_ref.grpolab.bind=["dapo.eps_high = 0.3","dapo.kl_coef = 0.0","grpo.kl_place = \"loss\""]'
    bindings = verls(*GIVEN, text).actor_rollout_ref.grpolab.bind
    assert list(bindings) == ["dapo.eps_high = 0.3", "dapo.kl_coef = 0.0", 'grpo.kl_place = "loss"']


def test_keyed_noise_is_in_the_runs_configuration() -> None:
    config = verls(*GIVEN, "data.seed=3", "+actor_rollout_ref.grpolab.keyed_noise=true")
    prepare(config)
    manager = config.actor_rollout_ref.rollout.agent.agent_loop_manager_class
    assert manager == "experiments.bridges.verl.seeds.KeyedAgentLoopManager"
    assert config.actor_rollout_ref.grpolab.keyed_noise is True


def seed_of(seed: int = 3, step: int = 1, validate: bool = False, **asked: Any) -> int:
    asked = {"raw_prompt": [{"role": "user", "content": "2+2="}], "index": 5, "session_id": 0, "uid": "x", **asked}
    return request_seed(seed, {"step": step, "validate": validate}, asked)


def test_every_request_has_its_own_seed_and_every_arm_the_same() -> None:
    other = [{"role": "user", "content": "2+3="}]
    seeds = [
        seed_of(),
        seed_of(seed=4),
        seed_of(step=2),
        seed_of(validate=True),
        seed_of(session_id=1),
        seed_of(index=6),
        seed_of(raw_prompt=other),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(uid="another") == seed_of(), "an identifier that is drawn anew in every run"
    assert seed_of() == 844682032341647933, "on every machine"


def test_an_agent_loops_requests_carry_the_seed_of_their_response(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    async def run(self: Any, sampling_params: Any, trajectory: Any, **asked: Any) -> None:
        sent.append((sampling_params, asked))

    monkeypatch.setattr(KeyedAgentLoopWorker.__mro__[1], "_run_agent_loop", run)
    worker: Any = object.__new__(KeyedAgentLoopWorker)
    settings = {"variant": "dapo", "seed": 3, "keyed_noise": True}
    worker.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(grpolab=settings))
    shared, trajectory = {"temperature": 1.0}, {"step": 1, "validate": False}
    question = [{"role": "user", "content": "2+2="}]
    for session in (0, 1):
        asked = {"raw_prompt": question, "index": 5, "session_id": session, "agent_name": "single_turn_agent"}
        asyncio.run(worker._run_agent_loop(shared, trajectory, **asked))
    assert shared == {"temperature": 1.0}, "all samples of a prompt have one dictionary"
    assert [params for params, _ in sent] == [
        {"temperature": 1.0, "seed": seed_of(session_id=0)},
        {"temperature": 1.0, "seed": seed_of(session_id=1)},
    ]
    assert sent[0][1]["agent_name"] == "single_turn_agent"


def test_the_manager_of_agent_loops_has_these_workers() -> None:
    manager = KeyedAgentLoopManager(SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=None, model=None)), None)
    assert issubclass(manager.agent_loop_workers_class.__ray_metadata__.modified_class, KeyedAgentLoopWorker)


def trainer(folder: Path, variant: str, step: int) -> Any:
    made: Any = object.__new__(BridgedTrainer)
    settings = SimpleNamespace(default_local_dir=str(folder), resume_mode="auto", resume_from_path=None)
    made.config, made.global_steps = SimpleNamespace(trainer=settings), step
    made.running = RunningVariant(variant_of(variant, bindings=["grpo.advantage = @running_baseline"]))
    return made


def test_what_an_estimator_remembers_is_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[bool] = []
    monkeypatch.setattr(
        PPOTrainerSync, "_save_checkpoint", lambda self: saved.append((tmp_path / "global_step_7/grpolab.pt").is_file())
    )
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", lambda self: None)
    first = trainer(tmp_path, "grpo", 7)
    first.running.advantage_state = {4: 0.5, -1: 0.25}
    first._save_checkpoint()
    assert saved == [True], "before verl names the checkpoint as the latest"
    again = trainer(tmp_path, "grpo", 7)
    again._load_checkpoint()
    assert again.running.advantage_state == {4: 0.5, -1: 0.25}
    fresh = trainer(tmp_path, "grpo", 0)
    fresh._load_checkpoint()
    assert fresh.running.advantage_state == {}
    with pytest.raises(GrpoLabError, match=r"global_step_8 has no grpolab\.pt: the checkpoint is of a run without"):
        trainer(tmp_path, "grpo", 8)._load_checkpoint()
