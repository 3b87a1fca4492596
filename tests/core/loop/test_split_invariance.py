"""A step's loss and gradient are those of its rows, however they are split, ordered and padded.

Weights are in float64 here; log-probabilities are float32 by design, so equality is to their rounding.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, KLS, OBJECTIVES, Batch, Part, TokenLoss, Variant
from core.loop.loss import weigh
from core.loop.update import UpdateMetrics, accumulate_gradients, compute_logps, micro_batches
from core.model.policy import Policy
from core.parts.options import AdvantageOptions, AggregatorOptions, ObjectiveOptions
from estimators.advantages.group import group_mean_std
from estimators.aggregators import seq_mean_token_mean, seq_mean_token_sum, seq_mean_token_sum_norm, token_mean
from estimators.kl import k3
from estimators.objectives.token import clip, policy_gradient

Gradients: TypeAlias = dict[str, Tensor]
MakeBatch: TypeAlias = Callable[..., Batch]

TOLERANCE = 2e-6
MICRO_TOKENS = (1, 14, 24, 40)
SPLITTABLE = [a for a in AGGREGATORS.values() if AggregatorOptions.of(a).split_invariant]
# every objective and every aggregator once: the loss is their product, token by token
PAIRS = [*((o, seq_mean_token_mean) for o in OBJECTIVES.values()), *((clip, a) for a in SPLITTABLE)]
# every KL and every correction once: a token's loss is the sum of its KL and of what the correction weighs
MOST = max(len(KLS), len(CORRECTIONS))
BESIDE = list(islice(zip(cycle(KLS.values()), cycle(CORRECTIONS.values()), strict=False), MOST))
every_pair = pytest.mark.parametrize(("objective", "aggregator"), PAIRS, ids=[f"{o.name}-{a.name}" for o, a in PAIRS])


@pytest.fixture
def policy(tiny: Policy) -> Policy:
    tiny.model.double()
    return tiny


@pytest.fixture(scope="module")
def plain(tiny_folder: Path) -> PreTrainedModel:
    """The same weights in transformers' own model with its own attention: nothing of ours."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        tiny_folder, dtype=torch.float64, attn_implementation="eager"
    )
    return model


class Outcome:
    """Loss, gradients and counts of one step."""

    def __init__(
        self, policy: Policy, variant: Variant, batch: Batch, advantages: Tensor, micro: int = 10**9, heat: float = 1.0
    ) -> None:
        policy.model.zero_grad()
        self.metrics = UpdateMetrics({})
        self.passes = 0

        def backward(loss: Tensor) -> None:
            self.passes += 1
            torch.autograd.backward(loss)

        self.loss = accumulate_gradients(
            policy,
            variant,
            batch,
            advantages,
            torch.Generator().manual_seed(0),
            self.metrics,
            temperature=heat,
            micro_tokens=micro,
            backward=backward,
        )
        self.gradients = parameter_gradients(policy.model)


def parameter_gradients(model: PreTrainedModel) -> Gradients:
    return {n: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters()}


def assert_equal(actual: Gradients, expected: Gradients, tolerance: float = TOLERANCE) -> None:
    """Equal within a share of the largest entry of the whole gradient."""
    assert actual.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-4
    for name, expected_gradient in expected.items():
        assert actual[name].isfinite().all(), name
        assert float((actual[name] - expected_gradient).abs().max()) <= tolerance * largest, name


def assert_same(actual: Outcome, expected: Outcome) -> None:
    assert actual.loss == pytest.approx(expected.loss, rel=TOLERANCE, abs=TOLERANCE)
    assert_equal(actual.gradients, expected.gradients)


