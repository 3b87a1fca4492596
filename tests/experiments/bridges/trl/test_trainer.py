"""The bridged trainer beside the maths: keyed noise, greedy baselines, state that is resumed, and what it learns."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from core.errors import GrpoLabError
from core.loop.update import compute_sum_squared_probs
from core.model.loading import EMBEDDED
from core.model.policy import PolicySettings, load_policy
from experiments.bridges.trl import generating
from experiments.bridges.trl.trainer import OURS, BridgedGRPOTrainer
from experiments.bridges.variant import variant_of
from experiments.cli.main import main as analyze
from tests.experiments.bridges.trl import replay
from tests.experiments.bridges.trl.real import TASK, make_trainer, questions, right
from tests.experiments.bridges.trl.replay import Case, differences, in_trl, record

pytestmark = pytest.mark.filterwarnings("ignore")


class Kept(BridgedGRPOTrainer):
    """Keeps what it has sampled and the batches made of it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.sampled: list[list[list[int]]] = []
        self.batches: list[Any] = []
        super().__init__(*given, **named)

    def _generate_single_turn(self, *given: Any) -> Any:
        made = super()._generate_single_turn(*given)
        self.sampled.append(made[0])
        return made

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        out = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self.batches.append(self._batch)
            self.last = out
        return out


def test_what_is_sampled_depends_on_seed_rollout_prompt_and_sample_alone(tmp_path: Path) -> None:
    def sampled(variant: str, **settings: Any) -> list[list[list[int]]]:
        trainer = make_trainer(
            tmp_path, variant_of(variant), Kept, max_steps=2, learning_rate=0.0, eval_strategy="no", **settings
        )
        torch.manual_seed(len(variant))  # what else draws numbers makes no difference
        trainer.train()
        assert json.loads((tmp_path / "grpolab.json").read_text())["keyed_noise"] is True
        return list(trainer.sampled)

    first = sampled("grpo", seed=3, shuffle_dataset=False)
    assert first == sampled("dr_grpo", seed=3, shuffle_dataset=False)
    # twice as many prompts a rollout, of which the first are the same
    wide = sampled("grpo", seed=3, shuffle_dataset=False, per_device_train_batch_size=32)
    assert wide[0][:16] == first[0]
    assert sampled("grpo", seed=4, shuffle_dataset=False)[0] != first[0]
    assert first[0] != first[1]
    assert len({tuple(row) for row in first[0]}) > 4


def test_every_evaluation_answers_by_the_same_noise(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        variant_of("grpo"),
        Kept,
        max_steps=1,
        learning_rate=0.0,
        eval_dataset=questions("test", 4),
        per_device_eval_batch_size=8,
    )
    one, two = trainer.evaluate()["eval_reward"], trainer.evaluate()["eval_reward"]
    assert one == two
    assert trainer.sampled[:4] == trainer.sampled[4:]
    assert trainer.sampled[0] != trainer.sampled[1]


