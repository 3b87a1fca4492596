"""Truncated sampling in training: sampler and trainer have one support, whole or cut down, and never one of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core import GrpoLabError
from core.generation.base import Generation, Request
from core.generation.native import native
from core.loop.learn import fill
from core.loop.recipe import Recipe
from core.loop.rollout import roll_out
from core.loop.run_state import RunState, make_providers
from core.loop.train import Interrupted, run
from core.loop.update import compute_logps
from core.model.policy import Policy
from core.model.truncation import Truncation
from core.parts.batch import Batch
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build

TINY = (
    "train.steps = 2",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 30",
    "adamw.learning_rate = 0.003",
    "evaluation.every = 2",
    "evaluation.questions = 4",
    "evaluation.split = 'test'",
)
TOP_P = "train.top_p = 0.8"
TRUNCATED = "train.trainer_support = 'truncated'"


def recipe(*bindings: str, variant: str = "grpo") -> Recipe:
    with config([CONFIGS / "embedded.gin"], [f"train.variant = @{variant}()", *TINY, *bindings]):
        built: Recipe = build("train")
    return built


def go(made: Recipe, folder: Path) -> list[dict[str, Any]]:
    run(made, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=lambda _: None)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def batch_of(policy: Policy, made: Recipe) -> Batch:
    batch = roll_out(RunState(made, 0, policy), 1).batch
    assert batch is not None
    return batch


def trainer_logps(policy: Policy, batch: Batch, made: Recipe) -> Tensor:
    return compute_logps(policy, batch, temperature=made.temperature, micro_tokens=made.micro_tokens)


# identity: one support, and what a mixture would be


def test_both_whole_or_both_cut_down_agree_for_frozen_weights(embedded: Policy) -> None:
    """old = roll at every token; log S apart where one is whole and the other is not, whatever the token."""
    full, truncated = recipe(TOP_P), recipe(TOP_P, TRUNCATED)
    whole, cut = batch_of(embedded, full), batch_of(embedded, truncated)
    assert whole.support is None
    assert cut.support is not None
    assert torch.equal(whole.require("response_tokens"), cut.require("response_tokens"))
    mask, log_s = cut.response_mask, cut.require("support_logmass")
    assert torch.equal(whole.require("support_logmass"), log_s)
    assert log_s[mask].min() < -0.1
    for batch, made in ((whole, full), (cut, truncated)):
        old = trainer_logps(embedded, batch, made)
        torch.testing.assert_close(old[mask], batch.require("behaviour_logps")[mask], rtol=1e-4, atol=1e-4)
    mixed = trainer_logps(embedded, whole, full) - cut.require("behaviour_logps")
    torch.testing.assert_close(mixed[mask], log_s[mask], rtol=1e-4, atol=1e-4)
    # the public figure: the mean ratio of the mixture is the kept mass
    assert mixed[mask].exp().mean().item() == pytest.approx(log_s[mask].exp().mean().item(), abs=1e-4)


def test_at_a_temperature(embedded: Policy) -> None:
    for bindings in ((TOP_P,), (TOP_P, TRUNCATED)):
        made = recipe("train.temperature = 0.7", *bindings)
        batch = batch_of(embedded, made)
        old, mask = trainer_logps(embedded, batch, made), batch.response_mask
        torch.testing.assert_close(old[mask], batch.require("behaviour_logps")[mask], rtol=1e-4, atol=1e-4)


def test_what_is_kept_stays_kept_whatever_the_weights_become(tiny: Policy) -> None:
    """A sampled token is never without probability: the kept set is the sampler's, at newer weights too."""
    made = recipe("train.top_k = 2", TRUNCATED)
    batch = batch_of(tiny, made)
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    newer = trainer_logps(tiny, batch, made)[batch.response_mask]
    assert newer.isfinite().all()
    assert newer.min() > -200
    assert newer.max() <= 0


