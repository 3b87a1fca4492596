"""The check at load: what packing would change is refused, also where a model's distributions are nearly flat."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from core import GrpoLabError
from core.environments.rewards.reward_model import load_reward_model
from core.model.loading import EMBEDDED
from core.model.packing import Packed, attention
from core.model.policy import Policy, PolicySettings, load_policy
from core.model.sharding import hash_weights
from core.model.soundness import check_head, check_repeats, check_trunk, context_of

SIZES = {
    "vocab_size": 15,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.02,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [8.0] * 4,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
}


def tiny_model(kind: str, of: Any = AutoModelForCausalLM, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = {name: value for name, value in {**SIZES, **settings}.items() if value is not ...}
    return of.from_config(AutoConfig.for_model(kind, **config), attn_implementation="eager").eval()


def checked(model: Any) -> None:
    check_trunk(model, "policy.model = 'tiny'")
    check_head(model, model.get_output_embeddings(), "policy.model = 'tiny'")
    check_repeats(model, "policy.model = 'tiny'")


MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
MLA = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "head_dim": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 2,
} | MOE


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gemma2", {}, "passes softcap to attention, which packed attention does not support"),
        ("gemma2", {"attn_logit_softcapping": None}, "does more to its logits than its output layer"),
        ("bloom", {}, "does not attend once in each of its 2 layers by transformers' attention interface, but 0 times"),
        ("bloom", {"max_position_embeddings": ...}, "BloomConfig has no max_position_embeddings"),
        ("mpt", {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64}, "does not attend once in each of its"),
        ("falcon", {"alibi": True, "head_dim": ...}, "adds ALiBi's biases"),
        (
            "xglm",
            {"d_model": 16, "ffn_dim": 24, "num_layers": 2, "attention_heads": 2},
            "does not attend once in each of",
        ),
        ("diffllama", {"num_key_value_heads": 2}, "does not attend once in each of its 2 layers"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "has layers of the kind conv"),
        ("qwen3_next", {**MOE, "layer_types": ["linear_attention", "full_attention"]}, "of the kind linear_attention"),
        ("stablelm", {}, r"has layers \(StableLmAttention\) that do not pass the layout of packed rows on"),
        ("nemotron", {}, "that do not pass the layout of packed rows on|does not attend once"),
        ("gpt_oss", {**MOE, "layer_types": ["full_attention"] * 2}, "passes s_aux to attention"),
        ("cohere", {}, "does more to its logits than its output layer"),
        ("granite", {"logits_scaling": 8.0}, "does more to its logits than its output layer"),
        ("mistral", {"sliding_window": 32}, "looks back 32 tokens only"),
        ("llama4_text", {**MOE, "attention_chunk_size": 32}, "of the kind chunked_attention|within chunks of 32"),
        ("deepseek_v3", MLA, "keys of 8 numbers and values of 4"),
        ("bert", {"is_decoder": False}, "attends to later tokens too"),
        ("doge", {"num_experts": 4}, "passes a mask of its own to attention"),
        ("mamba", {}, "of the kind (linear_attention|mamba)"),
    ],
)
def test_flat_models_that_packing_would_change_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    """Weights of std 0.02, whose probabilities would be nearly the same."""
    model = tiny_model(kind, **settings)
    name = type(model).__name__
    with pytest.raises(GrpoLabError, match=rf"^policy\.model = 'tiny': {name} .*(?:{message}).*Supported are"):
        checked(model)


@pytest.mark.parametrize("spread", [0.02, 0.4])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("olmo2", {}),
        ("mistral", {"sliding_window": None}),
        ("gpt2", {}),
        ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16}),
        ("mixtral", MOE),
    ],
)
def test_supported_ones_pass_and_nothing_of_them_changes(kind: str, settings: dict[str, Any], spread: float) -> None:
    model = tiny_model(kind, **settings)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, spread)
    weights, draws = hash_weights(model), torch.get_rng_state()
    checked(model)
    assert hash_weights(model) == weights
    assert torch.equal(torch.get_rng_state(), draws)
    assert not model._forward_hooks
    assert not model.get_output_embeddings()._forward_hooks


def test_what_only_the_comparison_of_attention_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap inside the model's own attention, which it does not report; its scores are too small to reach it."""
    from transformers.models.llama import modeling_llama

    plain = modeling_llama.eager_attention_forward

    def capped(module: nn.Module, query: Tensor, *rest: Any, **more: Any) -> Any:
        return plain(module, 20 * torch.tanh(query / 20), *rest, **more)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", capped)
    with pytest.raises(GrpoLabError, match="computes more in LlamaAttention than softmax"):
        checked(tiny_model("llama"))


