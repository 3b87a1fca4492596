"""OpenRLHF's own code, called on our tensors.

Advantages come from its experience maker and losses from its actor's training step, both on objects that were never
initialised. Its packages import DeepSpeed and vLLM on the way; stand-ins take their places.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from core import Batch
from experiments.maintenance.conformance.cases import pairs, token_rewards
from experiments.maintenance.conformance.stand_ins import bare_object, bare_package, stand_in, without


@cache
def library() -> SimpleNamespace:
    """Its classes and functions, imported when first asked for: it installs on few versions of Python."""
    with without("deepspeed", "vllm", SamplingParams=object):
        bare_package("openrlhf.utils", get_tokenizer=None)
        stand_in("openrlhf.utils.deepspeed", DeepspeedStrategy=object)
        stand_in(
            "openrlhf.utils.deepspeed.deepspeed_utils", offload_deepspeed_states=None, reload_deepspeed_states=None
        )
        models = bare_package("openrlhf.models", Actor=object)
        from openrlhf.models.loss import DPOLoss, PairWiseLoss, PolicyLoss, SFTLoss, ValueLoss, aggregate_loss
        from openrlhf.models.utils import compute_approx_kl

        models.__dict__.update(PolicyLoss=PolicyLoss, aggregate_loss=aggregate_loss)
        ppo_utils = bare_package("openrlhf.trainer.ppo_utils")
        from openrlhf.trainer.ppo_utils.experience import Experience
        from openrlhf.trainer.ppo_utils.kl_controller import AdaptiveKLController
        from openrlhf.trainer.ppo_utils.length_penalty import apply_overlong_penalty
        from openrlhf.trainer.ppo_utils.replay_buffer import NaiveReplayBuffer

        ppo_utils.__dict__.update(NaiveReplayBuffer=NaiveReplayBuffer)
        bare_package("openrlhf.trainer.ray")
        stand_in("openrlhf.trainer.ray.launcher", RayActorGroup=object, BaseModelActor=object)
        stand_in("openrlhf.trainer.ray.vllm_engine", batch_vllm_engine_call=None)
        from openrlhf.trainer.ppo_utils import samples_generator
        from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
        from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

    return SimpleNamespace(
        PolicyLoss=PolicyLoss,
        ValueLoss=ValueLoss,
        SFTLoss=SFTLoss,
        PairWiseLoss=PairWiseLoss,
        aggregate_loss=aggregate_loss,
        compute_approx_kl=compute_approx_kl,
        Experience=Experience,
        AdaptiveKLController=AdaptiveKLController,
        apply_overlong_penalty=apply_overlong_penalty,
        samples_generator=samples_generator,
        RemoteExperienceMaker=RemoteExperienceMaker,
        ActorPPOTrainer=ActorPPOTrainer,
        DPOLoss=DPOLoss,
    )


def kl(logps: Tensor, ref_logps: Tensor, estimator: str, unbiased_gradient: bool) -> Tensor:
    """[B, T]: its estimator of the divergence from the reference policy."""
    result: Tensor = library().compute_approx_kl(
        logps, ref_logps, kl_estimator=estimator, unbiased_gradient=unbiased_gradient
    )
    return result


def aggregate(losses: Tensor, batch: Batch, by_token: bool) -> Tensor:
    """Its reduction of a loss matrix [B, T] by itself, which counts the rows that have a token."""
    result: Tensor = library().aggregate_loss(losses, batch.rows("mask").double(), token_level_loss=by_token)
    return result


def advantages(
    estimator: str,
    batch: Batch,
    *,
    kl_coef: float = 0.0,
    kl_estimator: str = "k1",
    reward_clip: float = 10.0,
    gamma: float = 1.0,
    lam: float = 1.0,
) -> Tensor:
    """[B, T]: its experience maker's advantages, with its per-token KL penalty in the reward."""
    args = SimpleNamespace(
        reward=SimpleNamespace(clip_range=(-reward_clip, reward_clip)),
        rollout=SimpleNamespace(n_samples_per_prompt=batch.group_size),
        algo=SimpleNamespace(advantage=SimpleNamespace(estimator=estimator, gamma=gamma, lambd=lam, no_std_norm=False)),
    )
    penalty = torch.zeros_like(batch.rows("old_logps"))
    if kl_coef:
        penalty = library().compute_approx_kl(
            batch.rows("old_logps"), batch.rows("ref_logps"), kl_estimator=kl_estimator
        )
    experience = library().Experience(
        index=list(range(batch.rewards.numel())),
        rewards=batch.rewards.flatten().clone(),
        kl=penalty,
        action_mask=batch.rows("mask"),
        values=batch.rows("values"),
        info={},
    )
    maker = bare_object(
        library().RemoteExperienceMaker,
        strategy=SimpleNamespace(args=args),
        advantage_estimator=estimator,
        kl_ctl=SimpleNamespace(value=kl_coef),
    )
    result: Tensor = maker.compute_advantages_and_returns([experience])[0].advantages
    return result


