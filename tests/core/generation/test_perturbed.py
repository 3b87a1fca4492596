"""A sampler that differs from the trainer by a stated amount, and leaves the trainer as it is."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import GrpoLabError
from core.environments.tasks.chain_sums import chain_sums
from core.generation.base import Generation, Request, reports_distributions
from core.generation.native import native
from core.generation.perturbed import Perturbed, _few, perturbed, rounded
from core.loop.recipe import Recipe
from core.loop.train import Interrupted, run
from core.model.policy import Policy, PolicySettings, load_policy
from core.model.truncation import Truncation
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

QUESTIONS = ("1+2=", "9+9+9+9+9+9=", "4+8+7=", "3+1+4+1+5=", "0+0=", "2+2=", "5+6=", "7+8+9=")


@pytest.fixture
def policy() -> Policy:
    return load_policy(PolicySettings("embedded"))


def request_of(policy: Policy, **changes: Any) -> Request:
    prompts = [policy.tokens(Problem(question, "", 0)) for question in QUESTIONS]
    return replace(Request(prompts, 8, 40, 1.0, 11, for_training=True), **changes)


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in policy.model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainer_logps(policy: Policy, request: Request, made: Generation) -> Tensor:
    rows, mask = made.tokens.flatten(0, 1), made.mask.flatten(0, 1)
    owner = [p for p in range(len(request.prompts)) for _ in range(request.samples)]
    with torch.no_grad():
        logps, _ = policy.logps(
            request.prompts,
            [row[valid] for row, valid in zip(rows, mask, strict=True)],
            owner,
            width=mask.shape[1],
            temperature=request.temperature,
        )
    return logps.view(made.mask.shape)


def estimate(policy: Policy, request: Request, made: Generation) -> float:
    """Of KL(sampler || trainer) in nats a token, from tokens that the sampler drew: the mean of e^L - 1 - L."""
    log_ratio = (trainer_logps(policy, request, made) - made.logps)[made.mask].double()
    return float((torch.expm1(log_ratio) - log_ratio).mean())


# rounding, by hand


def test_int8_by_hand() -> None:
    """Row 0 has scale 1, row 1 scale 2, row 2 nothing to round."""
    weight = torch.tensor([[127.0, 1.4, -63.6], [254.0, 3.1, -2.9], [0.0, 0.0, 0.0]])
    expected = [[127.0, 1.0, -64.0], [254.0, 4.0, -2.0], [0.0, 0.0, 0.0]]
    assert rounded(weight, "int8").tolist() == expected


def test_float8_by_hand() -> None:
    """Three bits after the leading one: from 16 to 32 in steps of 2, from 1 to 2 in steps of 1/8; ties to even."""
    weight = torch.tensor([[448.0, 17.0, 19.5, 1.1, -1.2]])
    assert rounded(weight, "float8_e4m3").tolist() == [[448.0, 16.0, 20.0, 1.125, -1.25]]


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_rounding_is_to_nearest(seed: int, size: float) -> None:
    """int8: at most half a step of 1/127 of the row's largest off; float8: half of 1/8, relative, above 2^-6."""
    weight = size * torch.randn(5, 30, generator=torch.Generator().manual_seed(seed))
    largest = weight.abs().amax(1, keepdim=True)
    assert ((rounded(weight, "int8") - weight).abs() <= largest / 127 / 2 * 1.001).all()
    off = (rounded(weight, "float8_e4m3") - weight).abs()
    assert (off <= torch.maximum(weight.abs() / 16, largest / 448 * 2**-10) * 1.001).all()
    for rounding in ("int8", "float8_e4m3"):
        once = rounded(weight, rounding)
        torch.testing.assert_close(rounded(once, rounding), once, rtol=1e-5, atol=0)


@pytest.mark.parametrize("rounding", ["bfloat16", "float8_e4m3", "int8"])
def test_rounded_weights_sample(policy: Policy, rounding: Any) -> None:
    """What is reported is of the rounded weights: of a policy that has them, bit for bit."""
    before, request = weights(policy), request_of(policy)
    made = perturbed(round=rounding).generate(policy, [request])[0]
    assert same(weights(policy), before)
    assert 0 < estimate(policy, request, made) < 0.1
    other = load_policy(PolicySettings("embedded"))
    head = other.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for module in other.model.modules():
            for weight in module.parameters(recurse=False):
                if rounding == "bfloat16":
                    weight.copy_(weight.bfloat16())
                elif isinstance(module, torch.nn.Linear) and module is not head:
                    weight.copy_(rounded(weight, rounding))
    expected = native().generate(other, [request])[0]
    assert torch.equal(made.tokens, expected.tokens)
    assert torch.equal(made.logps, expected.logps)


