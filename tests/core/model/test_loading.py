"""Reading models: nothing missing, nothing random, nothing infinite; what is damaged is named in one message."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from core import GrpoLabError
from core.environments.rewards.reward_model import load_reward_model
from core.model.adapters import LoraSettings, merge_adapters
from core.model.loading import EMBEDDED, locate, read_config, read_model, read_tokenizer
from core.model.policy import PolicySettings, load_policy
from core.parts.problems import Problem

Damage = Callable[[Path], None]
QUERY = "model.layers.1.self_attn.q_proj.weight"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(dict(change(load_file(file))), file, metadata={"format": "pt"})


def renamed(change: Callable[[str], str]) -> Damage:
    return lambda folder: rewrite(folder, lambda weights: {change(name): x for name, x in weights.items()})


def without(name: str) -> Damage:
    return lambda folder: rewrite(folder, lambda weights: {other: x for other, x in weights.items() if other != name})


def spoiled(value: float) -> Damage:
    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        weights[QUERY][3, 3] = value
        return weights

    return lambda folder: rewrite(folder, change)


def configured(**settings: Any) -> Damage:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


def replaced(name: str, content: bytes) -> Damage:
    return lambda folder: [(folder / name).write_bytes(content)].clear()


def quantized(kind: torch.dtype) -> Damage:
    return lambda folder: rewrite(folder, lambda weights: {**weights, QUERY: weights[QUERY].to(kind)})


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Damage], Path]:
    """A copy of the embedded model's folder, damaged."""

    def make(damage: Damage) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(EMBEDDED, folder, dirs_exist_ok=True)
        damage(folder)
        return folder

    return make


def read(folder: Path, setting: str = "policy.model") -> dict[str, Tensor]:
    model, _ = read_model(str(folder), torch.float32, setting=setting)
    return {name: x.detach() for name, x in model.named_parameters()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without(QUERY), rf"{QUERY} is not in its files and would be random"),
        (without("model.norm.weight"), r"model\.norm\.weight is not in its files"),
        # tied to the output layer: neither is there
        (without("model.embed_tokens.weight"), r"lm_head\.weight, model\.embed_tokens\.weight are not in its files"),
        (configured(tie_word_embeddings=False), r": lm_head\.weight is not in its files and would be random"),
        (renamed(lambda name: f"my.{name}"), r"and 26 more are not in .*the files also have my\.m"),
        (spoiled(float("nan")), rf": {QUERY} has values that are not finite \(NaN or infinity\)"),
        (spoiled(float("inf")), rf": {QUERY} has values that are not finite"),
        (configured(rope_parameters={"rope_type": "default", "rope_theta": 0.0}), r"inv_freq.* not finite"),
        (configured(intermediate_size=128), r"9 weights have another shape .*down_proj\.weight is \(96, 256\) inst"),
        (configured(num_hidden_layers=2**40), r"num_hidden_layers = 1099511627776, but its files hold 29 tensors"),
        (configured(num_hidden_layers=-1), r"num_hidden_layers = -1, which must be at least 1"),
        (configured(max_position_embeddings=0), r"max_position_embeddings = 0, which must be at least 1"),
        (configured(intermediate_size=2**40), r"its weights could not be read: .*allocate"),
        (quantized(torch.int8), rf": {QUERY} is stored as I8 and its config\.json has no quantization_config"),
        (quantized(torch.float8_e4m3fn), rf": {QUERY} is stored as F8_E4M3 and its config\.json has no quant"),
        (
            configured(model_type="of_its_own", auto_map={"AutoConfig": "own.Config"}),
            r"contains custom code which must",
        ),
        (configured(vocab_size="x"), r"its config\.json could not be read: .*'vocab_size' expected int, got str"),
        (configured(eos_token_id="x"), r"its config\.json could not be read: .*eos_token_id"),
        (configured(model_type="nosuch"), r"its config\.json could not be read: .*model type `nosuch`"),
        (
            replaced("config.json", b"[1]"),
            r"could not be read: .*(model_type|list indices)",
        ),  # by transformers' version
        (replaced("config.json", b'{"a":' + b"[" * 100_000), r"could not be read: .*recursion"),
        (replaced("config.json", b"\xff"), r"could not be read: "),
        (cut, r"its weights could not be read: Error while deserializing header"),
        (replaced("model.safetensors", b""), r"could not be read: Error while deserializing header: header too small"),
        (replaced("tokenizer.json", b"{"), r"its tokenizer could not be read: "),
        (without_tokenizer, r"its tokenizer could not be read: .* holds none: neither tokenizer\.json nor a vocab"),
        (replaced("tokenizer_config.json", b"[]"), r"its tokenizer could not be read: "),
        (replaced("generation_config.json", b"[]"), r"its weights could not be read: "),
    ],
)
def test_what_is_missing_broken_or_not_finite_is_named(
    damaged: Callable[[Damage], Path], damage: Damage, message: str
) -> None:
    folder = damaged(damage)
    with pytest.raises(GrpoLabError, match=rf"^judge\.model = '{folder}'(?s:.*){message}"):
        read(folder, "judge.model")


