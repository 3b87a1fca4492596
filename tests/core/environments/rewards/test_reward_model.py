"""The learnt reward: the same number as transformers' own classifier gives, in packed passes of bounded size."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
)

import core.environments.rewards.reward_model as module
from core import GrpoLabError
from core.environments.rewards.reward_model import RewardModel, load_reward_model, passes, reward_model
from core.environments.tasks.chain_sums import final_digit
from core.loop.scoring import score, start
from core.model.loading import EMBEDDED
from core.parts.problems import Problem
from core.parts.registry import config

PROMPTS = ["1+1=", "2+3+4="]
TEXTS = [[">2", "1+1=2;>2", ">3", ""], [">9", ">9", "2+3=5;5+4=9;>9", "2+3="]]
PROBLEMS = [Problem(prompt, answer, i) for i, (prompt, answer) in enumerate(zip(PROMPTS, "29", strict=True))]
SIZES = {
    "vocab_size": 15,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "bos_token_id": None,
    "eos_token_id": 0,
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder with a reward model of random weights, which pads with `pad`."""

    def make(pad: str = ".", kind: Any = LlamaForSequenceClassification, seed: int = 0, **settings: Any) -> Path:
        folder = tmp_path / f"{pad}-{kind.__name__}-{seed}"
        tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
        tokenizer.pad_token = pad
        torch.manual_seed(seed)
        of = MistralConfig if kind is MistralForSequenceClassification else LlamaConfig
        kind(of(**{"num_labels": 1, **SIZES, **settings}, pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def by_transformers(folder: Path, texts: list[str]) -> list[float]:
    """What another library would get: the text with its end-of-sequence token, padded to a batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        values = model(**tokenizer([text + tokenizer.eos_token for text in texts], return_tensors="pt", padding=True))
    return [float(value) for value in values.logits[:, 0]]


@pytest.mark.parametrize("pad", [".", "+"], ids=["pads with the end of sequence", "pads otherwise"])
def test_a_reward_is_what_transformers_gives_the_same_text(make: Make, pad: str) -> None:
    folder = make(pad)
    graded = reward_model(PROBLEMS, TEXTS, model=str(folder))
    expected = by_transformers(folder, [p + text for p, group in zip(PROMPTS, TEXTS, strict=True) for text in group])
    assert [s.value for group in graded for s in group] == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) == 7  # the two equal texts, and no others
    assert not any(s.correct or s.lenient for group in graded for s in group)


def test_where_the_reward_is_read(make: Make) -> None:
    """At the end-of-sequence token, unless that is also the padding: then just before it."""
    ids = AutoTokenizer.from_pretrained(EMBEDDED)("1+1=>2")["input_ids"]
    assert load_reward_model(str(make("+"))).row("1+1=", ">2") == [*ids, 0]
    assert load_reward_model(str(make("."))).row("1+1=", ">2") == ids
    assert load_reward_model(str(make("+"))).row("1+1=", ">2.") == [*ids, 0]  # not twice


def test_passes_by_hand() -> None:
    groups = [[[1, 1, 1, 5], [1, 1, 1, 6]], [[2, 2, 7], [2, 2, 8, 9]]]
    # 4 + 1, and 3 + 2: what a group's rows begin with counts once a pass
    assert list(passes(groups, 10)) == [groups]
    assert list(passes(groups, 9)) == [[groups[0], groups[1][:1]], [groups[1][1:]]]
    assert list(passes(groups, 1)) == [[[row]] for group in groups for row in group]


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    st.integers(1, 20),
)
def test_passes_keep_every_row_in_order_and_the_bound(groups: list[list[list[int]]], most: int) -> None:
    made = list(passes(groups, most))
    assert [row for part in made for group in part for row in group] == [row for group in groups for row in group]
    for part in made:
        rows = [row for group in part for row in group]
        prompts = [module._common(group) for group in part]
        size = sum(len(row) for row in rows) - sum(
            shared * (len(group) - 1) for shared, group in zip(prompts, part, strict=True)
        )
        assert size <= most or len(rows) == 1


def test_the_size_of_a_pass_changes_no_reward(make: Make) -> None:
    folder = str(make())
    whole, cut = (reward_model(PROBLEMS, TEXTS, model=folder, micro_tokens=most) for most in (10_000, 7))
    for one, other in zip(whole, cut, strict=True):
        assert [s.value for s in one] == pytest.approx([s.value for s in other], abs=1e-5)


def test_rows_without_a_common_beginning(make: Make) -> None:
    """Token lists of any kind, also a group of one, of equal rows, and of rows that part at once."""
    model = load_reward_model(str(make()))
    groups = [[[1, 2]], [[3, 4, 5], [3, 4, 5]], [[6], [7, 8]], [[9, 9], [9]]]
    rows = [row for group in groups for row in group]
    alone = [value for row in rows for value in model.judge([[row]], 99).tolist()]
    assert model.judge(groups, 99).tolist() == pytest.approx(alone, abs=1e-5)


def test_chat_messages_go_through_the_template(make: Make) -> None:
    folder = make("+")
    messages = [{"role": "user", "content": "1+1="}]
    with pytest.raises(GrpoLabError, match="reward model has no chat template"):
        load_reward_model(str(folder)).row(messages, ">2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}+{{ m.content }}{% endfor %}{% if add_generation_prompt %};{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    model = load_reward_model(str(folder))
    assert model.row(messages, ">2") == [*tokenizer("+1+1=;>2")["input_ids"], 0]


def test_it_stands_beside_the_verifier_which_gives_the_verdict(make: Make) -> None:
    learnt = reward_model.using(model=str(make()))
    scores = score([final_digit, learnt], PROBLEMS, TEXTS)
    assert scores.parts[..., 0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert scores.correct.tolist() == [[True, True, False, False], [True, True, True, False]]
    expected = [[s.value for s in group] for group in learnt(PROBLEMS, TEXTS)]
    torch.testing.assert_close(scores.parts[..., 1], torch.tensor(expected))


def test_the_model_is_read_once_until_its_files_change(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = make(seed=0), make(seed=1)
    read: list[str] = []
    load = module.load_reward_model

    def counted(name: str, *arguments: Any) -> RewardModel:
        read.append(name)
        return load(name, *arguments)

    monkeypatch.setattr(module, "load_reward_model", counted)
    first, again = (reward_model(PROBLEMS, TEXTS, model=str(folder))[0][0].value for _ in range(2))
    assert first == again
    assert len(read) == 1
    description = start([reward_model.using(model=str(folder)).resolved()])["reward_model"]
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    assert reward_model(PROBLEMS, TEXTS, model=str(folder))[0][0].value != first
    assert len(read) == 2
    assert start([reward_model.using(model=str(folder)).resolved()])["reward_model"] != description


def test_the_manifest_names_model_and_weights(make: Make) -> None:
    folder = make()
    description = start([reward_model.using(model=str(folder)).resolved()])["reward_model"]
    assert description.startswith(f"reward model {folder} in float32, weights ")
    assert len(description.rpartition(" ")[2]) == 16


def test_what_is_no_reward_model_is_refused_before_anything_runs(make: Make, tmp_path: Path, tiny_folder: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "manifest.json").write_text("{}")
    for name, message in (
        (str(tmp_path / "nowhere"), "there is no model there; make one with grpolab preferences"),
        (str(begun), "there is no model there yet: its training has not ended"),
        (str(tiny_folder), "is not a reward model but LlamaForCausalLM"),
    ):
        with pytest.raises(GrpoLabError, match=message):
            start([reward_model.using(model=name).resolved()])
    with config(), pytest.raises(GrpoLabError, match=r"reward_model\.model is not set"):
        start([reward_model.resolved()])


def test_what_cannot_be_read_is_named(make: Make) -> None:
    two = make(num_labels=2)
    with pytest.raises(GrpoLabError, match="no linear output layer `score` with one output"):
        load_reward_model(str(two))
    with pytest.raises(GrpoLabError, match="looks back 3 tokens only"):
        load_reward_model(str(make(kind=MistralForSequenceClassification, sliding_window=3)))
    model = load_reward_model(str(make(seed=1)))
    with pytest.raises(GrpoLabError, match="have 65 tokens: the reward model reads 1 to 64"):
        model.row("1" * 60, "2" * 5)
    with pytest.raises(GrpoLabError, match=r"reward_model\.dtype"):
        load_reward_model(str(make(seed=1)), "fp8")


def test_a_folder_with_a_checkpoint_stands_for_it(make: Make, tmp_path: Path) -> None:
    shutil.copytree(make(), tmp_path / "run" / "checkpoint")
    inner, outer = (module.find_reward_model(str(tmp_path / name)) for name in ("run/checkpoint", "run"))
    assert inner == outer
    assert json.loads((outer / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