def test_coarser_numbers_diverge_more(policy: Policy) -> None:
    request = request_of(policy)
    divergences = [
        estimate(policy, request, perturbed(round=rounding).generate(policy, [request])[0])
        for rounding in ("bfloat16", "int8", "float8_e4m3")
    ]
    assert divergences == sorted(divergences)


# noise


@pytest.mark.parametrize("divergence", [1e-6, 1e-4, 1e-3, 3e-2, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_divergence_is_the_stated_one_where_it_was_measured(
    policy: Policy, divergence: float, temperature: float
) -> None:
    """On the policy's own responses, worked out anew with a second policy."""
    own, before = policy.frozen_copy(), weights(policy)
    few = _few(request_of(policy, temperature=temperature))
    (drawn,) = native().generate(own, [few])
    responses = [row[valid] for row, valid in zip(drawn.tokens.flatten(0, 1), drawn.mask.flatten(0, 1), strict=True)]
    owner = [p for p in range(len(few.prompts)) for _ in range(few.samples)]

    def log_probs(of: Policy) -> Tensor:
        with torch.no_grad():
            hidden, _ = of.predicting(few.prompts, responses, owner, drawn.mask.shape[-1])
            return (of.logits(hidden).double() / temperature).log_softmax(-1)

    counted = policy.forward_tokens
    with perturbed(divergence=divergence)._other_weights(policy, request_of(policy, temperature=temperature)):
        assert policy.forward_tokens == counted
        assert not same(weights(policy), before)
        sampler, trainer = log_probs(policy), log_probs(own)
    assert same(weights(policy), before)
    measured = float((sampler.exp() * (sampler - trainer)).sum(-1).mean())
    assert divergence / 1.16 < measured < divergence * 1.16


def test_the_divergence_is_nearly_the_stated_one_elsewhere(policy: Policy) -> None:
    """By the tokens that are sampled, over several noises: within a factor of two."""
    task = chain_sums()
    prompts = [policy.tokens(task.problem("train", 5, i)) for i in range(16)]
    found = []
    for noise_key in range(8):
        request = request_of(policy, prompts=prompts, noise_key=noise_key)
        found.append(estimate(policy, request, perturbed(divergence=1e-4).generate(policy, [request])[0]))
    assert 0.5e-4 < sum(found) / len(found) < 2e-4
    assert 0.2e-4 < min(found) <= max(found) < 5e-4


def test_it_is_measured_on_a_few_prompts_of_their_own_slots_by_noise_of_its_own(policy: Policy) -> None:
    many = [policy.tokens(Problem("1+2=", "", 0))] * 20
    request = request_of(policy, prompts=many, slots=range(5, 25), truncation=Truncation(top_p=0.5), with_support=True)
    few = _few(request)
    assert (len(few.prompts), few.slot_numbers, few.samples) == (16, tuple(range(5, 21)), 2)
    assert few.noise_key not in (None, request.noise_key)
    assert few.cut is None
    assert perturbed(divergence=1e-3).generate(policy, [request])[0].tokens.shape[:2] == (20, 8)


def test_weights_that_have_broken_down_are_left_to_the_training(policy: Policy) -> None:
    with torch.no_grad():
        next(policy.model.parameters()).fill_(torch.nan)
    made = perturbed(divergence=1e-3).generate(policy, [request_of(policy)])[0]
    assert made.logps.isnan().any()


def test_the_same_key_is_the_same_sampler_and_another_key_another(policy: Policy) -> None:
    generator, request = perturbed(divergence=1e-2), request_of(policy)
    one, again = (generator.generate(policy, [request])[0] for _ in range(2))
    assert torch.equal(one.tokens, again.tokens)
    assert torch.equal(one.logps, again.logps)
    other = generator.generate(policy, [replace(request, noise_key=12)])[0]
    assert one.tokens.shape != other.tokens.shape or not torch.equal(one.tokens, other.tokens)


def test_small_noise_keeps_most_of_the_text(policy: Policy) -> None:
    """Sampling noise is the same: where probabilities hardly differ, tokens do not."""
    request = request_of(policy)
    own, made = (g.generate(policy, [request])[0] for g in (native(), perturbed(divergence=1e-4)))
    assert (own.tokens[..., :8] == made.tokens[..., :8]).float().mean() > 0.9


def test_what_is_not_trained_on_is_the_policys_own(policy: Policy) -> None:
    requests = [
        request_of(policy, for_training=False),
        request_of(policy, noise_key=None),
        request_of(policy, noise_key=None, for_training=False),
    ]
    made = perturbed(divergence=0.1).generate(policy, requests)
    for one, other in zip(made, native().generate(policy, requests), strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.logps, other.logps)
    # together with what is
    mixed = perturbed(divergence=0.1).generate(policy, [request_of(policy), requests[0]])
    assert torch.equal(mixed[1].tokens, native().generate(policy, requests[:1])[0].tokens)
    assert not torch.equal(mixed[0].tokens[..., :5], mixed[1].tokens[..., :5])


def test_no_divergence_is_the_native_generator(policy: Policy) -> None:
    request = request_of(policy)
    one, other = (g.generate(policy, [request])[0] for g in (perturbed(divergence=0.0), native()))
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.logps, other.logps)


def test_the_perturbed_distribution_is_what_is_cut(policy: Policy) -> None:
    cut = Truncation(top_p=0.8)
    request = request_of(policy, truncation=cut, with_support=True)
    made = perturbed(divergence=1e-2).generate(policy, [request])[0]
    assert made.support is not None
    assert made.support_logmass is not None
    assert made.support.gather(-1, made.tokens[..., None])[..., 0][made.mask].all()
    mixed = replace(made, logps=made.logps + made.support_logmass)
    assert 2e-3 < estimate(policy, request, mixed) < 4e-2


def test_weights_come_back_where_sampling_fails(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights(policy)

    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("core.generation.native.Native._answer", fails)
    for generator in (perturbed(round="int8"), perturbed(divergence=1e-3)):
        with pytest.raises(ZeroDivisionError):
            generator.generate(policy, [request_of(policy)])
        assert same(weights(policy), before)


def test_where_it_makes_no_sense(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in ({}, {"round": "int8", "divergence": 1e-3}):
        with pytest.raises(GrpoLabError, match="bind one of the two"):
            perturbed(**settings)
    coarse = load_policy(PolicySettings("embedded", "bfloat16"))
    with pytest.raises(GrpoLabError, match="are so already"):
        perturbed(round="bfloat16").generate(coarse, [request_of(coarse)])
    monkeypatch.setattr("core.generation.perturbed.ranks", lambda: 2)
    with pytest.raises(GrpoLabError, match="in one process"):
        perturbed(divergence=1e-3).generate(policy, [request_of(policy)])
    assert not perturbed(divergence=1e-3).exact
    assert reports_distributions(perturbed(divergence=1e-3))
    assert isinstance(perturbed(divergence=1e-3), Perturbed)


# runs

TINY = (
    "train.variant = @grpo()",
    "train.generator = @perturbed()",
    "train.steps = 4",
    "train.prompts = 8",
    "train.group_size = 8",
    "train.max_tokens = 24",
    "train.checkpoint_every = 3",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 4",
    "evaluation.questions = 4",
    "evaluation.split = 'test'",
)


def recipe(*bindings: str) -> Recipe:
    with config([CONFIGS / "embedded.gin"], [*TINY, *bindings]):
        built: Recipe = build("train")
    return built


def go(made: Recipe, folder: Path, watch: Any = lambda _: None) -> Mapping[str, Any]:
    run(made, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=watch)
    hashes: Mapping[str, Any] = RunStore(folder).manifest["hashes"]
    return hashes


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def stop_after_three(line: Mapping[str, Any]) -> None:
    if line["step"] == 3:
        raise Interrupted


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The hashes of a run that is told to diverge by nothing."""
    return go(recipe("perturbed.divergence = 0.0"), tmp_path_factory.mktemp("none"))


@pytest.mark.parametrize("binding", ["perturbed.divergence = 3e-4", "perturbed.round = 'float8_e4m3'"])
def test_a_run_logs_the_divergence_and_goes_on_bit_for_bit(
    tmp_path: Path, binding: str, without: Mapping[str, Any]
) -> None:
    made = recipe(binding)
    hashes = go(made, tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(made, tmp_path / "cut", stop_after_three)
    assert go(made, tmp_path / "cut") == hashes
    learned = [line for line in lines(tmp_path / "whole") if line["trained_tokens"]]
    assert len(learned) >= 3
    for line in learned:
        if "divergence" in binding:
            assert 3e-4 / 3 < line["sampler_kl"] < 3e-4 * 3
        else:
            assert line["sampler_kl"] > 1e-7
    assert hashes["final_weights"] != without["final_weights"]


def test_no_divergence_is_a_run_without(tmp_path: Path, without: Mapping[str, Any]) -> None:
    assert go(recipe("train.generator = @native()"), tmp_path / "native") == without


def test_a_recipe_warns_until_something_corrects() -> None:
    assert "bind train.correction" in str(recipe("perturbed.divergence = 1e-3").warning)
    assert recipe("perturbed.divergence = 1e-3", "train.correction = @token_truncated").warning is None
    assert recipe("perturbed.divergence = 0.0").warning is None
    # answers are the policy's own, with entropies
    assert recipe("perturbed.divergence = 1e-3", "evaluation.surprise = True").evaluation.surprise