def test_noise_that_reaches_no_generation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every response would be greedy, and nobody would know."""
    monkeypatch.setattr(generating, "handing", lambda *_: nullcontext())
    trainer = make_trainer(tmp_path, variant_of("grpo"), max_steps=1)
    with pytest.raises(GrpoLabError, match="keyed noise did not reach the generation of LlamaForCausalLM"):
        trainer.train()


def test_what_is_not_exact_is_said_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, variant_of("dapo"), max_steps=1).train()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("grpolab: ")]
    assert said == [
        "grpolab: filter nonuniform: groups that it leaves out are not sampled anew: such a step has fewer rows "
        "(as with filter_rounds=1)",
        f"grpolab: dapo, noise keyed by the seed; {tmp_path}/grpolab.json says so",
    ]


def test_a_rollout_func_is_no_keyed_noise(tmp_path: Path) -> None:
    case = Case("grpo")
    in_trl(case, record(case.groups), tmp_path, BridgedGRPOTrainer, variant=case.of_variant(), correct="right")
    assert json.loads((tmp_path / "grpolab.json").read_text())["keyed_noise"] is False


def test_remax_takes_off_the_reward_of_the_greedy_response(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer = make_trainer(tmp_path, variant_of("remax"), Kept, max_steps=1, shuffle_dataset=False, logging_steps=1)
    trainer.train()
    (batch,) = trainer.batches
    model, tokenizer = AutoModelForCausalLM.from_pretrained(EMBEDDED), AutoTokenizer.from_pretrained(EMBEDDED)
    for p in range(2):
        problem = TASK.problem("train", 0, p)
        ids = tokenizer(problem.prompt, return_tensors="pt").input_ids
        greedy = model.generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :]
        text = str(tokenizer.decode(greedy, skip_special_tokens=True))
        assert batch.greedy_rewards[p] == right([], [text], [str(problem.answer)])[0]
    wanted = batch.rewards - batch.greedy_rewards[:, None]
    rows = trainer._buffered_inputs[0]
    assert torch.equal(rows["advantages"].sort().values, wanted.flatten().sort().values)
    # greedy tokens are counted, but not logged as if they were samples
    (log,) = [line for line in trainer.state.log_history if "reward" in line]
    lengths = [len(row) for row in trainer.sampled[0]]
    assert log["completions/mean_length"] == pytest.approx(sum(lengths) / 16)
    prompts = sum(len(tokenizer(TASK.problem("train", 0, p).prompt).input_ids) for p in range(2))
    greedy_tokens = sum(map(len, trainer.sampled[1]))
    assert log["num_tokens"] == sum(lengths) + 8 * prompts + prompts + greedy_tokens


def test_the_optimal_baseline_by_token_gets_the_sum_of_squared_probabilities(tmp_path: Path) -> None:
    case = Case("optimal_token")
    recorded = record(case.groups)
    trained = in_trl(case, recorded, tmp_path, BridgedGRPOTrainer, variant=case.of_variant(), correct="right")
    found = differences(case, trained)
    assert found["gradients"] < 1e-6
    assert found["moved"] > 1e-3
    policy = load_policy(PolicySettings("embedded", "float32"))
    sums = compute_sum_squared_probs(policy, recorded[0], temperature=1.0, micro_tokens=10**9)
    assert 0 < float(sums[recorded[0].mask].min()) < 0.9


def test_a_variant_that_compares_pairs_takes_the_steps_of_our_loop(tmp_path: Path) -> None:
    case = Case("dpo")
    found = differences(
        case,
        in_trl(case, record(case.groups), tmp_path, BridgedGRPOTrainer, variant=case.of_variant(), correct="right"),
    )
    assert found["gradients"] < 1e-6
    assert found["moved"] > 1e-4


def test_what_an_estimator_remembers_goes_on_with_trls_checkpoint(tmp_path: Path) -> None:
    bindings = ["grpo.advantage = @running_baseline"]
    settings = {"shuffle_dataset": False, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.0}

    def trainer(steps: int) -> Any:
        return make_trainer(tmp_path, variant_of("grpo", bindings=bindings), Kept, max_steps=steps, **settings)

    whole = trainer(2)
    whole.train()
    remembered = whole._running.state_dict()
    saved = torch.load(tmp_path / "checkpoint-1" / "grpolab_state.pt", weights_only=True)
    assert saved["variant"] == "grpo"
    assert len(saved["advantage_state"]) < len(remembered["advantage_state"])
    resumed = trainer(2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed._running.state_dict() == remembered
    assert resumed.sampled == whole.sampled[1:]

    other = make_trainer(tmp_path, variant_of("rloo"), Kept, max_steps=2, **settings)
    with pytest.raises(Exception, match="is of variant 'grpo', not 'rloo'"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    (tmp_path / "checkpoint-1" / "grpolab_state.pt").unlink()
    with pytest.raises(Exception, match="is missing"):
        trainer(2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_an_adaptive_penalty_moves_its_coefficient(tmp_path: Path) -> None:
    kl = ["grpo.kl_coef = 0.1", "grpo.kl_place = 'reward'"]
    variant = replace(variant_of("grpo", bindings=kl), kl_target=0.1, kl_horizon=100)
    trainer = make_trainer(tmp_path, variant, Kept, max_steps=2, learning_rate=0.0)
    trainer.train()
    assert trainer.args.beta == 0.1  # TRL has loaded a reference
    # the policy stays the reference, so twice the error is cut at -0.2, over 16 responses and a horizon of 100
    assert trainer.variant.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 16 / 100) ** 2)


def test_a_group_without_a_reward_is_left_out(tmp_path: Path) -> None:
    def sometimes(completions: list[str], **_: Any) -> list[float | None]:
        return [None if row == 3 else float(row % 2) for row in range(len(completions))]

    trainer = make_trainer(tmp_path, variant_of("grpo"), Kept, max_steps=1, reward_funcs=sometimes)
    trainer.train()
    chunk = trainer._buffered_inputs[0]
    assert chunk[f"{OURS}trained"].sum() == 8
    assert not chunk[f"{OURS}weights"][~chunk[f"{OURS}trained"]].any()
    assert chunk[f"{OURS}weights"].sum() == pytest.approx(1.0)


@pytest.mark.slow
def test_ten_lines_of_ones_own_learn_inside_trl(tmp_path: Path) -> None:
    variant = Case("grpo", ("grpo.advantage = @median_baseline",)).of_variant()
    trainer = make_trainer(tmp_path, variant, max_steps=20, per_device_train_batch_size=64, learning_rate=1.5e-4)
    trainer.train()
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    assert len(rewards) == 20
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1


@pytest.mark.slow
def test_arms_that_were_trained_in_trl_are_judged_as_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm, bindings in (("grpo", ()), ("median", ("grpo.advantage = @median_baseline",))):
        for seed in range(3):
            make_trainer(
                tmp_path / arm / f"seed{seed}",
                Case("grpo", bindings).of_variant(),
                max_steps=4,
                seed=seed,
                learning_rate=1.5e-4,
                per_device_train_batch_size=32,
                eval_dataset=questions("test", 24),
                per_device_eval_batch_size=192,
                eval_strategy="steps",
                eval_steps=4,
                eval_on_start=True,
                save_strategy="steps",
                save_steps=4,
                save_only_model=True,
            ).train()
    capsys.readouterr()
    assert analyze(["analyze", str(tmp_path), "--baseline", "grpo", "--metric", "eval_reward", "--json"]) == 0
    printed = capsys.readouterr()
    judged = json.loads(printed.out)
    assert [(arm["arm"], arm["n"]) for arm in judged["arms"]] == [("grpo", 3), ("median", 3)]
    assert "runs of one seed share prompts and sampling noise" in " ".join((printed.out + printed.err).split())
    (comparison,) = judged["comparisons"]
    assert comparison["correlation"] > 0.3
    page = tmp_path / "report.html"
    question = ["--baseline", "grpo", "--metric", "eval_reward"]
    assert analyze(["analyze", str(tmp_path), *question, "--report", str(page)]) == 0
    assert "median" in page.read_text()


def test_the_recorded_rollouts_are_ragged_and_have_holes() -> None:
    """What the equality tests stand on."""
    (batch, *_) = record(replay.P)
    assert len(set(batch.lengths.flatten().tolist())) > 3
    assert (batch.mask != batch.response_mask).any()
    assert not batch.no_spread.all()
    assert batch.require("truncated").any()