@pytest.mark.parametrize(
    "name",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: name.replace("layers.1.", "layers.1._orig_mod."),
        lambda name: name.replace("layers.1.", "layers.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_names_of_wrappers_are_taken_off(
    damaged: Callable[[Damage], Path], tmp_path: Path, name: Callable[[str], str]
) -> None:
    """A compiled, distributed or adapted model's own checkpoint: the same weights, and saved under their names."""
    folder, expected = damaged(renamed(name)), read(EMBEDDED)
    torch.manual_seed(5)
    weights = read(folder)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))  # nor were random numbers drawn: adapters start as they did
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    load_policy(PolicySettings(str(folder))).save(tmp_path / "again")
    assert (
        load_file(tmp_path / "again" / "model.safetensors").keys() == load_file(EMBEDDED / "model.safetensors").keys()
    )


def test_weights_that_the_model_has_no_use_for_are_reported(damaged: Callable[[Damage], Path]) -> None:
    folder = damaged(lambda folder: rewrite(folder, lambda weights: {**weights, "odd.weight": torch.ones(2)}))
    with pytest.warns(UserWarning, match=r"its files have odd\.weight, which the model does not use"):
        loaded = read(folder)
    assert torch.equal(loaded[QUERY], read(EMBEDDED)[QUERY])


def test_weights_under_their_own_names_are_read_whatever_lies_beside_them(damaged: Callable[[Damage], Path]) -> None:
    def double(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**weights, **{f"_orig_mod.{name}": 2 * x for name, x in weights.items()}}

    folder = damaged(lambda folder: rewrite(folder, double))
    with pytest.warns(UserWarning, match=r"its files have _orig_mod\..* and .* more, which the model does not use"):
        loaded = read(folder)
    assert torch.equal(loaded[QUERY], read(EMBEDDED)[QUERY])


def test_half_precision_that_overflows_says_so(damaged: Callable[[Damage], Path]) -> None:
    folder = damaged(spoiled(1e5))
    with pytest.raises(GrpoLabError, match=r"not finite .* in float16, which ends at 65504: try bfloat16"):
        read_model(str(folder), torch.float16)
    read_model(str(folder), torch.bfloat16)