def sampled(policy: Policy, make_batch: MakeBatch, *, holes: bool = True, seed: int = 0) -> tuple[Batch, Tensor]:
    """A batch whose old, reference and sampler's log-probs lie around the policy's own, and its advantages.

    Some ratios are then beyond the clip on both sides, and one row in three has no advantage. A hole is what an
    environment said: after it the next turn begins.
    """
    batch = make_batch(holes=holes, seed=seed)
    own = compute_logps(policy, batch, temperature=1.0, micro_tokens=10**9)
    draw = torch.Generator().manual_seed(seed + 1)

    def near(scale: float) -> Tensor:
        return own + scale * torch.randn(own.shape, generator=draw).where(batch.response_mask, 0.0)

    advantages = torch.randn(batch.rewards.shape, generator=draw)
    advantages[torch.rand(batch.rewards.shape, generator=draw) < 1 / 3] = 0
    batch = batch.having(old_logps=near(0.4), ref_logps=near(0.5), behaviour_logps=near(0.3))
    # up to 11 updates old
    age = torch.randint(12, batch.mask.shape, generator=draw)
    before = torch.nn.functional.pad(batch.mask[..., :-1], (1, 0), value=True)
    turns = torch.where(batch.response_mask, 1 + (batch.mask & ~before).cumsum(-1), 0)
    batch = batch.having(token_version=policy.version - age, turns=turns, anchors=turns)
    return batch, advantages[..., None].expand(batch.mask.shape)


def compose(objective: Part, aggregator: Part, **more: Any) -> Variant:
    return Variant(advantage=group_mean_std, objective=objective, aggregator=aggregator, **more)


def permuted(batch: Batch, order: Tensor) -> Batch:
    """The batch with the samples of every group in another order."""
    shape = batch.rewards.shape
    return batch.having(
        **{n: x[:, order] for n, x in vars(batch).items() if isinstance(x, Tensor) and x.shape[:2] == shape}
    )


def widened(batch: Batch, columns: int) -> Batch:
    """The batch with more padding, and rubbish in it."""
    wide = {}
    for name, x in vars(batch).items():
        if isinstance(x, Tensor) and x.shape == batch.mask.shape:
            wide[name] = torch.nn.functional.pad(x, (0, columns), value=math.nan if x.is_floating_point() else 0)
    return batch.having(**wide)


# splits, orders and padding


@every_pair
def test_any_split_gives_the_same_gradient(
    policy: Policy, make_batch: MakeBatch, objective: Part, aggregator: Part
) -> None:
    batch, advantages = sampled(policy, make_batch)
    variant = compose(objective, aggregator)
    whole = Outcome(policy, variant, batch, advantages)
    assert whole.passes == 1
    passes = []
    for micro in MICRO_TOKENS:
        split = Outcome(policy, variant, batch, advantages, micro)
        assert_same(split, whole)
        assert split.metrics.trained_tokens == whole.metrics.trained_tokens
        assert split.metrics.averages() == pytest.approx(whole.metrics.averages(), rel=1e-5)
        passes.append(split.passes)
    if ObjectiveOptions.of(objective).level == "group":
        assert passes[0] == batch.groups
        assert passes == sorted(passes, reverse=True)
    else:
        assert passes[0] > passes[1] > passes[2] > passes[3] > 1


@every_pair
def test_any_order_gives_the_same_gradient(
    policy: Policy, make_batch: MakeBatch, objective: Part, aggregator: Part
) -> None:
    if ObjectiveOptions.of(objective).prepare:
        pytest.skip("draws at random by row")
    batch, advantages = sampled(policy, make_batch)
    variant = compose(objective, aggregator)
    whole = Outcome(policy, variant, batch, advantages)
    for groups, samples in (([2, 0, 1], [0, 1, 2, 3]), ([0, 1, 2], [3, 1, 0, 2]), ([1, 2, 0], [2, 3, 1, 0])):
        g, s = torch.tensor(groups), torch.tensor(samples)
        assert_same(Outcome(policy, variant, permuted(batch, s).select(g), advantages[g][:, s], 17), whole)


@every_pair
def test_padding_changes_nothing(policy: Policy, make_batch: MakeBatch, objective: Part, aggregator: Part) -> None:
    batch, advantages = sampled(policy, make_batch)
    variant = compose(objective, aggregator)
    wide = torch.nn.functional.pad(advantages, (0, 5), value=math.nan)
    assert_same(Outcome(policy, variant, widened(batch, 5), wide), Outcome(policy, variant, batch, advantages))