def loss(
    batch: Batch,
    logps: Tensor,
    advantages: Tensor,
    *,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    unbiased_gradient: bool = False,
    **of_loss: Any,
) -> Tensor:
    """The loss of its actor's training step; `of_loss` are arguments of its `PolicyLoss`."""
    losses = []
    strategy = SimpleNamespace(
        ring_attn_group=None,
        backward=lambda loss, *_: losses.append(loss),
        optimizer_step=lambda *_, **__: None,
        get_grad_norm=lambda _: 0.0,
    )
    args = SimpleNamespace(
        actor=SimpleNamespace(entropy_coef=None),
        algo=SimpleNamespace(
            kl=SimpleNamespace(
                use_loss=kl_coef > 0, init_coef=kl_coef, estimator=kl_estimator, unbiased_gradient=unbiased_gradient
            )
        ),
        train=SimpleNamespace(dynamic_batch_enable=False),
    )

    def actor(*_: Any, **__: Any) -> tuple[Tensor, SimpleNamespace]:
        return logps, SimpleNamespace()

    actor.train = lambda: None  # type: ignore[attr-defined]
    trainer = bare_object(
        library().ActorPPOTrainer,
        actor=actor,
        actor_loss_fn=library().PolicyLoss(**of_loss),
        strategy=strategy,
        args=args,
        aux_loss=False,
        actor_optim=None,
        ema_model=None,
        replay_buffer=None,
        actor_scheduler=SimpleNamespace(get_last_lr=lambda: [0.0]),
    )
    experience = library().Experience(
        action_mask=batch.rows("mask"),
        action_log_probs=batch.rows("old_logps"),
        advantages=advantages,
        info={},
        base_action_log_probs=batch.rows("ref_logps"),
        rollout_log_probs=batch.rows("behaviour_logps"),
    )
    trainer.training_step(experience, kl_coef, step=0)
    result: Tensor = losses[0]
    return result


def dpo(batch: Batch, logps: Tensor, sides: Tensor, **of_loss: Any) -> Tensor:
    """Mean over groups of its `DPOLoss` of all pairs of the group; `sides` [B] says which are preferred.

    Its trainer hands in sums over the tokens of a response.
    """
    mask = batch.rows("mask")
    ours, ref = ((x * mask).sum(-1) for x in (logps, batch.rows("ref_logps")))
    function = library().DPOLoss(**of_loss)
    losses = [function(ours[w], ours[other], ref[w], ref[other])[0] for w, other in pairs(batch, sides)]
    return sum(losses, start=torch.zeros((), dtype=torch.float64)) / batch.groups


def imitation(batch: Batch, logps: Tensor) -> Tensor:
    """The loss of its supervised fine-tuning."""
    result: Tensor = library().SFTLoss()(logps, batch.rows("mask").double())
    return result


def correction(batch: Batch, level: str, mode: str, low: float, high: float) -> Tensor:
    """[B, T]: the factors of its correction, from what they do to the loss of a policy that has not moved."""
    advantages = torch.ones(batch.rows("mask").shape, dtype=torch.float64, requires_grad=True)
    value = loss(
        batch,
        batch.rows("old_logps"),
        advantages,
        is_correction_level=level,
        is_correction_mode=mode,
        is_correction_threshold=(low, high),
    )
    (gradient,) = torch.autograd.grad(value, advantages)
    return -gradient * batch.mask.sum()


def unwhitened_gae(batch: Batch, gamma: float, lam: float) -> Tensor:
    """[B, T]: its generalised advantage estimates before whitening."""
    maker = bare_object(library().RemoteExperienceMaker)
    result: Tensor = maker.get_advantages_and_returns(
        batch.rows("values"), token_rewards(batch), batch.rows("mask"), gamma, lam
    )[0]
    return result


def value_loss(batch: Batch, values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Its critic's loss of values [B, T], a mean over tokens."""
    loss = library().ValueLoss(clip_eps=clip)
    result = loss(values, batch.rows("values"), returns, action_mask=batch.rows("mask"))
    value: Tensor = result[0] if isinstance(result, tuple) else result
    return value


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    """Its reward model's loss."""
    result: Tensor = library().PairWiseLoss()(chosen, rejected, margin)
    return result


def adapted_coefficient(coefficient: float, kl: float, target: float, horizon: float, samples: int) -> float:
    """The next KL coefficient of its adaptive controller."""
    controller = library().AdaptiveKLController(coefficient, target, horizon)
    controller.update(kl, samples)
    return float(controller.value)


def overlong(batch: Batch, limit: int, buffer: float, penalty: float) -> Tensor:
    """[P, G]: rewards with its punishment of length."""
    experience = library().Experience(rewards=batch.rewards.flatten().clone(), response_length=batch.lengths.flatten())
    library().apply_overlong_penalty([experience], limit, buffer, penalty)
    result: Tensor = experience.rewards.view(batch.rewards.shape)
    return result


def kept(batch: Batch, low: float, high: float) -> Tensor:
    """[P], bool: groups whose mean reward is in the range of its dynamic filtering."""
    pending = list(range(batch.groups))
    here = SimpleNamespace(
        wait=lambda refs, **_: (refs[:1], refs[1:]),
        get=lambda p: [library().Experience(scores=reward[None], index=[p]) for reward in batch.rewards[p]],
    )
    generator = SimpleNamespace(
        args=SimpleNamespace(algo=SimpleNamespace(dynamic_filtering_range=(low, high))),
        _dispatch_prompts_to_vllm=lambda *_, **__: pending,
        _process_response_into_experience=lambda experience, **_: experience,
    )
    prompts = iter([(None, ["?"] * batch.groups, [""] * batch.groups, [None] * batch.groups)])
    quiet = patch.object(
        library().samples_generator,
        "tqdm",
        lambda *_, **__: SimpleNamespace(set_postfix=lambda *_: None, update=lambda: None),
    )
    with patch.object(library().samples_generator, "ray", here), quiet:
        accepted, *_ = library().samples_generator.SamplesGenerator._generate_vllm(
            generator, prompts, batch.groups, True
        )
    survivors = {experience.index[0] for experience in accepted}
    return torch.tensor([p in survivors for p in range(batch.groups)])