def test_a_reward_model_is_read_by_the_same_rules(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=15,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
    )
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    expected = AutoModelForSequenceClassification.from_pretrained(tmp_path).score.weight
    renamed(lambda name: f"_orig_mod.{name}")(tmp_path)
    assert torch.equal(load_reward_model(str(tmp_path))._head.weight, expected)
    without("_orig_mod.score.weight")(tmp_path)
    with pytest.raises(GrpoLabError, match=r"reward_model\.model = .*: score\.weight is not in its files"):
        load_reward_model(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"base_model_name_or_path": "HERE"}', "name themselves as their base model"),
        ('{"base_model_name_or_path": "HERE/other"}', "name themselves as their base model"),
        ('{"peft_type": "LORA"}', "does not name the model its adapters belong to: set base_model_name_or_path"),
        ('{"base_model_name_or_path": null}', "does not name the model"),
        ('{"base_model_name_or_path": 3}', "does not name the model"),
        ("[1]", "does not name the model"),
        ("garbage", "is not the JSON that peft writes: Expecting value"),
        ('{"a": ' + "[" * 100_000, "is not the JSON that peft writes: .*recursion"),
        ('{"base_model_name_or_path": "./nowhere"}', "there is no such folder"),
        ('{"base_model_name_or_path": "embedded"}', r"its adapters in .* could not be read"),
    ],
)
def test_folders_of_adapters_that_lead_nowhere(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    (tmp_path / "adapter_config.json").write_text(config.replace("HERE", str(tmp_path)))
    with pytest.raises(GrpoLabError, match=message):
        read(tmp_path)
    if "embedded" not in config:
        for reader in (read_tokenizer, read_config):
            with pytest.raises(GrpoLabError, match=message):
                reader(str(tmp_path))


# --- adapters --------------------------------------------------------------------------------------------------------

PREFIX = "base_model.model."
TEMPLATE = "{{ messages[-1].content }}"


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A folder of adapters on the embedded model that add something to it."""
    torch.manual_seed(0)
    policy = load_policy(PolicySettings("embedded", lora=LoraSettings(2, 4, ("q_proj",))))
    with torch.no_grad():
        for _, weight in policy.trained():
            weight.normal_()
    policy.save(tmp_path / "adapters")
    return tmp_path / "adapters"


def change_adapters(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_adapters_are_added_and_checked(adapters: Path) -> None:
    name = "model.layers.1.self_attn.q_proj"
    A, B = (load_file(adapters / "adapter_model.safetensors")[f"{PREFIX}{name}.lora_{x}.weight"] for x in "AB")
    torch.testing.assert_close(read(adapters)[f"{name}.weight"], read(EMBEDDED)[f"{name}.weight"] + 4 / 2 * B @ A)
    for change, message in (
        (
            lambda w: {n: x for n, x in w.items() if n != f"{PREFIX}{name}.lora_A.weight"},
            r"lack .*q_proj\.lora_A",
        ),
        (
            lambda w: {**w, f"{PREFIX}odd.weight": torch.ones(1)},
            r"have .*odd\.weight, which",
        ),
        (lambda w: {n: x * float("nan") for n, x in w.items()}, "not finite"),
        (lambda w: {n: x[:1, :1].contiguous() for n, x in w.items()}, "could not be read: .*size mismatch"),
    ):
        kept = (adapters / "adapter_model.safetensors").read_bytes()
        change_adapters(adapters, change)
        with pytest.raises(GrpoLabError, match=rf"policy\.model = '{adapters}': .*adapters in {adapters} .*{message}"):
            read(adapters)
        (adapters / "adapter_model.safetensors").write_bytes(kept)


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 1e38])
def test_weights_that_are_finite_until_adapters_are_added(adapters: Path, alpha: float) -> None:
    configured_adapters = adapters / "adapter_config.json"
    configured_adapters.write_text(json.dumps(json.loads(configured_adapters.read_text()) | {"lora_alpha": alpha}))
    with pytest.raises(GrpoLabError, match=rf"with the adapters in {adapters}: .*q_proj.* not finite"):
        read(adapters)


def test_a_vocabulary_that_adapters_enlarged(adapters: Path) -> None:
    """Their embeddings, as peft saves them after two tokens more; the output layer is tied to them."""
    embeddings = torch.randn(17, 96)
    change_adapters(adapters, lambda w: {**w, f"{PREFIX}model.embed_tokens.weight": embeddings})
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    tokenizer.add_tokens(["<a>", "<b>"])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(adapters)
    with pytest.warns(UserWarning, match=rf"the tokens beside the adapters in {adapters} are used, not the"):
        policy = load_policy(PolicySettings(str(adapters)))
    assert policy.vocabulary == 17
    assert torch.equal(dict(policy.weights())["model.embed_tokens.weight"], embeddings)
    assert policy.tokens(Problem([{"role": "user", "content": "1<b>"}], "", 0)).tolist() == [2, 16]
    assert policy.logps([torch.tensor([1, 16])], [torch.tensor([15, 2])], [0], width=2)[0].isfinite().all()


def test_the_output_layer_must_grow_too(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(r=1, target_modules=["q_proj"], base_model_name_or_path="x").save_pretrained(str(tmp_path))
    model, _ = read_model("embedded", torch.float32)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    save_file({f"{PREFIX}model.embed_tokens.weight": torch.ones(17, 96)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(GrpoLabError, match=r"embeddings of 17 tokens, the model has 15, and its output layer does not"):
        merge_adapters(model, tmp_path, "policy.model = 'x'")


def test_a_chat_template_alone_may_lie_beside_adapters(adapters: Path) -> None:
    for file in adapters.glob("tokenizer*"):
        file.unlink()
    (adapters / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.warns(UserWarning, match="the chat template beside the adapters"):
        assert read_tokenizer(str(adapters)).chat_template == TEMPLATE


def test_a_name_that_is_too_long_is_one_message() -> None:
    with pytest.raises(GrpoLabError, match=r"policy\.model = 'aaa.*File name too long"):
        locate("a" * 5000)