@every_pair
def test_whatever_lies_outside_the_mask_changes_nothing(
    policy: Policy, make_batch: MakeBatch, objective: Part, aggregator: Part
) -> None:
    """A hole is a token that the policy did not write: its ratio may overflow, its numbers may be missing."""
    batch, advantages = sampled(policy, make_batch)
    variant = compose(objective, aggregator, kl=k3, kl_coef=0.1)
    expected = Outcome(policy, variant, batch, advantages)
    for junk in (math.nan, -math.inf, -1e4):
        spoilt = {n: getattr(batch, n).where(batch.mask, junk) for n in ("old_logps", "ref_logps", "behaviour_logps")}
        assert_same(Outcome(policy, variant, batch.having(**spoilt), advantages), expected)
    assert_same(Outcome(policy, variant, batch, advantages.where(batch.mask, math.nan)), expected)


@every_pair
def test_leaving_out_rows_without_advantage_changes_nothing(
    policy: Policy, make_batch: MakeBatch, objective: Part, aggregator: Part
) -> None:
    batch, advantages = sampled(policy, make_batch)
    every_row = replace(objective, options=replace(ObjectiveOptions.of(objective), zero_at_zero_advantage=False))
    whole = Outcome(policy, compose(every_row, aggregator), batch, advantages)
    assert whole.metrics.trained_tokens == int(batch.mask.sum())
    fewer = Outcome(policy, compose(objective, aggregator), batch, advantages)
    assert_same(fewer, whole)
    if ObjectiveOptions.of(objective).zero_at_zero_advantage and ObjectiveOptions.of(objective).level == "row":
        assert fewer.metrics.trained_tokens == int(batch.mask[advantages[..., 0] != 0].sum())


@pytest.mark.parametrize(("kl", "correction"), BESIDE, ids=[f"{k.name}-{c.name}" for k, c in BESIDE])
def test_with_kl_entropy_and_correction(policy: Policy, make_batch: MakeBatch, kl: Part, correction: Part) -> None:
    """Rows without advantage then still count: KL and entropy act on every token."""
    batch, advantages = sampled(policy, make_batch)
    variant = compose(clip, token_mean, kl=kl, kl_coef=0.3, entropy_coef=0.05, correction=correction)
    whole = Outcome(policy, variant, batch, advantages, heat=0.7)
    dropped = whole.metrics.sums["correction_dropped"]
    assert whole.metrics.trained_tokens == int(batch.mask.sum()) - dropped
    assert whole.metrics.sums["correction_dropped/count"] == int(batch.mask.sum())
    for micro in MICRO_TOKENS:
        assert_same(Outcome(policy, variant, batch, advantages, micro, 0.7), whole)


def test_a_local_token_mean_does_depend_on_the_split(policy: Policy, make_batch: MakeBatch) -> None:
    """The published mistake, declared as such: each micro-batch has a denominator of its own."""
    from core import aggregator

    @aggregator(split_invariant=False)
    def local_mean_for_split_test(mask: Tensor) -> Tensor:
        """Mean over the tokens of a micro-batch."""
        return mask.float() / mask.sum().clamp(min=1)

    batch, advantages = sampled(policy, make_batch)
    local, step = compose(policy_gradient, local_mean_for_split_test), compose(policy_gradient, token_mean)
    whole = Outcome(policy, step, batch, advantages)
    assert Outcome(policy, local, batch, advantages, 9).loss != pytest.approx(whole.loss, rel=1e-2)
    # by hand: the mean over micro-batches of the means over their tokens
    # (rows without advantage stay in: what is in a micro-batch is what its denominator counts)
    rows = batch.rows("mask").any(1).nonzero()[:, 0]
    logps = compute_logps(policy, batch, temperature=1.0, micro_tokens=10**9).flatten(0, 1)
    micros = list(micro_batches(batch, rows, 9))
    mask, A = batch.rows("mask"), advantages.flatten(0, 1)
    means = [(-A[m] * logps[m])[mask[m]].mean() for m in micros]
    assert Outcome(policy, local, batch, advantages, 9).loss == pytest.approx(float(sum(means)) / len(micros), rel=1e-5)


