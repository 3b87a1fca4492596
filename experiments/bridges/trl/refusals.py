"""What cannot hold inside TRL, and settings that would not act, are refused before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from core.errors import GrpoLabError
from core.parts.options import AdvantageOptions, ObjectiveOptions
from core.parts.variant import Variant
from experiments.bridges.support import reads_verdict, refuse_impossible

OF_THE_VARIANT: Final[Mapping[str, str]] = {
    "loss_type": "bind the variant's objective and aggregator",
    "epsilon": "bind the objective's own bounds, e.g. clip.eps_low",
    "epsilon_high": "bind the objective's own bounds, e.g. clip.eps_high",
    "delta": "choose an objective with a second bound, e.g. dual_clip",
    "importance_sampling_level": "choose an objective of that level, e.g. gspo",
    "scale_rewards": "choose another advantage",
    "multi_objective_aggregation": "choose an advantage that reads every reward, e.g. gdpo's",
    "mask_truncated_completions": "bind truncated = 'mask' on the variant",
    "top_entropy_quantile": "choose an objective that does this",
    "off_policy_mask_threshold": "bind a correction on the variant",
    "entropy_coef": "bind entropy_coef on the variant",
    "use_adaptive_entropy": "bind entropy_coef on the variant",
    "use_bias_correction_kl": "bind another kl on the variant, e.g. k3_ratio",
    "sapo_temperature_neg": "bind the objective's own",
    "sapo_temperature_pos": "bind the objective's own",
    "vespo_k_pos": "bind the objective's own",
    "vespo_lambda_pos": "bind the objective's own",
    "vespo_k_neg": "bind the objective's own",
    "vespo_lambda_neg": "bind the objective's own",
}
"""Settings of TRL that a variant decides, by what to do instead: they would not act."""


def refuse(
    variant: Variant,
    config: Any,
    *,
    correct: str | None,
    rewards: Sequence[str],
    rollout_func: object | None = None,
    tools: bool = False,
) -> None:
    """Raise `GrpoLabError` for what a variant, with this `GRPOConfig`, cannot be inside TRL.

    `correct` names the reward function of the verdict, among those of these names.
    """
    refuse_impossible("trl", variant)
    problems = (
        *_settings(config),
        *_correction(variant, config, rollout_func),
        *_kl(variant, config),
        *_verdict(variant, correct, rewards),
        *_greedy(variant, config, rollout_func, tools),
        *_groups(variant, config),
    )
    for problem in problems:
        raise GrpoLabError(f"variant '{variant.name}' in TRL: {problem}")


def _settings(config: Any) -> list[str]:
    found = []
    generation, accumulation = config.steps_per_generation, config.gradient_accumulation_steps
    if generation % accumulation:
        found.append(
            f"steps_per_generation = {generation} is no multiple of gradient_accumulation_steps = {accumulation}: an "
            "optimizer step would span two generations, and its weights are not known when it begins; make it one"
        )
    defaults = {field.name: field.default for field in fields(config)}
    for name, instead in OF_THE_VARIANT.items():
        if getattr(config, name) != defaults[name]:
            found.append(f"{name} = {getattr(config, name)!r} would not act: {instead}, and leave it out here")
    if config.use_liger_kernel:
        found.append("use_liger_kernel = True was not tried: leave it out")
    return found


def _correction(variant: Variant, config: Any, rollout_func: object | None) -> list[str]:
    if config.use_vllm and config.vllm_importance_sampling_correction:
        return [
            "vllm_importance_sampling_correction = True is TRL's own and would not act: set it to False, and bind a "
            "correction on the variant if you want one"
        ]
    if variant.corrections and not config.use_vllm and rollout_func is None:
        return [
            f"its correction {variant.corrections[0]!r} compares the trainer with another sampler, and transformers' "
            "generation is the trainer: set use_vllm=True, or bind correction = None on the variant"
        ]
    return []


def _kl(variant: Variant, config: Any) -> list[str]:
    if config.beta and "ref_logps" not in variant.needs:
        return [f"beta = {config.beta:g} would not act: bind kl and kl_coef on the variant, and leave beta out"]
    if config.beta and variant.uses_kl and config.beta != variant.kl_coef:
        return [f"beta = {config.beta:g} differs from its kl_coef = {variant.kl_coef:g}: leave beta out"]
    return []


def _verdict(variant: Variant, correct: str | None, rewards: Sequence[str]) -> list[str]:
    if correct is not None and correct not in rewards:
        return [f"correct = {correct!r} is no reward function; there are: {', '.join(rewards)}"]
    readers = [part for part in variant.parts if part.kind in ("advantage", "filter") and reads_verdict(part)]
    if readers and correct is None and len(rewards) > 1:
        return [
            f"its {readers[0].kind} {readers[0].name} reads the verifier's verdict, and there are {len(rewards)} "
            "reward functions: name the one whose value, from 1 up, is the verdict: --correct, or correct= in a script"
        ]
    return []


def _greedy(variant: Variant, config: Any, rollout_func: object | None, tools: bool) -> list[str]:
    if "greedy_rewards" not in AdvantageOptions.of(variant.advantage).needs:
        return []
    others = {
        "a rollout_func": rollout_func is not None,
        "tools and environments": tools,
        "use_vllm": config.use_vllm,
        "use_transformers_continuous_batching": config.use_transformers_continuous_batching,
    }
    return [
        f"its baseline is a greedy response to each prompt, which was not tried with {name}: leave that out, or "
        "choose another advantage"
        for name, is_used in others.items()
        if is_used
    ]


def _groups(variant: Variant, config: Any) -> list[str]:
    if AdvantageOptions.of(variant.advantage).min_group > config.num_generations:
        return [f"num_generations = {config.num_generations} is less than its advantage needs"]
    if ObjectiveOptions.of(variant.objective).level != "group":
        return []
    size, steps = config.per_device_train_batch_size, config.steps_per_generation
    if steps != 1 or size % config.num_generations:
        return [
            f"its objective {variant.objective!r} reads whole groups, and TRL deals their rows to different "
            f"micro-batches: set steps_per_generation = 1 (here {steps}) and per_device_train_batch_size to a multiple "
            f"of num_generations = {config.num_generations} (here {size})"
        ]
    return []


def names_of(reward_funcs: Any) -> list[str]:
    """Names of reward functions and models, as TRL gives them."""
    every = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
    return [str(getattr(each, "__name__", each)).rsplit("/", 1)[-1] for each in every]
