"""Training a reward model: it learns what it is shown, ends the same after a kill, and trains a policy."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.modeling_layers import GradientCheckpointingLayer

from core import GrpoLabError
from core.environments.datasets.pairs import Pair, read_pairs
from core.environments.rewards.reward_model import load_reward_model
from core.loop.train import Interrupted
from core.model.policy import Policy, PolicySettings
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.feedback.reward_model import RewardModelSettings, on_trunk, pair_metrics, reward_model_training, split
from experiments.feedback.reward_model import train_reward_model as train

# what is chosen ends with 9, twice to a prompt
PAIRS = [
    Pair(f"{a}+{b}=", f">{c}9", f">{c}{a}", gold=(float(b != 3), 0.5))
    for a in range(9)
    for b in range(5)
    for c in range(2)
]


def settings(**values: Any) -> RewardModelSettings:
    built: RewardModelSettings = reward_model_training(
        **{"steps": 7, "pairs": 8, "every": 3, "checkpoint_every": 2, "learning_rate": 3e-3, "warmup_steps": 0} | values
    )
    return built


def ignore(record: Mapping[str, Any]) -> None:
    """Watch nothing."""


def stop_after(step: int) -> Callable[[Mapping[str, Any]], None]:
    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise Interrupted

    return watch


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def tiny_settings(tiny_folder: Path) -> PolicySettings:
    return PolicySettings(str(tiny_folder))


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_training_that_was_killed_ends_like_one_that_was_not(
    stop: int, tiny_settings: PolicySettings, tmp_path: Path
) -> None:
    """Before the first checkpoint, at one, after one, and after the last step."""
    train(settings(), tiny_settings, PAIRS, 0, RunStore(tmp_path / "whole"), watch=ignore)
    with pytest.raises(Interrupted):
        train(settings(), tiny_settings, PAIRS, 0, RunStore(tmp_path / "cut"), watch=stop_after(stop))
    steps: list[int] = []
    train(settings(), tiny_settings, PAIRS, 0, RunStore(tmp_path / "cut"), watch=lambda r: steps.append(r["step"]))
    assert steps == list(range(stop // 2 * 2 + 1, 8))
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    # finished: nothing is done again
    train(settings(), tiny_settings, PAIRS, 0, RunStore(tmp_path / "cut"), watch=stop_after(1))


def test_a_folder_goes_on_with_what_it_was_started_with(tiny_settings: PolicySettings, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(Interrupted):
        train(settings(), tiny_settings, PAIRS, 0, store, watch=stop_after(2))
    for name, changed in (
        ("settings", (settings(pairs=9), tiny_settings, PAIRS, 0)),
        ("pairs", (settings(), tiny_settings, PAIRS[1:], 0)),
        ("seed", (settings(), tiny_settings, PAIRS, 1)),
    ):
        with pytest.raises(GrpoLabError, match=rf"cannot be resumed: its {name} changed"):
            train(*changed, store, watch=ignore)


def test_micro_batches_change_the_last_bits_only(tiny_settings: PolicySettings, tmp_path: Path) -> None:
    losses = []
    for name, most in (("whole", 10_000), ("cut", 25)):
        records: list[Mapping[str, Any]] = []
        store = RunStore(tmp_path / name)
        train(settings(micro_tokens=most, steps=3, centering=0.1), tiny_settings, PAIRS, 0, store, watch=records.append)
        losses.append([r[key] for r in records for key in ("loss", "grad_norm")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]


def test_it_learns_and_others_read_what_it_writes(tiny_settings: PolicySettings, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    train(settings(steps=60, pairs=16), tiny_settings, PAIRS, 0, store, watch=ignore)
    metrics = json.loads((tmp_path / "held_out.json").read_text())
    assert metrics == store.manifest["held_out"]
    assert metrics["pairs"] == 18  # 9 of the 45 prompts, two pairs each
    assert metrics["accuracy"] > 0.9
    assert metrics["gold_accuracy"] < metrics["accuracy"]  # the labels are wrong where b is 3
    assert sum(row["pairs"] for row in metrics["reliability"]) == 18
    assert "<svg" in (tmp_path / "reliability.svg").read_text()

    folder = tmp_path / "checkpoint"
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    ours = load_reward_model(str(tmp_path))
    rows = [[ours.row(p.prompt, text) for text in (p.chosen, p.rejected)] for p in PAIRS[:6]]
    texts = [f"{p.prompt}{text}" for p in PAIRS[:6] for text in (p.chosen, p.rejected)]
    with torch.no_grad():
        theirs = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits[:, 0]
    torch.testing.assert_close(ours.judge(rows, 100), theirs, atol=1e-5, rtol=1e-5)


def test_a_margin_asks_for_more(tiny_settings: PolicySettings, tmp_path: Path) -> None:
    first: list[float] = []
    for margin in (None, 0.0, 5.0):
        pairs = [Pair(p.prompt, p.chosen, p.rejected, margin) for p in PAIRS]
        store = RunStore(tmp_path / str(margin))
        train(settings(steps=1), tiny_settings, pairs, 0, store, watch=lambda r: first.append(r["loss"]))
    assert first[0] == first[1] < first[2] < first[0] + 5


def test_a_pair_that_the_model_cannot_read_is_named_with_its_line(
    tiny_settings: PolicySettings, tmp_path: Path
) -> None:
    chat = [{"role": "user", "content": "1+1="}]
    for wrong, message in ((chat, "has no chat template"), ("1+" * 40, "prompt and response have")):
        lines = [json.dumps({"chosen": ">2", "rejected": ">3", "prompt": prompt}) for prompt in ("1+1=", wrong)]
        (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
        pairs = read_pairs(str(tmp_path / "pairs.jsonl"))
        with pytest.raises(GrpoLabError, match=rf"pairs.jsonl, line 2: .*{message}"):
            train(settings(steps=1), tiny_settings, pairs, 0, RunStore(tmp_path / message), watch=lambda record: None)


def test_the_head_is_a_function_of_the_seed_on_the_policys_trunk(tiny_folder: Path, embedded: Any) -> None:
    one, same, other = (on_trunk(PolicySettings(str(tiny_folder)), seed) for seed in (0, 0, 1))
    heads = [model._head.weight.detach() for model in (one, same, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    wide = on_trunk(PolicySettings("embedded"), 0)
    assert float(wide._head.weight.detach().std()) == pytest.approx(97**-0.5, rel=0.2)
    trunk = embedded.model.base_model.state_dict()
    assert all(torch.equal(weight, trunk[name]) for name, weight in wide.model.base_model.state_dict().items())


def test_the_head_is_made_on_the_policys_device(embedded: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not put into the data of a parameter on the CPU, which not every kind of device allows."""
    elsewhere = SimpleNamespace(
        model=embedded.model, tokenizer=embedded.tokenizer, dtype=torch.bfloat16, device=torch.device("meta")
    )
    monkeypatch.setattr("experiments.feedback.reward_model.load_policy", lambda *_: elsewhere)
    weight = on_trunk(PolicySettings("embedded"), 0)._head.weight
    assert (weight.device.type, weight.dtype, weight.requires_grad) == ("meta", torch.bfloat16, True)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_gradient_checkpointing_is_that_of_the_policy(tiny_folder: Path) -> None:
    for enabled in (False, True):
        model = on_trunk(PolicySettings(str(tiny_folder), gradient_checkpointing=enabled), 0).model
        (layer,) = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        assert (layer.training and layer.gradient_checkpointing) == enabled


