"""What cannot hold inside verl, and settings that would not act, are refused before Ray is started."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.errors import GrpoLabError
from core.parts.options import AdvantageOptions
from core.parts.variant import Variant
from experiments.bridges.support import reads_verdict, refuse_impossible
from experiments.bridges.verl.settings import Settings

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
OF_THE_VARIANT: Final[Mapping[str, tuple[Any, str]]] = {
    "algorithm.adv_estimator": ("gae", "choose the variant's advantage"),
    "algorithm.gamma": (1.0, "bind the advantage's own, e.g. whitened_returns.gamma"),
    "algorithm.lam": (1.0, "choose another advantage"),
    "algorithm.norm_adv_by_std_in_grpo": (True, "choose group_mean or group_mean_std as the advantage"),
    "algorithm.use_kl_in_reward": (False, "bind kl_place = 'reward' and kl_coef on the variant"),
    "algorithm.kl_penalty": ("kl", "bind kl on the variant"),
    "algorithm.use_pf_ppo": (False, "the bridge has no such thing"),
    "algorithm.filter_groups.enable": (False, "bind a filter on the variant"),
    "algorithm.rollout_correction.rollout_is": (None, "bind a correction on the variant, e.g. @token_truncated"),
    "algorithm.rollout_correction.rollout_rs": (None, "bind a correction on the variant"),
    "algorithm.rollout_correction.bypass_mode": (False, "the old log-probabilities are the trainer's"),
    f"{ACTOR}.clip_ratio": (0.2, "bind the objective's own bounds, e.g. clip.eps_low"),
    f"{ACTOR}.clip_ratio_low": (0.2, "bind the objective's own bounds, e.g. clip.eps_low"),
    f"{ACTOR}.clip_ratio_high": (0.2, "bind the objective's own bounds, e.g. clip.eps_high"),
    f"{ACTOR}.clip_ratio_c": (3.0, "choose an objective with such a bound, e.g. dual_clip"),
    f"{ACTOR}.policy_loss.loss_mode": ("vanilla", "choose the variant's objective"),
    f"{ACTOR}.loss_agg_mode": ("token-mean", "choose the variant's aggregator"),
    f"{ACTOR}.loss_scale_factor": (None, "choose the variant's aggregator"),
    f"{ACTOR}.entropy_coeff": (0, "bind entropy_coef on the variant"),
    f"{ACTOR}.kl_loss_coef": (0.001, "bind kl_coef on the variant"),
    f"{ACTOR}.kl_loss_type": ("low_var_kl", "bind kl on the variant"),
}
"""Settings of verl that a variant decides, by their default and what to do instead: they would not act."""
MUST_BE: Final[Mapping[str, tuple[Any, str]]] = {
    "trainer.use_v1": (True, "the older trainer was not tried"),
    "trainer.v1.trainer_mode": ("sync", "in an asynchronous mode the rows of a step have several policies"),
    "trainer.critic_warmup": (0, "the bridge trains no critic"),
    "actor_rollout_ref.hybrid_engine": (True, "it belongs to an asynchronous mode"),
    "distillation.enabled": (False, "its loss would take the variant's place"),
    f"{ACTOR}.use_prefix_grouper": (False, "it was not tried"),
}
"""Settings of verl with the one value that the bridge stands on."""
STRATEGIES: Final = ("fsdp", "fsdp2", "megatron")


def refuse(variant: Variant, settings: Settings, config: Any) -> None:
    """Raise `GrpoLabError` for what a variant, with this configuration of verl, cannot be."""
    refuse_impossible("verl", variant)
    for problem in (*_settings(config), *_fields(variant, settings, config), *_noise(settings, config)):
        raise GrpoLabError(f"variant '{variant.name}' in verl: {problem}")


def _settings(config: Any) -> Iterator[str]:
    for name, (must, why) in MUST_BE.items():
        if (value := _at(config, name)) is not None and value != must:
            yield f"{name} = {value!r}: it must be {must!r}: {why}"
    if config.critic.enable:
        yield "critic.enable = True: the bridge trains no critic; leave it out"
    if (strategy := _at(config, f"{ACTOR}.strategy")) not in STRATEGIES:
        yield f"{ACTOR}.strategy = {strategy!r}: it must be one of {', '.join(STRATEGIES)}; others were not read"
    for name, (default, instead) in OF_THE_VARIANT.items():
        if (value := _at(config, name)) != default:
            yield f"{name} = {value!r} would not act: {instead}, and leave it out here"


def _fields(variant: Variant, settings: Settings, config: Any) -> Iterator[str]:
    """What the variant reads and verl has only where it is told to."""
    loads_reference = _at(config, f"{ACTOR}.use_kl_loss")
    if "ref_logps" in variant.needs and not loads_reference:
        yield f"it needs a reference policy: set {ACTOR}.use_kl_loss=True, which loads it; kl_coef is the variant's"
    if loads_reference and "ref_logps" not in variant.needs:
        yield f"{ACTOR}.use_kl_loss = True would not act: bind kl and kl_coef on the variant, or leave it out"
    if "behaviour_logps" in variant.needs and not _at(config, f"{ROLLOUT}.calculate_log_probs"):
        yield f"it needs the sampler's log-probabilities: set {ROLLOUT}.calculate_log_probs=True"
    if "sum_squared_probs" in variant.needs and _at(config, "actor_rollout_ref.model.use_fused_kernels"):
        yield "its advantage needs whole distributions: set actor_rollout_ref.model.use_fused_kernels=False"
    if "reward_parts" in variant.needs and not settings.reward_parts:
        yield (
            "its advantage reads several rewards: name what the reward function returns beside its score, "
            "+actor_rollout_ref.grpolab.reward_parts=[...]"
        )
    least, n = AdvantageOptions.of(variant.advantage).min_group, int(_at(config, f"{ROLLOUT}.n"))
    if n < least:
        yield f"{ROLLOUT}.n = {n}: its advantage needs groups of at least {least}"


def _noise(settings: Settings, config: Any) -> Iterator[str]:
    if not settings.keyed_noise:
        return
    if _at(config, "data.seed") is None:
        yield "keyed_noise has a seed for every request from that of the run: set data.seed"
    if (sampler := _at(config, f"{ROLLOUT}.name")) != "vllm":
        yield f"keyed_noise: {ROLLOUT}.name = {sampler!r}: vllm alone takes a seed with each request"
    if _at(config, f"{ROLLOUT}.agent.agent_loop_manager_class"):
        yield f"keyed_noise puts its own manager in place of {ROLLOUT}.agent.agent_loop_manager_class: leave that out"


def verdict_note(variant: Variant) -> str:
    """What a variant that reads the verdict expects of the reward function; empty for others."""
    reads = any(reads_verdict(part) for part in (variant.advantage, variant.filter) if part is not None)
    return "The reward function must return its verdict as 'acc', beside 'score'." if reads else ""


def _at(config: Any, name: str) -> Any:
    """A setting by its dotted name; None where verl's configuration lacks it."""
    for part in name.split("."):
        config = None if config is None else config.get(part)
    return config
