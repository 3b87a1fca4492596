"""What a step leaves behind: the line that is logged, and a few responses as text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from core.distributed import gather
from core.loop.episodes import turns_of
from core.loop.evaluation import mean
from core.loop.learn import Learned
from core.loop.rollout import Rollout
from core.loop.run_state import RunState, Spent
from core.loop.scoring import alarm
from core.loop.update import UpdateMetrics
from core.parts.batch import Batch

BINS: Final = 10
"""Bins of equally many tokens in which a critic's values are held against what came of them."""


def line_of(
    state: RunState, before: Spent, rollout: Rollout, learned: Learned, evaluations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the step that was just taken logs, but for clocks; `before` is what had been spent before it."""
    step, recipe, batch = state.step, state.recipe, learned.batch
    now = state.spent
    sampled, skipped, _, *passed = (after - then for after, then in zip(now, before, strict=True))
    forward, backward = (sum(gather([tokens])) for tokens in passed)
    ungraded = rollout.batch.groups - batch.groups if rollout.batch is not None and batch is not None else 0
    return step_record(step, rollout, batch, learned.metrics) | {
        **age_record(batch, before.updates),
        "forward_tokens": forward,
        "backward_tokens": backward,
        "sampled_tokens": sampled,
        "total_sampled_tokens": now.sampled_tokens,
        "learning_rate": recipe.optimizer.rate(step, recipe.steps),
        "dropped_groups": rollout.dropped_groups + ungraded,
        "skipped_prompts": skipped,
        "old_logps_from": "forward pass" if batch is not None and batch.old_logps is not None else "update",
        "prompts_hash": state.hashes["prompts"],
        "budget_share": state.budget_share,  # for those who follow the run by its lines
        "evaluation": {e["split"]: e["summary"]["accuracy"] for e in evaluations},
    }


def step_record(step: int, rollout: Rollout, batch: Batch | None, metrics: UpdateMetrics) -> dict[str, Any]:
    """What a step logs, but for counters and clocks.

    Reward, accuracy, lengths and entropy are those of the first round before filtering and shaping: the same prompts
    for every arm of a seed.
    """
    first = rollout.first_round
    correct, lengths = first.require("correct"), first.written.sum(-1).float()
    parts = first.require("reward_parts")
    judged = ~parts.isnan().any(-1)  # not what came with labels alone
    entropy, kept = first.require("behaviour_entropy")[first.written], first.support_logmass
    return {
        "step": step,
        "reward": mean(first.rewards),
        "reward_parts": {name: mean(parts[..., k]) for k, name in enumerate(first.reward_names)},
        "accuracy": mean(correct[judged].float()),
        "accuracy_lenient": mean(rollout.lenient[judged].float()),
        "length": mean(lengths),
        "length_correct": mean(lengths[judged & correct]),
        "length_incorrect": mean(lengths[judged & ~correct]),
        "truncated": mean(first.require("truncated").float()),
        "entropy": mean(entropy),
        **({"kept_mass": mean(torch.exp(kept[first.written]))} if kept is not None else {}),
        "no_spread": mean(first.no_spread.float()) if first.groups else None,
        **episode_record(first),
        "groups": batch.groups if batch is not None else 0,
        "rounds": rollout.rounds,
        "discarded_tokens": rollout.discarded_tokens,
        "trained_tokens": metrics.trained_tokens,
        "skipped_updates": metrics.skipped + (metrics.steps == 0),
        **(_kl_record(batch) if batch is not None and batch.kl_rewards is not None else {}),
        **(value_record(batch) if batch is not None and batch.returns is not None else {}),
        "causes": dict(sorted(rollout.causes.items())),
        "alarm": alarm(
            first.rewards,
            first.require("truncated"),
            correct=correct,
            verdicts=parts[..., 0],
            filtered=rollout.batch is None,
            in_turns=first.turns is not None,
        ),
        **dict(sorted(metrics.averages().items())),
    }


def episode_record(batch: Batch) -> dict[str, Any]:
    """Of episodes: turns and tokens read in the mean, calls of tools, and each turn's mean reward."""
    if batch.turns is None:
        return {}
    turns, calls, rewards = batch.turns, batch.require("tool_calls"), batch.require("turn_rewards")
    count = turns.amax(-1)
    reached = range(1, int(count.max()) + 1) if count.numel() else ()
    return {
        "turns": mean(count.float()),
        "observation_tokens": mean((batch.response_mask & ~batch.written).sum(-1).float()),
        "tool_calls": mean((calls == 1).sum(-1).float()),
        "tool_failures": mean((calls == -1).sum(-1).float()),
        "turn_reward": {str(k): mean(rewards.where(turns == k, 0.0).sum(-1)[count >= k]) for k in reached},
    }


def age_record(batch: Batch | None, version: int) -> dict[str, float | int | None]:
    """Mean and largest age of the tokens that count, in updates, at the first update, of weights of this version."""
    if batch is None or batch.token_version is None:
        return {}
    ages = (version - batch.token_version)[batch.mask]
    return {"age": mean(ages.double()), "age_max": int(ages.max()) if len(ages) else None}


def _kl_record(batch: Batch) -> dict[str, float | None]:
    """Mean over tokens of the divergence whose penalty was taken off the reward, in nats, and its coefficient."""
    return {"kl": mean(batch.require("kl_rewards")[batch.mask] / -batch.kl_coef), "kl_coef": batch.kl_coef}


def value_record(batch: Batch) -> dict[str, float | None]:
    """How well a critic's values V predicted the returns R of a rollout, over counted tokens.

        value_explained_variance   1 - var(R - V) / var(R): 1 is perfect, 0 no better than a constant
        value_bias                 mean(V - R)
        value_slope                cov(V, R) / var(V), 1 where differences between values are as large as they should be
        value_calibration_error    mean of |mean V - mean R| over bins of equally many tokens, in order of V

    None where it is not defined: all returns, or all values, are equal.
    """
    values, returns = (batch.require(name)[batch.mask].double() for name in ("values", "returns"))
    if not len(values):
        return {}
    spread_of_values, spread_of_returns = values.var(correction=0), returns.var(correction=0)
    together = ((values - values.mean()) * (returns - returns.mean())).mean()
    return {
        "value_explained_variance": _ratio((returns - values).var(correction=0), spread_of_returns, one_minus=True),
        "value_bias": float((values - returns).mean()),
        "value_slope": _ratio(together, spread_of_values),
        "value_calibration_error": _calibration_error(values, returns),
    }


def _ratio(numerator: Tensor, denominator: Tensor, *, one_minus: bool = False) -> float | None:
    if denominator <= 0:
        return None
    ratio = float(numerator / denominator)
    return 1 - ratio if one_minus else ratio


def _calibration_error(values: Tensor, returns: Tensor) -> float:
    # equal values predict the same: which of them comes first may not matter
    _, which, count = torch.unique(values, return_inverse=True, return_counts=True)
    returns = (torch.zeros_like(values[: len(count)]).index_add(0, which, returns) / count)[which]
    order = values.argsort(stable=True)
    bins = [rows for rows in order.tensor_split(BINS) if len(rows)]
    gaps = torch.stack([(values[rows].mean() - returns[rows].mean()).abs() for rows in bins])
    sizes = torch.tensor([len(rows) for rows in bins], dtype=gaps.dtype)
    return float((gaps * sizes).sum() / sizes.sum())


def rollout_record(state: RunState, learned: Learned) -> list[dict[str, Any]]:
    """A few groups as text, with rewards and the advantage of each response's first token; none where none was left."""
    batch, advantages = learned.batch, learned.advantages
    if batch is None or advantages is None:
        return []
    groups = []
    for p in range(min(state.recipe.stored_groups, batch.groups)):
        tokens, mask = batch.require("response_tokens")[p], batch.response_mask[p]
        texts = state.policy.texts([row[valid] for row, valid in zip(tokens, mask, strict=True)])
        groups.append(
            {
                "prompt": batch.problems[p].prompt,
                "answer": batch.problems[p].answer,
                "responses": [
                    {
                        "text": text,
                        "reward": float(batch.rewards[p, g]),
                        "advantage": float(advantages[p, g, 0]),
                        "length": int(batch.written[p, g].sum()),
                        **({"turns": turns_of(batch.transcripts[p][g])} if batch.transcripts else {}),
                    }
                    for g, text in enumerate(texts)
                ],
            }
        )
    return groups