def test_nothing_counted_means_no_pass(policy: Policy, make_batch: MakeBatch) -> None:
    batch, advantages = sampled(policy, make_batch)
    empty = batch.having(mask=torch.zeros_like(batch.mask))
    for case, A in ((empty, advantages), (batch, torch.zeros_like(advantages))):
        outcome = Outcome(policy, compose(clip, token_mean), case, A)
        assert outcome.loss is None
        assert outcome.passes == 0
        assert outcome.metrics.trained_tokens == 0


# an independent form: row by row, transformers' own model, and plain loops


def row_logps(model: PreTrainedModel, batch: Batch, temperature: float) -> dict[tuple[int, int], Tensor]:
    """[V] log-probs at every token of every response, [n, V] by (prompt, sample), with gradient."""
    out = {}
    for p, prompt in enumerate(batch.prompt_tokens):
        for g in range(batch.group_size):
            response = batch.require("response_tokens")[p, g][batch.response_mask[p, g]]
            logits = model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0]
            out[p, g] = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, -1)
    return out


def token_weight(aggregator: Part, batch: Batch, p: int, g: int) -> float:
    """1 over the denominator, counted by hand."""
    rows, n = batch.groups * batch.group_size, int(batch.mask[p, g].sum())
    N = int(batch.mask.sum())
    return {
        token_mean: 1 / N,
        seq_mean_token_mean: 1 / (rows * n),
        seq_mean_token_sum: 1 / rows,
        seq_mean_token_sum_norm: 1 / (rows * batch.max_tokens),
    }[aggregator]


def looped(
    model: PreTrainedModel, variant: Variant, batch: Batch, advantages: Tensor, temperature: float
) -> tuple[float, Gradients]:
    """The loss token by token, in Python."""
    model.zero_grad()
    rows = row_logps(model, batch, temperature)
    total = torch.zeros((), dtype=torch.float64)
    tokens = batch.require("response_tokens")
    for (p, g), log_probs in rows.items():
        for t in range(len(log_probs)):
            if not batch.mask[p, g, t]:
                continue
            lp, A = log_probs[t, tokens[p, g, t]], float(advantages[p, g, t])
            old, ref, behaviour = (
                float(batch.require(n)[p, g, t]) for n in ("old_logps", "ref_logps", "behaviour_logps")
            )
            if variant.objective.name == "policy_gradient":
                loss = -A * lp
            else:
                q = torch.exp(lp - old)
                loss = -A * q
                if (A > 0 and q.item() > 1.2) or (A < 0 and q.item() < 0.8):
                    loss = torch.tensor(-A * min(max(q.item(), 0.8), 1.2))
            if variant.correction:
                loss = loss * min(math.exp(old - behaviour), 2.0)
            if variant.kl:
                loss = loss + variant.kl_coef * (torch.exp(ref - lp) - 1 - (ref - lp))
            entropy = -(log_probs[t].exp() * log_probs[t]).sum()
            total = total + token_weight(variant.aggregator, batch, p, g) * (loss - variant.entropy_coef * entropy)
    torch.autograd.backward(total)
    return float(total.detach()), parameter_gradients(model)


@pytest.mark.parametrize(
    "aggregator",
    [token_mean, seq_mean_token_mean, seq_mean_token_sum, seq_mean_token_sum_norm],
    ids=lambda part: part.name,
)
@pytest.mark.parametrize(
    ("objective", "more", "temperature"),
    [
        (policy_gradient, {}, 1.0),
        (clip, {}, 1.0),
        (clip, {"kl": k3, "kl_coef": 0.3, "entropy_coef": 0.1}, 0.7),
        (clip, {"correction": CORRECTIONS["token_truncated"]}, 1.0),
        (policy_gradient, {"kl": k3, "kl_coef": 0.5, "correction": CORRECTIONS["token_truncated"]}, 1.3),
    ],
    ids=["policy_gradient", "clip", "clip-kl-entropy-temperature", "clip-correction", "policy_gradient-kl-correction"],
)
def test_equals_the_formula_token_by_token(
    policy: Policy,
    plain: PreTrainedModel,
    make_batch: MakeBatch,
    aggregator: Part,
    objective: Part,
    more: dict[str, Any],
    temperature: float,
) -> None:
    batch, advantages = sampled(policy, make_batch)
    variant = compose(objective, aggregator, **more)
    loss, expected = looped(plain, variant, batch, advantages, temperature)
    actual = Outcome(policy, variant, batch, advantages, 17, temperature)
    assert actual.loss == pytest.approx(loss, rel=1e-5)
    assert_equal(actual.gradients, expected)
    if objective is clip:
        assert 0.05 < (actual.metrics.averages()["clip_fraction"] or 0) < 0.9


