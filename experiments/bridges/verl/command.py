"""verl's own command with a variant: settings are checked, then verl's runner is started with the bridge's trainer."""

import os
import sys
from importlib.metadata import version
from typing import Any, Final

import hydra
from omegaconf import OmegaConf, open_dict
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from core.errors import GrpoLabError
from experiments.bridges.verl.paths import use_in_workers
from experiments.bridges.verl.refusals import refuse, verdict_note
from experiments.bridges.verl.settings import PLACE, Settings
from experiments.bridges.verl.surface import refuse_untried

CAUTION: Final = "the bridge was compared with the bench step by step, on CPU, and never run end to end"
MANAGER: Final = "experiments.bridges.verl.seeds.KeyedAgentLoopManager"


def prepare(config: Any) -> str:
    """Check everything, set what the bridge itself decides in the configuration, and say what will be trained."""
    refuse_untried()
    node = OmegaConf.select(config, PLACE)
    given = {} if node is None else OmegaConf.to_container(node)
    with open_dict(config):
        seed = config.data.get("seed")
        config.actor_rollout_ref.grpolab = {**given, "folder": os.getcwd(), "seed": 0 if seed is None else int(seed)}
        settings = Settings.of(config.actor_rollout_ref.grpolab)
        variant = settings.make()
        refuse(variant, settings, config)
        config.critic.enable = False
        asks = {*variant.objective.parameters, *(["entropy"] if variant.entropy_coef else [])}
        config.actor_rollout_ref.actor.calculate_entropy |= "entropy" in asks
        if settings.keyed_noise:
            config.actor_rollout_ref.rollout.agent.agent_loop_manager_class = MANAGER
    lines = [f"grpo-lab: variant '{variant.name}' inside verl {version('verl')}; {CAUTION}.", verdict_note(variant)]
    return "\n".join(line for line in (*lines, str(variant)) if line)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)  # type: ignore[untyped-decorator]
def train(config: Any) -> None:
    """Train with verl, by its own configuration and command line."""
    try:
        told = prepare(config)
    except GrpoLabError as error:
        print(f"grpolab-verl: {error}", file=sys.stderr)
        sys.exit(2)
    print(told, flush=True)
    auto_set_device(config)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    use_in_workers()
    from experiments.bridges.verl.runner import BridgedRunner

    run_ppo(config, task_runner_class=BridgedRunner)