def test_positions_are_seen_in_queries_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that counts the places of the row itself, flat enough that attention hardly depends on positions."""
    from transformers.models.llama.modeling_llama import LlamaModel

    forward = LlamaModel.forward

    def counting(self: Any, input_ids: Tensor, position_ids: Any = None, **more: Any) -> Any:
        return forward(self, input_ids, position_ids=torch.arange(input_ids.shape[1])[None], **more)

    monkeypatch.setattr(LlamaModel, "forward", counting)
    with pytest.raises(GrpoLabError, match=r"other queries, keys or values when sequences are packed \(positions\)"):
        checked(tiny_model("llama"))


def test_models_that_answer_nan_are_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"\(relative difference nan\)"):
        checked(tiny_model("llama", rms_norm_eps=float("nan")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softcap": 50.0}, "passes softcap to attention"),
        ({"s_aux": torch.zeros(2)}, "passes s_aux to attention"),
        ({"from_next_year": 0}, "passes from_next_year to attention, which packed attention does not support"),
        ({"attention_mask": torch.zeros(1, 1, 3, 3)}, "passes a mask of its own to attention"),
        ({"is_causal": False}, "attends to later tokens too"),
        ({"layout": None}, "do not pass the layout"),
    ],
)
def test_what_attention_does_not_know_is_refused_at_every_call(options: dict[str, Any], message: str) -> None:
    module: Any = nn.Module()
    module.layer_idx = 0
    x = torch.ones(1, 2, 3, 4)
    usual: dict[str, Any] = {
        "attention_mask": None,
        "layout": Packed([torch.tensor([1, 2, 3])]),
        "softcap": None,
        "is_causal": True,
    }
    attention(module, x, x, x, scaling=1.0, **usual)
    with pytest.raises(GrpoLabError, match=message):
        attention(module, x, x, x, scaling=1.0, **(usual | options))


# --- longrope --------------------------------------------------------------------------------------------------------


def test_longrope_is_computed_at_one_length(tmp_path: Path) -> None:
    """Beyond the original length other frequencies count, for every sequence of the pass: such lengths are refused."""
    model = tiny_model(
        "phi3",
        rope_parameters=LONGROPE,
        original_max_position_embeddings=16,
        sliding_window=None,
        initializer_range=0.5,
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    policy = load_policy(PolicySettings(str(tmp_path)))
    assert policy.context == context_of(model.config) == 16
    prompt, short, full, longer = (torch.arange(1, n) for n in (5, 6, 13, 15))
    with torch.no_grad():
        alone, beside = (
            policy.logps([prompt], rows, [0] * len(rows), width=14)[0][0] for rows in ([short], [short, full])
        )
        torch.testing.assert_close(beside, alone)
        # the fault that the limit keeps out
        other = policy.logps([prompt], [short, longer], [0, 0], width=14)[0][0]
        assert (other - alone).abs().max() > 0.01


# --- dropout ---------------------------------------------------------------------------------------------------------

FRAGILE = [
    ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.3}),
    ("biogpt", {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}),
]


@pytest.mark.filterwarnings("ignore:`input_embeds` is deprecated:FutureWarning")  # transformers 5.5 of itself
@pytest.mark.parametrize(("kind", "settings"), FRAGILE)
def test_gradient_checkpointing_trains_without_dropout(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    tiny_model(kind, initializer_range=0.5, **settings).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    plain, saving = (
        load_policy(PolicySettings(str(tmp_path), gradient_checkpointing=checkpointing))
        for checkpointing in (False, True)
    )

    def logps(policy: Policy) -> Tensor:
        return policy.logps([torch.tensor([1, 2, 3])], [torch.tensor([4, 5, 6])], [0], width=3)[0]

    with torch.no_grad():
        expected = logps(plain)
        torch.testing.assert_close(logps(saving), expected)
    for _ in range(2):
        actual = logps(saving)
        torch.testing.assert_close(actual.detach(), expected)
    torch.autograd.backward(actual.sum())
    torch.autograd.backward(logps(plain).sum())
    for (name, one), other in zip(saving.trained(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_dropout_that_nothing_turned_off_is_detected() -> None:
    model = tiny_model("llama")
    check_trunk(model, "policy.model = 'tiny'")
    model.model.layers[0].register_forward_hook(lambda _, __, output: nn.functional.dropout(output, 0.1, training=True))
    with pytest.raises(GrpoLabError, match="other states in two passes over the same tokens: some dropout stays on"):
        check_repeats(model, "policy.model = 'tiny'")


# --- reward models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gemma2", {}, "passes softcap to attention"),
        ("stablelm", {}, "do not pass the layout"),
        ("mistral", {"sliding_window": 32}, "looks back 32 tokens only"),
    ],
)
def test_reward_models_are_held_to_the_same(tmp_path: Path, kind: str, settings: dict[str, Any], message: str) -> None:
    model = tiny_model(kind, AutoModelForSequenceClassification, num_labels=1, **settings)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    with pytest.raises(GrpoLabError, match=rf"reward_model\.model = .*{message}"):
        load_reward_model(str(tmp_path))