def test_the_reference_is_cut_down_as_the_policy_is(embedded: Policy) -> None:
    """Before the first update they are the same, and so are their log-probabilities: the KL term is 0, not -log S."""
    made = recipe(TOP_P, TRUNCATED, "grpo.kl_coef = 0.1")
    state = RunState(made, 0, embedded)
    rollout = roll_out(state, 1).batch
    assert rollout is not None
    batch = fill(rollout, make_providers(state))
    old = trainer_logps(embedded, batch, made)
    torch.testing.assert_close(batch.require("ref_logps"), old, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_each_side_by_hand() -> None:
    """One token of three, the last cut off. Truncated: the gradient of E_pi'[r]; whole: E_pi'[r] grad log S beside it.

    pi = (.5, .3, .2), kept {0, 1}: pi' = (.625, .375), r = (1, 0): E[r] = .625, of which the first logit's derivative
    is .625 x .375 = .2344. d log S / dz = pi' - pi = (.125, .075, -.2).
    """
    z = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log().requires_grad_()
    kept, r = torch.tensor([True, True, False]), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    whole = z.log_softmax(-1)
    log_s = whole.exp()[kept].sum().log()
    drawn = torch.where(kept, (whole - log_s).exp(), 0.0).detach()

    def gradient(logps: Tensor) -> Tensor:
        return torch.autograd.grad((drawn * r * logps).sum(), z, retain_graph=True)[0]

    of_objective = torch.autograd.grad(((whole - log_s).exp() * r)[kept].sum(), z, retain_graph=True)[0]
    assert of_objective.tolist() == pytest.approx([0.234375, -0.234375, 0])
    torch.testing.assert_close(gradient(whole - log_s), of_objective)
    of_mass = torch.autograd.grad(log_s, z, retain_graph=True)[0]
    assert of_mass.tolist() == pytest.approx([0.125, 0.075, -0.2])
    torch.testing.assert_close(gradient(whole), of_objective + 0.625 * of_mass)


# runs


@pytest.mark.parametrize("variant", ["grpo", "dapo", "remax", "grpo_trl"])
def test_runs_with_several_updates_and_a_correction(tmp_path: Path, variant: str) -> None:
    several = ("train.epochs = 2", "train.minibatches = 2", "train.correction = @token_truncated")
    for bindings in ((TOP_P,), (TOP_P, TRUNCATED)):
        made = recipe(*several, *bindings, variant=variant)
        for line in go(made, tmp_path / str(len(bindings))):
            assert 0.7 < line["kept_mass"] < 1
            if line["trained_tokens"]:
                assert line["grad_norm"] > 0
            # sampler and trainer are one policy: a mixture would have -log S, 0.05 and more
            if "sampler_mismatch" in line:
                assert line["sampler_mismatch"] < 1e-4
                assert line["correction"] == pytest.approx(1, abs=1e-1)


@pytest.mark.parametrize("generator", ["native", "engine"])
def test_what_waits_for_its_step_goes_on_bit_for_bit(tmp_path: Path, generator: str) -> None:
    """Responses of older weights keep log S and the kept set of the weights that drew them, over a kill too."""
    if generator == "native":
        made = recipe(TOP_P, TRUNCATED, "train.staleness = 2", "train.steps = 5", "train.checkpoint_every = 2")
    else:
        made = recipe(TOP_P, "train.staleness = 2", "train.steps = 5", "train.checkpoint_every = 2")
        made = replace(made, generator=Engine())

    def hashes(folder: str, watch: Any = lambda _: None) -> Any:
        run(made, 0, RunStore(tmp_path / folder), facts={"identity": {}, "arm": "grpo"}, watch=watch)
        return RunStore(tmp_path / folder).manifest["hashes"]

    def stop_after_three(line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise Interrupted

    whole = hashes("whole")
    with pytest.raises(Interrupted):
        hashes("cut", stop_after_three)
    assert hashes("cut") == whole


def test_off_leaves_no_trace(tmp_path: Path) -> None:
    (*_, line) = go(recipe("train.top_p = 1.0", TRUNCATED), tmp_path)
    assert "kept_mass" not in line
    assert recipe(TRUNCATED).cuts_trainer is False


def test_training_and_evaluation_have_each_their_own(embedded: Policy) -> None:
    asked: list[tuple[bool, Truncation | None]] = []

    @dataclass(frozen=True)
    class Recorder:
        exact = True

        def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
            asked.extend((request.for_training, request.cut) for request in requests)
            made: list[Generation] = native().generate(policy, requests)
            return made

    from core.loop.evaluation import evaluate

    made = replace(recipe(TOP_P, "evaluation.top_k = 5", "evaluation.min_p = 0.1"), generator=Recorder())
    state = RunState(made, 0, embedded)
    roll_out(state, 1)
    evaluate(state, 0)
    assert asked == [(True, Truncation(top_p=0.8)), (False, Truncation(top_k=5, min_p=0.1)), (False, None)]


# generators that do not tell what they kept


@dataclass(frozen=True)
class Engine:
    """Samples as the native generator, and hands out log-probabilities alone: of what, `raw` says."""

    raw: bool = False
    exact = False

    def generate(self, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
        """Without entropies, masses and kept sets."""
        made = native().generate(policy, requests)
        return [
            replace(
                each,
                logps=each.logps + each.support_logmass
                if self.raw and each.support_logmass is not None
                else each.logps,
                support_logmass=None,
                support=None,
            )
            for each in made
        ]


def test_the_mass_is_worked_out_where_the_generator_does_not_tell(embedded: Policy) -> None:
    made = recipe(TOP_P)
    told, found = batch_of(embedded, made), batch_of(embedded, replace(made, generator=Engine()))
    for name in ("support_logmass", "behaviour_logps"):
        difference = (told.require(name) - found.require(name))[told.response_mask].abs()
        # a token on the very threshold may fall on either side of it
        assert (difference < 1e-3).float().mean() > 0.99


def test_raw_log_probs_are_refused_with_what_they_would_be_off_by(embedded: Policy) -> None:
    with pytest.raises(
        GrpoLabError, match=r"train\.top_p = 0\.8, but .* of whole distributions.*log S = -0\.\d+ a"
    ) as e:
        batch_of(embedded, replace(recipe(TOP_P), generator=Engine(raw=True)))
    assert "processed_logprobs" in str(e.value)


def test_a_kept_set_that_is_not_told_cannot_be_trained_on(embedded: Policy) -> None:
    made = replace(recipe(TOP_P, TRUNCATED), generator=Engine())
    with pytest.raises(GrpoLabError, match="does not tell which tokens it kept"):
        batch_of(embedded, made)


@pytest.mark.parametrize(
    ("bindings", "said"),
    [
        ((TOP_P, TRUNCATED, "train.generator = @vllm()"), r"train\.top_p = 0\.8 and .*'truncated'.*@native\(\)"),
        (
            (TOP_P, "train.source = @worked_solutions()"),
            r"train\.top_p = 0\.8, but with train\.source nothing is sampled",
        ),
        (("train.top_p = 0",), r"train\.top_p = 0: must be a number above 0 and up to 1"),
        (("train.top_k = -1",), r"train\.top_k = -1: must be a whole number from 0 up"),
        (("evaluation.min_p = 1.5",), r"evaluation\.min_p = 1\.5: must be a number from 0 to 1"),
        (("train.trainer_support = 'raw'",), r"trainer_support = 'raw': must be 'full' or 'truncated'"),
    ],
)
def test_what_is_refused_before_anything_runs(bindings: tuple[str, ...], said: str) -> None:
    with pytest.raises(GrpoLabError, match=said):
        recipe(*bindings)


def test_a_large_vocabulary_is_named_with_its_cost(embedded: Policy) -> None:
    large = embedded.frozen_copy()
    large.vocabulary = 151_936
    with pytest.raises(GrpoLabError, match=r"151,936 tokens.*0\.1 GiB.*trainer_support = 'full'"):
        batch_of(large, recipe(TOP_P, TRUNCATED))


def test_a_bound_is_one_that_can_change_the_first_rollout() -> None:
    from experiments.study.study import _feeds

    names: Mapping[str, tuple[str, ...]] = {
        n: _feeds("settings.train", n) for n in ("top_p", "top_k", "min_p", "epochs")
    }
    assert names == {
        "top_p": ("first_rollout",),
        "top_k": ("first_rollout",),
        "min_p": ("first_rollout",),
        "epochs": (),
    }


# batches


def test_batches_with_a_support_are_joined_and_selected(embedded: Policy) -> None:
    made = recipe(TOP_P, TRUNCATED)
    one = batch_of(embedded, made)
    assert one.support is not None
    few = one.select(torch.tensor([2, 0]))
    short = few.having(
        **{name: x[:, :, :3] for name, x in few.tensors().items() if x.ndim >= 3 and name not in ("reward_parts",)}
    )
    joined = Batch.concat([short, one])
    assert joined.support is not None
    assert torch.equal(joined.support[:2, :, :3], one.support[[2, 0], :, :3])
    assert joined.support[:2, :, 3:].eq(0).all()
    assert torch.equal(joined.support[2:], one.support)
    with pytest.raises(GrpoLabError, match=r"Batch\.support has shape"):
        one.having(support=one.support[:, :, :2])