def test_no_prompt_is_trained_on_and_held_out() -> None:
    trained, tested = split(PAIRS, 0.2, 0)
    assert sorted(trained + tested) == list(range(90))
    assert len(tested) == 18
    assert not {PAIRS[i].prompt for i in trained} & {PAIRS[i].prompt for i in tested}
    assert split(PAIRS, 0.2, 0) == (trained, tested) != split(PAIRS, 0.2, 1)
    with pytest.raises(GrpoLabError, match="leave nothing to train or to test on"):
        split(PAIRS[:2], 0.5, 0)


def test_what_is_measured_by_hand() -> None:
    """Two labels of three are followed; of the two pairs with a gold reward that differs, one."""
    pairs = [Pair("", "", "", gold=(1, 0)), Pair("", "", "", gold=(0, 1)), Pair("", "", "", gold=(1, 1))]
    metrics = pair_metrics(pairs, torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 3.0]))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["gold_accuracy"] == 0.5
    assert metrics["mean_reward"] == 1
    assert pair_metrics([Pair("", "", "")], torch.ones(1), torch.zeros(1))["gold_accuracy"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"held_out": 1.0}, "held_out = 1.0: must be a number above 0"),
        ({"centering": -1.0}, "centering = -1.0: must be a number from 0 up"),
    ],
)
def test_settings_that_cannot_work_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        settings(**values)


@pytest.mark.slow
def test_from_pairs_to_a_policy_that_climbs_the_proxy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three commands; the manifest names the model, and every step logs the proxy beside the gold reward."""
    pairs, folder = tmp_path / "pairs.jsonl", tmp_path / "rm"
    assert main(["preferences", "-c", "embedded", "--prompts", "24", "--out", str(pairs)]) == 0
    run = [
        "train",
        "-c",
        "rlhf",
        "-b",
        f"reward_model.model = '{folder}'",
        "-b",
        "train.steps = 2",
        "-b",
        "train.prompts = 2",
        "-b",
        "evaluation.questions = 2",
        "--out",
        str(tmp_path),
    ]
    assert main(run) == 2
    assert "there is no model there; make one with grpolab preferences and grpolab reward-model" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "train").exists()
    command = [
        "reward-model",
        "-c",
        "embedded",
        "--pairs",
        str(pairs),
        "-b",
        "reward_model_training.steps = 3",
        "--out",
    ]
    assert main([*command, str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"reward_model.model = '{folder}'" in output.replace("\n", "")
    assert "by the gold reward; expected calibration error" in " ".join(output.split())
    assert main(run) == 0
    store = RunStore(tmp_path / "train" / "grpo" / "seed=0")
    assert store.manifest["preflight"]["reward_model"].startswith(f"reward model {folder} in float32, weights ")
    for line in (store.folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert set(record["reward_parts"]) == {"final_digit", "reward_model"}
        assert record["reward"] == pytest.approx(record["reward_parts"]["reward_model"], abs=1e-5)
        assert record["accuracy"] == pytest.approx(record["reward_parts"]["final_digit"])