@every_pair
def test_equals_all_rows_at_once_in_transformers(
    policy: Policy, plain: PreTrainedModel, make_batch: MakeBatch, objective: Part, aggregator: Part
) -> None:
    """The registered parts on whole, padded rows: what a simple trainer would do."""
    if ObjectiveOptions.of(objective).prepare:
        pytest.skip("needs the core's preparation")
    batch, advantages = sampled(policy, make_batch)
    plain.zero_grad()
    logps = torch.zeros(batch.mask.shape, dtype=torch.float64)
    entropy = torch.zeros_like(logps)
    tokens = batch.require("response_tokens")
    for (p, g), log_probs in row_logps(plain, batch, 1.0).items():
        n = len(log_probs)
        logps[p, g, :n] = log_probs.gather(1, tokens[p, g, :n, None])[:, 0]
        entropy[p, g, :n] = -(log_probs.exp() * log_probs).sum(-1)
    known = {
        "logps": logps,
        "entropy": entropy,
        "advantages": advantages,
        "mask": batch.mask,
        "lengths": batch.lengths,
        **{name: getattr(batch, name) for name in ("old_logps", "ref_logps", "behaviour_logps", "values", "rewards")},
        "truncated": batch.truncated,
    }
    arguments = {name: known[name] for name in objective.parameters}
    if ObjectiveOptions.of(objective).level == "row":
        arguments = {name: x.flatten(0, 1) for name, x in arguments.items()}
    result = objective(**arguments)
    loss = (result.loss if isinstance(result, TokenLoss) else result).reshape(-1, batch.mask.shape[-1])
    mask = batch.mask.flatten(0, 1)
    turns = batch.rows("turns")
    weights = weigh(aggregator, mask, turns, max_tokens=batch.max_tokens, group_size=batch.group_size)
    total = (weights * torch.where(mask, loss, 0.0)).sum()
    torch.autograd.backward(total)
    actual = Outcome(policy, compose(objective, aggregator), batch, advantages, 17)
    assert actual.loss == pytest.approx(float(total.detach()), rel=1e-5, abs=1e-6)
    assert_equal(actual.gradients, parameter_gradients(plain))


# one update on the policy's own samples


def test_without_old_log_probs_the_ratio_is_one(policy: Policy, make_batch: MakeBatch) -> None:
    """Then clipping is off, and the gradient is that of the log-probabilities weighted by the advantage."""
    batch, advantages = sampled(policy, make_batch)
    batch = batch.having(old_logps=None)
    clipped = Outcome(policy, compose(clip, seq_mean_token_mean), batch, advantages, 17)
    assert clipped.metrics.averages()["clip_fraction"] == 0
    assert clipped.metrics.averages()["ratio"] == pytest.approx(1)
    assert_equal(
        clipped.gradients, Outcome(policy, compose(policy_gradient, seq_mean_token_mean), batch, advantages).gradients
    )


def test_a_kl_coefficient_of_zero_is_no_kl_bit_for_bit(policy: Policy, make_batch: MakeBatch) -> None:
    batch, advantages = sampled(policy, make_batch)
    without = Outcome(policy, compose(clip, token_mean), batch, advantages)
    zero = Outcome(policy, compose(clip, token_mean, kl=k3, kl_coef=0.0), batch.having(ref_logps=None), advantages)
    assert zero.loss == without.loss
    assert all(torch.equal(zero.gradients[n], g) for n, g in without.gradients.items())


