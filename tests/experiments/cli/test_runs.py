"""Whole runs on the embedded default, small: identical seeds, bit-identical repeats, resuming, failing graders."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from core import GrpoLabError, objective, reward
from core.errors import MachineError, TrainingError
from core.loop.train import Interrupted
from core.model.loading import EMBEDDED
from core.parts.problems import Problem
from core.parts.registry import REGISTRIES, config, config_text
from core.store.run_folder import RunStore
from experiments.launchers.job import Job, run_job
from experiments.setup import import_parts, quiet_libraries
from experiments.study.configs import CONFIGS
from experiments.study.settings import Arm

import_parts()
quiet_libraries()
MakeRun: TypeAlias = Callable[..., Path]
"""Bindings to the folder of their run."""
EMBEDDED_TOKENIZER = AutoTokenizer.from_pretrained(EMBEDDED)

SMALL = (
    "train.steps = 4",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 24",
    "train.checkpoint_every = 2",
    "evaluation.every = 2",
    "evaluation.questions = 6",
)
OF_THE_END = {"evaluation": {}, "budget_share": 0.0}
"""What a step's line has from where the run is to end."""


def job(folder: Path, *bindings: str, seed: int = 0) -> Job:
    with config([CONFIGS / "embedded.gin"], [*SMALL, *bindings]):
        text = config_text()
    return Job(Arm("a", ()), seed, text, str(folder))


def ignore(record: Mapping[str, Any]) -> None:
    """Watch nothing."""


