"""LoRA inside the policy: what is trained, what the reference is, what is saved; and gradient checkpointing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from core import SETTINGS, GrpoLabError
from core.loop.train import run
from core.model.adapters import adapted_layers, adapters_off
from core.model.loading import EMBEDDED
from core.model.optimizer import Optimizer, adamw
from core.model.policy import Policy, PolicySettings, load_policy, policy
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore

BINDINGS = (
    "train.variant = @grpo()",
    "train.task = @chain_sums()",
    "train.generator = @native()",
    "train.steps = 3",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 24",
    "train.checkpoint_every = 1",
    "evaluation.questions = 2",
    "policy.lora_rank = 4",
    "adamw.learning_rate = 1e-2",
)


def adapted(**settings: Any) -> Policy:
    torch.manual_seed(0)
    return load_policy(policy(lora_rank=4, lora_alpha=8, **settings))


def logps_of(of: Policy) -> Tensor:
    prompt, response = (of.tokens(Problem(text, "", 0)) for text in ("1+2=", "1+2=3"))
    logps: Tensor = of.logps([prompt], [response], [0], width=len(response))[0]
    return logps


def trained(of: Policy) -> Policy:
    """After a few real steps."""
    with config(bindings=["adamw.learning_rate = 1e-2"]):
        optimizer = Optimizer(of.model.parameters(), adamw())
    for _ in range(3):
        optimizer.backward(-logps_of(of).sum())
        optimizer.step(1e-2)
    return of


def test_parameters_by_hand() -> None:
    """Hidden 96, three layers: rank * (in + out) for each of the seven linear layers of each."""
    of = adapted()
    shapes = {name: layer.base_layer.weight.shape for name, layer in adapted_layers(of.model)}
    assert len(shapes) == 7 * of.model.config.num_hidden_layers
    assert sum(p.numel() for _, p in of.trained()) == sum(4 * (out + into) for out, into in shapes.values())
    assert all(".lora_" in name for name, _ in of.trained())


def test_it_starts_as_the_base_and_is_the_base_with_adapters_off(embedded: Policy) -> None:
    of = adapted()
    assert torch.equal(logps_of(of), logps_of(embedded))
    trained(of)
    assert (logps_of(of) - logps_of(embedded)).abs().max() > 0.01
    with adapters_off(of.model), torch.no_grad():
        assert torch.equal(logps_of(of), logps_of(embedded))
    assert sum(1 for _ in of.trained()) == 2 * 7 * of.model.config.num_hidden_layers
    assert all(p.grad is None or ".lora_" in name for name, p in of.model.named_parameters())


def test_merged_weights_compute_the_same_by_hand() -> None:
    """W + alpha / rank * B A: 8 / 4 = 2."""
    of = trained(adapted())
    merged = dict(of.weights())
    name, layer = next(adapted_layers(of.model))
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(merged[f"{name}.weight"], layer.base_layer.weight + 2 * B @ A)
    plain = AutoModelForCausalLM.from_pretrained(EMBEDDED, attn_implementation="eager")
    assert merged.keys() == dict(plain.named_parameters()).keys()
    for weight_name, weight in plain.named_parameters():
        weight.data = merged[weight_name]
    ids = of.tokens(Problem("1+2=1+2=3", "", 0))
    expected = plain(ids[None]).logits.log_softmax(-1)[0, 3:-1].gather(-1, ids[4:, None])[:, 0]
    torch.testing.assert_close(logps_of(of)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
def test_it_is_saved_as_peft_does(tmp_path: Path) -> None:
    """peft itself reads it back, and so does policy.model."""
    peft = pytest.importorskip("peft")
    of = trained(adapted())
    of.save(tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    assert not (tmp_path / "model.safetensors").exists()
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(EMBEDDED), tmp_path)
    ids = of.tokens(Problem("1+2=1+2=3", "", 0))
    expected = theirs(ids[None]).logits.log_softmax(-1)[0, 3:-1].gather(-1, ids[4:, None])[:, 0]
    torch.testing.assert_close(logps_of(of)[0], expected, rtol=1e-4, atol=1e-4)
    again = load_policy(PolicySettings(str(tmp_path)))
    torch.testing.assert_close(logps_of(again), logps_of(of), rtol=1e-4, atol=1e-4)
    assert not again.has_adapters


def test_a_low_precision_base_has_float32_adapters() -> None:
    of = adapted(dtype="bfloat16")
    assert {p.dtype for _, p in of.trained()} == {torch.float32}
    assert {p.dtype for p in of.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    before = {name: p.clone() for name, p in of.trained()}
    trained(of)
    assert any(not torch.equal(before[name], p) for name, p in of.trained())


def recipe_of(*more: str) -> Any:
    with config(bindings=[*BINDINGS, *more]):
        return SETTINGS["train"]()


def test_a_run_trains_adapters_alone_and_holds_no_second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reference: its log-probabilities are the base's, and nothing is copied."""

    def refuse(_: Policy) -> Policy:
        raise AssertionError("a second copy")

    monkeypatch.setattr(Policy, "frozen_copy", refuse)
    run(recipe_of("grpo.kl_coef = 0.1"), 0, RunStore(tmp_path), facts={"identity": {}}, watch=lambda _: None)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"kl": 0.0' not in lines[-1]
    assert (tmp_path / "checkpoint" / "adapter_model.safetensors").is_file()


def test_a_run_goes_on_bit_identically(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from core.loop.train import Interrupted

    def stop(record: Any) -> None:
        if record["step"] == 2:
            raise Interrupted

    recipe = recipe_of("grpo.kl_coef = 0.1")
    run(recipe, 0, RunStore(tmp_path / "whole"), facts={"identity": {}}, watch=lambda _: None)
    with pytest.raises(Interrupted):
        run(recipe, 0, RunStore(tmp_path / "cut"), facts={"identity": {}}, watch=stop)
    state = RunStore(tmp_path / "cut").load_checkpoint()
    assert state is not None
    assert all(".lora_" in name for name in state["weights"])
    run(recipe, 0, RunStore(tmp_path / "cut"), facts={"identity": {}}, watch=lambda _: None)
    one, other = (load_file(tmp_path / n / "checkpoint" / "adapter_model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (("policy.lora_rank = -1",), "policy.lora_rank = -1"),
        (("policy.lora_targets = ['q_porj']",), "policy.lora_targets"),
        (("grpo.kl_coef = 0.1", "reference.every = 2"), "reference.every = 2: with policy.lora_rank"),
    ],
)
def test_mistakes_are_named(bindings: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=message):
        run(recipe_of(*bindings), 0, RunStore(tmp_path), facts={"identity": {}}, watch=lambda _: None)


def test_gradient_checkpointing_changes_memory_and_no_number(embedded: Policy) -> None:
    """The same log-probabilities and gradients; fewer bytes kept for the backward pass."""
    plain = load_policy(PolicySettings("embedded"))
    saving = load_policy(PolicySettings("embedded", gradient_checkpointing=True))
    kept = []
    for of in (plain, saving):
        bytes_kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal bytes_kept
            bytes_kept += 0 if isinstance(tensor, nn.Parameter) else tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logps = logps_of(of)
        logps.sum().backward()  # type: ignore[no-untyped-call]
        kept.append(bytes_kept)
    assert kept[1] < 0.5 * kept[0]
    assert torch.equal(logps_of(plain), logps_of(saving))
    for one, other in zip(plain.model.parameters(), saving.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