def test_with_a_constant_denominator_the_gradient_is_a_sum_over_responses(
    policy: Policy, make_batch: MakeBatch
) -> None:
    """Each response's share is the same whatever the others are."""
    batch, advantages = sampled(policy, make_batch)
    variant = compose(policy_gradient, seq_mean_token_sum_norm)
    whole = Outcome(policy, variant, batch, advantages).gradients
    parts = []
    for p, g in ((p, g) for p in range(batch.groups) for g in range(batch.group_size)):
        alone = torch.zeros_like(batch.mask)
        alone[p, g] = batch.mask[p, g]
        parts.append(Outcome(policy, variant, batch.having(mask=alone), advantages).gradients)
    assert_equal({n: torch.stack([part[n] for part in parts]).sum(0) for n in whole}, whole)


def test_dropping_groups_without_advantage(policy: Policy, make_batch: MakeBatch) -> None:
    """Scales a token mean by all tokens over those kept, and a mean over rows by all rows over those kept."""
    batch, advantages = sampled(policy, make_batch)
    advantages = advantages.clone()
    advantages[1] = 0
    kept = torch.tensor([0, 2])
    share = int(batch.mask.sum()) / int(batch.mask[kept].sum())
    for aggregator, factor in ((token_mean, share), (seq_mean_token_sum_norm, 3 / 2)):
        variant = compose(clip, aggregator)
        whole = Outcome(policy, variant, batch, advantages).gradients
        fewer = Outcome(policy, variant, batch.select(kept), advantages[kept]).gradients
        assert_equal(fewer, {n: factor * g for n, g in whole.items()})


# micro-batches


@pytest.mark.parametrize("micro", [1, 5, 9, 17, 40, 1000])
@pytest.mark.parametrize("whole_groups", [False, True])
def test_micro_batches_cover_all_rows_in_order_within_the_limit(
    make_batch: MakeBatch, micro: int, whole_groups: bool
) -> None:
    batch = make_batch(5, 4)
    rows = torch.tensor([r for r in range(20) if whole_groups or r % 3])
    split = list(micro_batches(batch, rows, micro, whole_groups))
    assert torch.cat(split).tolist() == rows.tolist()
    lengths = batch.lengths.flatten()
    costs = []
    for part in split:
        prompts = {r // 4 for r in part.tolist()}
        costs.append(int(lengths[part].sum()) + sum(len(batch.prompt_tokens[p]) for p in prompts))
        if whole_groups:
            assert sorted(part.tolist()) == [r for p in sorted(prompts) for r in range(4 * p, 4 * p + 4)]
            assert costs[-1] <= micro or len(prompts) == 1
        else:
            assert costs[-1] <= micro or len(part) == 1
    # nothing that would have fitted was put off
    for part, following, cost in zip(split, split[1:], costs, strict=False):
        first = int(following[0])
        is_new = first // 4 != int(part[-1]) // 4
        unit = range(first, first + 4) if whole_groups else [first]
        extra = int(lengths[list(unit)].sum())
        extra += len(batch.prompt_tokens[first // 4]) if is_new else 0
        assert cost + extra > micro


def test_every_advantage_estimator_feeds_the_same_step(policy: Policy, make_batch: MakeBatch) -> None:
    """Advantages are computed before any split, on the whole rollout."""
    from core.loop.loss import compute_advantages

    batch, _ = sampled(policy, make_batch)
    token_rewards = batch.require("values") / 10
    with_token_rewards = batch.having(
        token_rewards=token_rewards, rewards=batch.rewards + token_rewards.where(batch.response_mask, 0.0).sum(-1)
    )
    for part in ADVANTAGES.values():
        batch = with_token_rewards
        variant = Variant(advantage=part, objective=clip, aggregator=token_mean)
        advantages, _ = compute_advantages(variant, batch, AdvantageOptions.of(part).first_state())
        assert advantages.shape == batch.mask.shape
        assert not advantages.requires_grad
        assert_same(Outcome(policy, variant, batch, advantages, 9), Outcome(policy, variant, batch, advantages))