def run(folder: Path, *bindings: str, seed: int = 0) -> Path:
    run_job(job(folder, *bindings, seed=seed), ignore)
    return folder


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Runs that are only read, each made when it is first asked for."""

    @cache
    def make(*bindings: str) -> Path:
        return run(tmp_path_factory.mktemp("made") / "run", *bindings)

    return make


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the clocks."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def manifest(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return record


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    assert lines(one) == lines(other)
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    for file in sorted(one.glob("eval/*/*.json")):
        assert file.read_text() == (other / file.relative_to(one)).read_text()


def test_a_run_leaves_what_it_promises(make_run: MakeRun) -> None:
    folder = make_run()
    record = manifest(folder)
    assert record["status"] == "finished"
    assert record["cpu_seconds"] > 0
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4]
    assert sorted(p.name for p in (folder / "eval" / "test").iterdir()) == [
        "step=000000.json",
        "step=000002.json",
        "step=000004.json",
    ]
    assert sorted(p.name for p in (folder / "eval" / "test_long").iterdir()) == ["step=000000.json", "step=000004.json"]
    assert record["identity"]["seed"] == 0
    assert "train.group_size = 4" in record["identity"]["config"]
    assert not (folder / "checkpoint" / "state.pt").exists()
    evaluation = json.loads((folder / "eval" / "test" / "step=000004.json").read_text())
    assert [len(q["samples"]) for q in evaluation["questions"]] == [2] * 6
    correct = [sample["correct"] for q in evaluation["questions"] for sample in q["samples"]]
    assert evaluation["summary"]["accuracy"] == pytest.approx(sum(correct) / 12)
    texts = [sample["text"] for q in evaluation["questions"] for sample in q["samples"]]
    stepwise = sum(text[1:2] == "+" for text in texts)  # 4+8=2;... rather than >9.
    assert evaluation["summary"]["shows"] == {"step_by_step": pytest.approx(stepwise / 12)}
    assert lines(folder)[-1]["total_sampled_tokens"] == sum(line["sampled_tokens"] for line in lines(folder))


def test_tokens_that_pass_through_the_models_are_counted(make_run: MakeRun, tmp_path: Path) -> None:
    plain = lines(make_run())
    with_reference = lines(run(tmp_path / "reference", "train.steps = 2", "grpo.kl_coef = 0.05"))
    first, referred = plain[0], with_reference[0]
    assert first["trained_tokens"] > 0
    assert first["forward_tokens"] == first["backward_tokens"] > 0
    assert referred["backward_tokens"] >= first["backward_tokens"]  # rows without an advantage have a KL
    assert referred["forward_tokens"] > referred["backward_tokens"]
    (twice,) = lines(run(tmp_path / "twice", "train.steps = 1", "train.minibatches = 2"))
    assert twice["forward_tokens"] > twice["backward_tokens"] > 0  # scored before the first of two updates


def test_a_token_budget_ends_the_run_before_the_step_that_would_exceed_it(make_run: MakeRun, tmp_path: Path) -> None:
    whole = make_run()
    budget = lines(whole)[1]["total_sampled_tokens"]
    for name, tokens, steps in (("exact", budget, 2), ("more", budget + 1, 2), ("less", budget - 1, 1)):
        folder = run(tmp_path / name, f"train.token_budget = {tokens}")
        for ours, theirs in zip(lines(folder), lines(whole)[:steps], strict=True):
            assert ours | OF_THE_END == theirs | OF_THE_END
        assert (manifest(folder)["status"], manifest(folder)["steps"]) == ("finished", steps)
        # it ends with an evaluation of every suite, as after `steps`
        closing = json.loads((folder / "eval" / "test" / f"step={steps:06d}.json").read_text())
        assert closing["total_sampled_tokens"] == lines(folder)[-1]["total_sampled_tokens"] <= tokens
        assert (folder / "eval" / "test_long" / f"step={steps:06d}.json").is_file()
    with pytest.raises(GrpoLabError, match="token_budget = 5 is less than the first step samples"):
        run(tmp_path / "none", "train.token_budget = 5")


def test_a_seconds_budget_ends_the_run_after_the_step_that_spends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is a second further at each reading: sample, fill and update take one each."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("core.loop.clock.time.perf_counter", lambda: float(next(ticks)))
    whole = run(tmp_path / "whole")
    of_step = sum(
        v
        for k, v in json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])["seconds"].items()
        if k != "evaluate"
    )
    assert of_step == 3.0
    for budget, steps in ((3.0, 1), (3.5, 2), (100.0, 4)):
        folder = run(tmp_path / str(budget), f"train.seconds_budget = {budget}")
        assert (manifest(folder)["status"], manifest(folder)["steps"]) == ("finished", steps)
        for ours, theirs in zip(lines(folder), lines(whole)[:steps], strict=True):
            assert ours | OF_THE_END == theirs | OF_THE_END
        assert (folder / "eval" / "test_long" / f"step={steps:06d}.json").is_file()
        assert lines(folder)[-1]["budget_share"] == 1.0


def test_seconds_spent_before_a_stop_count_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three a step as above: the second step spends a budget of 4, whether or not the run was stopped between."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("core.loop.clock.time.perf_counter", lambda: float(next(ticks)))

    def stop(record: Mapping[str, Any]) -> None:
        raise Interrupted

    timed = job(tmp_path, "train.seconds_budget = 4.0")
    with pytest.raises(Interrupted):
        run_job(timed, stop)
    run_job(timed, ignore)
    assert [line["budget_share"] for line in lines(tmp_path)] == [0.75, 1.0]


def test_a_failed_run_says_whether_the_code_the_machine_or_the_training_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @objective
    def never_finite_loss(logps: Tensor, advantages: Tensor) -> Tensor:
        """NaN."""
        return logps * float("nan")

    @reward
    def never_finite(problem: Problem, response: str) -> float:
        """NaN."""
        return float("nan")

    with pytest.raises(GrpoLabError):
        run(tmp_path / "code", "train.rewards = [@never_finite]")
    assert manifest(tmp_path / "code")["failure"] == "code"

    monkeypatch.setattr("core.loop.update.MAX_FAILED_UPDATES", 2)
    with pytest.raises(TrainingError, match=r"2 updates in a row had a gradient that is not finite \(loss nan\)"):
        run(tmp_path / "method", "grpo.objective = @never_finite_loss")
    assert manifest(tmp_path / "method")["failure"] == "algorithmic"

    def full(*_: Any) -> None:
        raise MachineError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("core.store.run_folder.RunStore.append_metrics", full)
        with pytest.raises(MachineError):
            run(tmp_path / "machine")
    assert manifest(tmp_path / "machine")["failure"] == "infrastructure"
    assert manifest(run(tmp_path / "machine"))["failure"] is None  # run again, it goes on


def test_the_trained_model_can_be_trained_on(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run()
    second = run(tmp_path / "two", f"policy.model = '{first / 'checkpoint'}'")
    assert manifest(first)["hashes"]["final_weights"] == manifest(second)["hashes"]["initial_weights"]


@pytest.mark.parametrize("variant", ["grpo", "dapo", "remax"])
def test_two_runs_of_one_configuration_are_bit_identical(tmp_path: Path, variant: str) -> None:
    bindings = (f"train.variant = @{variant}()", "train.steps = 2", "train.epochs = 2", "train.minibatches = 2")
    assert_same_run(run(tmp_path / "one", *bindings), run(tmp_path / "two", *bindings))


def test_another_seed_is_another_run(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = make_run(), run(tmp_path / "two", seed=1)
    assert manifest(one)["hashes"]["initial_weights"] == manifest(two)["hashes"]["initial_weights"]
    assert manifest(one)["hashes"]["prompts"] != manifest(two)["hashes"]["prompts"]
    assert manifest(one)["hashes"]["first_rollout"] != manifest(two)["hashes"]["first_rollout"]


def test_arms_of_a_seed_share_prompts_first_rollout_and_questions(tmp_path: Path) -> None:
    """Also beside dynamic sampling, which samples more, and a greedy baseline, which samples apart."""
    names = ["grpo", "dr_grpo", "dapo", "rloo", "remax", "reinforce"]
    # groups of two are often all right or all wrong, so dynamic sampling has to draw again
    small = ("train.group_size = 2", "evaluation.every = 4", "evaluation.questions = 2")
    folders = [run(tmp_path / name, f"train.variant = @{name}()", *small) for name in names]
    prompts = [[line["prompts_hash"] for line in lines(folder)] for folder in folders]
    assert all(each == prompts[0] for each in prompts)
    assert len(set(prompts[0])) == 4
    assert len({manifest(folder)["hashes"]["first_rollout"] for folder in folders}) == 1
    for step in ("step=000000.json", "step=000004.json"):
        questions = [
            [(q["prompt"], q["answer"]) for q in json.loads((f / "eval" / "test" / step).read_text())["questions"]]
            for f in folders
        ]
        assert all(each == questions[0] for each in questions)
    extra = lines(tmp_path / "dapo")
    assert max(line["rounds"] for line in extra) > 1, "dynamic sampling never had to draw again"
    assert sum(line["sampled_tokens"] for line in extra) > sum(
        line["sampled_tokens"] for line in lines(tmp_path / "grpo")
    )


def stop_after(step: int) -> Callable[[Mapping[str, Any]], None]:
    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise Interrupted

    return watch


@pytest.mark.parametrize(
    "bindings",
    [
        (),
        ("train.variant = @dapo()",),
        ("grpo.advantage = @running_baseline",),  # carries state
        ("grpo.kl_coef = 0.5", "reference.every = 2", "reference.share = 0.6"),  # so does a renewed reference
    ],
    ids=["grpo", "dapo", "running_baseline", "reference"],
)
def test_an_interrupted_run_goes_on_bit_identically(
    make_run: MakeRun, tmp_path: Path, bindings: tuple[str, ...]
) -> None:
    whole = make_run(*bindings)
    with pytest.raises(Interrupted):
        run_job(job(tmp_path / "cut", *bindings), stop_after(3))
    assert manifest(tmp_path / "cut")["status"] == "interrupted"
    before = RunStore(tmp_path / "cut").load_checkpoint()
    assert before is not None
    assert_same_run(whole, run(tmp_path / "cut", *bindings))
    assert manifest(tmp_path / "cut")["cpu_seconds"] > before["cpu_seconds"] > 0


def test_steps_can_be_rewarded_by_providers_of_ones_own(tmp_path: Path) -> None:
    """Process supervision on the embedded task: every partial sum is a step, and a right one scores a half."""
    from core import Batch, provider

    digits = EMBEDDED_TOKENIZER("0123456789")["input_ids"]
    assert digits == list(range(digits[0], digits[0] + 10))
    semicolon = int(EMBEDDED_TOKENIZER(";")["input_ids"][0])

    @provider(fills="step_ends", cost="none")
    def partial_sums(run: Any) -> Callable[[Batch], torch.Tensor]:
        """Every semicolon ends a step."""
        return lambda batch: batch.require("response_tokens") == semicolon

    @provider(fills="token_rewards", cost="none")
    def right_partial_sums(run: Any) -> Callable[[Batch], torch.Tensor]:
        """A half for a semicolon after 4+8=2, say, and nothing after 4+8=3."""

        def score(batch: Batch) -> torch.Tensor:
            tokens = batch.require("response_tokens")
            digit = tokens - digits[0]
            right = (digit[..., :-5] + digit[..., 2:-3]) % 10 == digit[..., 4:-1]
            return torch.nn.functional.pad((right & (tokens[..., 5:] == semicolon)).float() / 2, (5, 0))

        return score

    folder = run(tmp_path / "run", "train.variant = @grpo_process()")
    assert manifest(folder)["status"] == "finished"
    assert manifest(folder)["hashes"]["final_weights"] != manifest(folder)["hashes"]["initial_weights"]
    stored = json.loads((folder / "rollouts" / "step=000001.json").read_text())
    rewards = {response["reward"] for group in stored for response in group["responses"]}
    assert any(reward % 1 == 0.5 or reward > 1 for reward in rewards), "no step was rewarded"


@pytest.mark.parametrize(
    "name", ["gdpo", "optimal_token", "kl_cov", "clip_cov", "reinforce_pp", "remax_authors", "gpg"]
)
def test_methods_with_needs_of_their_own_train(tmp_path: Path, name: str) -> None:
    """Several rewards, squared probabilities, a choice per step, token credit, local means, filters of rounds."""
    small = ("train.steps = 2", "train.epochs = 2", "train.minibatches = 2", "evaluation.questions = 2")
    folder = run(tmp_path / "run", f"train.variant = @{name}()", *small)
    assert manifest(folder)["status"] == "finished"
    assert manifest(folder)["hashes"]["final_weights"] != manifest(folder)["hashes"]["initial_weights"]
    assert all(line["loss"] is not None for line in lines(folder) if line["groups"])


def test_a_killed_run_is_replayed_from_its_checkpoint(make_run: MakeRun, tmp_path: Path) -> None:
    """As after kill -9 in step 4: a line without a checkpoint, and half a line."""
    whole = make_run()

    class KilledError(BaseException):
        pass

    def killed_in_step_4(record: Mapping[str, Any]) -> None:
        if record["step"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        run_job(job(tmp_path / "cut"), killed_in_step_4)
    assert len(lines(tmp_path / "cut")) == 3
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    assert_same_run(whole, run(tmp_path / "cut"))


def test_a_finished_run_is_not_touched(make_run: MakeRun) -> None:
    folder = make_run()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.json*")}
    run(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.json*")} == before


def test_resuming_after_an_edit_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_job(job(tmp_path / "run"), stop_after(2))
    with pytest.raises(GrpoLabError, match=r"its config changed.*learning_rate = 0.0003.*learning_rate = 0.1"):
        run(tmp_path / "run", "adamw.learning_rate = 0.1")
    run(tmp_path / "run")


def test_tests_are_taken_at_their_own_temperature(tmp_path: Path) -> None:
    """Varying the training temperature must not change how the policy is tested."""
    warm, cool = (run(tmp_path / str(t), f"train.temperature = {t}", "train.steps = 1") for t in (1.5, 0.5))
    first = [(f / "eval" / "test" / "step=000000.json").read_text() for f in (warm, cool)]
    assert first[0] == first[1]
    tested = run(tmp_path / "tested", "evaluation.temperature = 3.0", "train.steps = 1")
    assert (tested / "eval" / "test" / "step=000000.json").read_text() != first[0]


def test_kl_in_the_loss_and_in_the_reward_start_from_the_reference(tmp_path: Path) -> None:
    """The reference is the policy before the first step: no divergence there, and some later."""
    in_loss = lines(run(tmp_path / "loss", "grpo.kl_coef = 0.1"))
    assert in_loss[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert in_loss[-1]["kl"] > 1e-4
    in_reward = run(tmp_path / "reward", "train.variant = @rloo()", "rloo.kl_coef = 0.5")
    plain = run(tmp_path / "plain", "train.variant = @rloo()")
    assert lines(in_reward)[0]["reward"] == lines(plain)[0]["reward"]
    assert lines(in_reward)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert lines(in_reward)[-1]["kl"] != pytest.approx(0, abs=1e-6)
    assert {line["old_logps_from"] for line in lines(in_reward)} == {"forward pass"}
    assert {line["old_logps_from"] for line in lines(plain)} == {"update"}
    assert manifest(in_reward)["hashes"]["final_weights"] != manifest(plain)["hashes"]["final_weights"]


@pytest.fixture
def graders() -> Any:
    """Rewards for one test, unregistered afterwards."""
    import gin

    before = set(REGISTRIES["reward"])
    yield
    for name in set(REGISTRIES["reward"]) - before:
        del REGISTRIES["reward"]._parts[name]
        gin.config._REGISTRY.pop(f"rewards.{name}")


def test_a_grader_that_always_raises_stops_the_run_with_its_traceback(tmp_path: Path, graders: None) -> None:
    @reward
    def broken_grader(problem: Problem, response: str) -> float:
        """Raise."""
        raise ZeroDivisionError(f"cannot grade {response}")

    with pytest.raises(GrpoLabError, match=r"(?s)more than 5%.*The first failure:.*broken_grader.*ZeroDivisionError"):
        run(tmp_path / "run", "train.rewards = [@final_digit, @broken_grader]", "evaluation.every = 100")


def test_a_grader_that_fails_on_one_response_costs_its_group_only(tmp_path: Path, graders: None) -> None:
    calls = {"n": 0}

    @reward
    def shaky_grader(problem: Problem, response: str) -> float:
        """NaN at the sixth response of the run and when asked again: the second group of the first step."""
        calls["n"] += 1
        return float("nan") if calls["n"] in (6, 7) else 0.0

    folder = run(tmp_path / "run", "train.rewards = [@final_digit, @shaky_grader]")
    assert [(line["dropped_groups"], line["groups"]) for line in lines(folder)] == [(1, 3), (0, 4), (0, 4), (0, 4)]


def test_a_failing_verifier_is_counted_in_a_test_and_stops_it_beyond_5_percent(tmp_path: Path, graders: None) -> None:
    @reward
    def picky_verifier(problem: Problem, response: str) -> float:
        """Raise on one test question of six."""
        if problem.index == 3:
            raise ValueError("not this one")
        return 0.0

    with pytest.raises(GrpoLabError, match=r"(?s)1 of 6 test questions cannot be graded.*not this one"):
        run(tmp_path / "six", "train.rewards = [@picky_verifier]")
    more = ("train.rewards = [@picky_verifier, @final_digit]", "evaluation.questions = 20", "evaluation.split = 'test'")
    run(tmp_path / "twenty", *more, "train.steps = 1", "train.prompts = 3")
    evaluation = json.loads((tmp_path / "twenty" / "eval" / "test" / "step=000000.json").read_text())
    assert evaluation["summary"]["ungraded"] == 1
    assert len(evaluation["questions"]) == 20


def test_a_prompt_longer_than_the_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=r"prompt 0 has \d+ tokens: with train.max_tokens = 250.*context of 256"):
        run(tmp_path / "run", "train.max_tokens = 250")


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=r"policy.model = '/nowhere/model': there is no such folder"):
        run(tmp_path / "run", "policy.model = '/nowhere/model'")
    assert manifest(tmp_path / "run")["status"] == "failed"


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GrpoLabError, match=r"cannot write.*--out"):
        run(tmp_path / "file" / "run")
