"""The memory forecast: figures by hand, and what autograd keeps, counted on real passes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import core.parts.registry as registry
from core import Batch, GrpoLabError
from core.generation.base import Generation
from core.loop.recipe import Recipe
from core.loop.rollout import Rounds
from core.loop.rollout_queue import RolloutQueue
from core.loop.rollout_queue import _Upcoming as Upcoming
from core.loop.run_state import RunState
from core.loop.scoring import Scores
from core.loop.source import Sampled
from core.model import packing
from core.model.adapters import LoraSettings, add_adapters
from core.model.decoding import can_lay_out
from core.model.loading import EMBEDDED
from core.model.logps import token_logps
from core.model.packing import ATTENTION, Kernel, Packed
from core.model.policy import PolicySettings
from experiments.memory.activations import (
    Pass,
    Segment,
    cache,
    held_by_draw,
    held_by_logits,
    saved_beside_layers,
    saved_by_layer,
)
from experiments.memory.architecture import Architecture, meta_model, read_architecture
from experiments.memory.forecast import count_parameters, forecast
from experiments.study.configs import (
    CONFIGS,
    build,
)

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 0,
}


def llama(**more: Any) -> LlamaConfig:
    return LlamaConfig(**SIZES, tie_word_embeddings=False, **more)


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(llama()),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True)),
}


def recipe(*bindings: str, model: str | None = None) -> Recipe:
    given = [] if model is None else [f"policy.model = {model!r}"]
    with registry.config([str(CONFIGS / "embedded.gin")], [*given, *bindings]):
        made: Recipe = build("train")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A model's folder with its configuration and nothing else."""
    llama(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def architecture() -> Architecture:
    return read_architecture(LlamaForCausalLM(llama()))


def test_parameters_by_hand(architecture: Architecture, folder: str) -> None:
    """Attention 64 * (64 + 32 + 32 + 64), MLP 3 * 64 * 160, two norms; embedding, head and last norm."""
    layer = 64 * 192 + 3 * 64 * 160 + 2 * 64
    assert architecture.layer_parameters == layer
    assert architecture.parameters == 2 * layer + 2 * 100 * 64 + 64
    assert architecture == read_architecture(meta_model(PolicySettings(folder, "float32"))), "config.json is enough"
    counts = count_parameters(architecture, None)
    assert (counts.total, counts.trainable) == (architecture.parameters, architecture.parameters)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_as_many_as_are_built(name: str) -> None:
    model = MODELS[name]()
    assert read_architecture(model).parameters == sum(p.numel() for p in model.parameters())


def test_adapters_by_hand(architecture: Architecture) -> None:
    """Rank 8: q and o 64 + 64, k and v 64 + 32, gate, up and down 64 + 160; the head has none."""
    added = 2 * 8 * (2 * 128 + 2 * 96 + 3 * 224)
    counts = count_parameters(architecture, LoraSettings(8, 32, "all-linear"))
    assert (counts.total, counts.trainable) == (architecture.parameters + added, added)
    assert architecture.adapter_parameters(8, ("q_proj", "v_proj")) == 2 * 8 * (128 + 96)
    assert architecture.adapter_parameters(8, r".*\.mlp\.\w+") == 2 * 8 * 3 * 224


def test_adapters_are_as_many_as_peft_builds(architecture: Architecture) -> None:
    lora, model = LoraSettings(8, 32, "all-linear"), LlamaForCausalLM(llama())
    add_adapters(model, lora, "tiny")
    built = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count_parameters(architecture, lora).trainable == built


def test_activations_by_hand(architecture: Architecture) -> None:
    """One prompt of 3 tokens, one response of 2, of which one is an input: 4 tokens.

    A token of a layer, float32: two norms of 2 * 64 * 4 + 4, linear inputs 64 + 64 + 64 + 160, MLP 3 * 160.
    Attention: queries 3 and 1 of 64, keys 3 and 4 twice 32, masks of 9 and 4, softmax of 4 heads.
    """
    p = Pass.of(1, 1, prompt=3, longest=3, response=2)
    assert p == Pass(4, (Segment(1, 3, 3), Segment(1, 1, 4)), 2)
    token = 2 * (2 * 64 * 4 + 4) + 4 * (3 * 64 + 160) + 4 * 3 * 160
    attention = 4 * (3 + 1) * 64 + 4 * 2 * (3 + 4) * 32 + (9 + 4) + 4 * 4 * (9 + 4)
    assert saved_by_layer(architecture, p, 4) == 4 * token + attention
    # rotary table 2 * 16, last norm, both masks; for both predictions a state of 64 and two float32
    assert saved_beside_layers(architecture, p, 4) == 4 * (512 + 4 + 128) + 13 + 2 * (256 + 8)
    # in bfloat16 the softmax is kept twice
    low = 4 * (2 * ((4 + 2) * 64 + 4) + 2 * (3 * 64 + 160) + 2 * 3 * 160) + 2 * 4 * 64 + 2 * 2 * 7 * 32 + 13
    assert saved_by_layer(architecture, p, 2) == low + (4 + 2) * 4 * 13


def test_logits_and_cache_by_hand(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Pass.of(1, 5, prompt=3, longest=3, response=4)
    states, weight = 20 * 64 * 4, 6400 * 4
    assert held_by_logits(architecture, p, 4, tempered=False, entropy=False) == states + 20 * 100 * 4 + weight
    # chunks of 10 tokens: the one before, the one being formed, and the sum of the gradients
    monkeypatch.setattr("core.model.logps.CHUNK_ELEMENTS", {"cpu": 1000, "other": 2000})
    two = held_by_logits(architecture, p, 4, tempered=False, entropy=False)
    assert two == states + max(2 * 10 * 100 * 4 + weight, 10 * 100 * 4 + 2 * weight)
    # elsewhere than on a CPU chunks are of 20: one holds them all
    one = held_by_logits(architecture, p, 4, tempered=False, entropy=False, device="other")
    assert one == states + 20 * 100 * 4 + weight
    # in bfloat16 a block of 2 tokens is worked on in float32, once more at a temperature and for the entropy
    monkeypatch.setattr("core.model.logps.CHUNK_ELEMENTS", {"cpu": 1 << 20, "other": 1 << 20})
    monkeypatch.setattr("core.model.logps.BLOCK_ELEMENTS", {"cpu": 299, "other": 1999})
    low = held_by_logits(architecture, p, 2, tempered=True, entropy=True)
    assert low == states // 2 + 20 * 100 * 2 + weight // 2 + 3 * 4 * 2 * 100
    other = held_by_logits(architecture, p, 2, tempered=False, entropy=False, device="other")
    assert other == states // 2 + 20 * 100 * 2 + weight // 2 + 4 * 19 * 100
    column = 2 * 2 * 32 * 4
    assert cache(architecture, 2, 3, 7, 3, 4) == 6 * 10 * column
    # long prompts are held once for their responses
    monkeypatch.setattr("core.model.caching.MANY_COLUMNS", 41)
    assert cache(architecture, 2, 3, 7, 3, 4) == (2 * 7 + 6 * 3) * column


def test_a_draw_by_hand(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 rows of a vocabulary of 5,000, blocks of 2 rows on a CPU: logits in bfloat16, noise in float32."""
    large = replace(architecture, vocabulary=5000)
    monkeypatch.setattr("core.generation.native.BLOCK_ELEMENTS", {"cpu": 10_000, "other": 1 << 27})
    assert held_by_draw(large, 6, 2, tempered=False) == 30_000 * (2 + 4) + 10_000 * 4 * 5
    assert held_by_draw(large, 6, 4, tempered=True, device="other") == 30_000 * (4 + 4) + 30_000 * 4 * 5
    # elsewhere a block is larger, and of 4 rows here
    monkeypatch.setattr("core.generation.native.BLOCK_ELEMENTS", {"cpu": 10_000, "other": 20_000})
    assert held_by_draw(large, 6, 4, tempered=True, device="other") == 30_000 * (4 + 4) + 20_000 * 4 * 5
    # cut down: seven times as much again, the 64-bit places of the sorted ones counted twice
    assert held_by_draw(large, 6, 2, tempered=False, cut=True) == 30_000 * (2 + 4) + 10_000 * 4 * 12
    # 100 tokens: noise for 16 positions, once the last and once the next, mixed from three integers of 8 bytes
    few = held_by_draw(architecture, 6, 4, tempered=False)
    assert few == 600 * 4 + 2 * 9600 * 4 + 3 * 8 * 9600 + 600 * 4 * 4


@pytest.mark.skipif(not can_lay_out("cpu", torch.bfloat16), reason="this machine has no products of bfloat16")
def test_sampling_in_bfloat16_holds_a_copy_of_the_weights(folder: str, architecture: Architecture) -> None:
    """Of all but the embedding, which is no output layer here; where many tokens are sampled."""
    low = replace(recipe("train.micro_tokens = 60", model=folder), policy=PolicySettings(folder, "bfloat16"))
    copied = forecast(low).parts["sample"]["weights laid out"]
    assert copied == 2 * (architecture.parameters - architecture.embedding)
    assert forecast(replace(low, max_tokens=2)).parts["sample"]["weights laid out"] == 0
    full = replace(low, policy=PolicySettings(folder, "float32"))
    assert forecast(full).parts["sample"]["weights laid out"] == 0


def test_an_evaluation_holds_the_answers_of_its_batches(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled and greedy ones together, and the further ones of the final score, up to the limit of a batch."""
    bindings = ("train.micro_tokens = 60", "evaluation.questions = 256", "evaluation.samples = 4")
    made, limit = recipe(*bindings, model=folder), "core.generation.native.MANY_NUMBERS"
    monkeypatch.setattr(limit, 0)
    apart = forecast(made).parts["sample"]["key-value cache"]
    monkeypatch.setattr(limit, 1 << 40)
    assert forecast(made).parts["sample"]["key-value cache"] * 4 == apart * 5
    further = recipe(*bindings, "evaluation.final_samples = 36", model=folder)
    assert forecast(further).parts["sample"]["key-value cache"] * 4 == apart * 8


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("way", ["products", "fused", "flex"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_activations_are_what_autograd_keeps(
    name: str, dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: Kernel = "flex" if way == "flex" else "padded"
    if way == "fused":
        monkeypatch.setattr(packing, "LARGE_SCORES", 0)
    model = MODELS[name]().to(dtype).eval()
    model.set_attn_implementation(ATTENTION)
    prompts = [torch.arange(20) for _ in range(3)]
    responses = [torch.arange(12) for _ in range(6)]
    kept = saved_bytes(model, prompts, responses, [0, 0, 1, 1, 2, 2], kernel)
    a, b = read_architecture(model), dtype.itemsize
    p = Pass.of(3, 6, prompt=20, longest=20, response=12, kernel=kernel)
    assert a.layers * saved_by_layer(a, p, b) + saved_beside_layers(a, p, b) == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize(("choice", "kind", "kernel"), [("auto", "cuda", "flex"), ("padded", "cuda", "padded")])
def test_activations_on_a_gpu_are_those_of_the_kernel_that_is_taken_there(
    choice: str, kind: str, kernel: Kernel, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe("train.micro_tokens = 60", f"policy.attention = '{choice}'", model=folder)
    seen: list[str] = []
    of = Pass.of

    def noted(*sizes: int, **more: Any) -> Pass:
        seen.append(more.get("kernel", "of prompts alone"))
        return of(*sizes, **more)

    monkeypatch.setattr(Pass, "of", noted)
    forecast(made)
    assert set(seen) == {"padded", "of prompts alone"}, "on a CPU"
    seen.clear()
    monkeypatch.setattr("experiments.memory.forecast.takes_cpu", lambda: False)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device(kind))
    forecast(made)
    assert set(seen) == {kernel, "of prompts alone"}


def saved_bytes(
    model: PreTrainedModel,
    prompts: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    owner: Sequence[int],
    kernel: Kernel = "padded",
) -> int:
    """Bytes of all storages but the weights' that autograd keeps of one pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        packed = Packed(prompts, [response[:-1] for response in responses], owner, kernel=kernel)
        states = model.base_model(
            input_ids=packed.input_ids, position_ids=packed.positions, use_cache=False, layout=packed
        ).last_hidden_state[0]
        tokens = torch.cat(list(responses))
        predicting = torch.nn.functional.embedding(torch.arange(len(tokens)), states)
        head: torch.nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        token_logps(predicting, head.weight, tokens)
    return sum(storage.nbytes() for storage in kept.values())


def test_what_is_held_in_training(folder: str, architecture: Architecture) -> None:
    """Full fine-tuning in float32 holds weights and twice as much of AdamW; below, masters as well."""
    N = architecture.parameters
    made = recipe("grpo.kl_coef = 0.1", model=folder)
    full, low = (forecast(replace(made, policy=PolicySettings(folder, dtype))) for dtype in ("float32", "bfloat16"))
    assert {name: full.parts["train"][name] for name in ("weights", "master weights", "optimizer state")} == {
        "weights": 4 * N,
        "master weights": 0,
        "optimizer state": 8 * N,
    }
    assert [low.parts["train"][name] for name in ("weights", "master weights", "optimizer state", "reference")] == [
        2 * N,
        4 * N,
        8 * N,
        2 * N,
    ]
    assert (full.total, full.trainable) == (N, N)
    assert forecast(recipe(model=folder)).parts["train"]["reference"] == 0
    assert full.peak == max(sum(parts.values()) for parts in full.parts.values())
    assert sum(full.parts[full.phase].values()) == full.peak


def test_a_moving_average_is_held_and_the_weights_lie_aside_while_it_answers(
    folder: str, architecture: Architecture
) -> None:
    """In float32, whatever the weights are kept in."""
    N = architecture.parameters
    made = recipe("evaluation.ema_lag = 0.2", "evaluation.questions = 256", "train.micro_tokens = 60", model=folder)
    low = forecast(replace(made, policy=PolicySettings(folder, "bfloat16"))).parts
    assert (low["train"]["moving average"], low["sample"]["moving average"]) == (4 * N, 4 * N)
    assert low["sample"]["weights set aside"] == 2 * N, "256 questions take more than the 16 prompts of a step"
    without = forecast(recipe("evaluation.questions = 256", "train.micro_tokens = 60", model=folder)).parts
    assert without["train"]["moving average"] == without["sample"]["weights set aside"] == 0


def test_what_a_truncation_kept_is_stored_where_it_is_trained_on(folder: str, architecture: Architecture) -> None:
    """16 prompts x 8 responses x 40 tokens x V, once as drawn and once joined; and what waits for its step thrice."""
    changes = ("train.max_tokens = 40", "train.top_k = 5", "train.micro_tokens = 60", "evaluation.questions = 1")
    tokens, V = 16 * 8 * 40, architecture.vocabulary
    full = forecast(recipe(*changes, model=folder)).parts
    truncated = ("train.trainer_support = 'truncated'", "train.staleness = 2")
    cut = forecast(recipe(*changes, *truncated, model=folder)).parts
    assert full["sample"]["tokens kept"] == 0
    assert cut["sample"]["tokens kept"] == 2 * tokens * V
    assert cut["train"]["rollouts sampled ahead"] == 2 * tokens * (77 + 3 * (4 + V))


def test_a_perturbed_sampler_has_the_weights_and_their_noise_beside_its_own(
    folder: str, architecture: Architecture
) -> None:
    N = architecture.parameters
    few = ("evaluation.questions = 1", "train.micro_tokens = 60", "train.generator = @perturbed()")
    for binding, bytes_each in (("divergence = 1e-3", 4 + 4), ("round = 'int8'", 4), ("divergence = 0.0", 0)):
        made = forecast(recipe(*few, f"perturbed.{binding}", model=folder)).parts
        assert made["sample"]["weights set aside"] == bytes_each * N


def held_by(value: Any, seen: dict[int, int]) -> int:
    """Bytes of all tensors that an object reaches, each once."""
    if isinstance(value, torch.Tensor):
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            held_by(each, seen)
    elif isinstance(value, Batch | Generation | Sampled | Scores | Rounds | Upcoming):
        held_by(vars(value), seen)
    return sum(seen.values())


def test_rollouts_sampled_ahead_are_held_whole_on_every_process(tiny_folder: Path) -> None:
    bindings = ("train.steps = 9", "train.max_tokens = 24", "train.minibatches = 2")
    made, ages = recipe(*bindings, "train.staleness = 6", model=str(tiny_folder)), "uniform_age.most = 6"
    for processes in (1, 2):
        parts = forecast(made, processes=processes).parts
        assert parts["sample"]["rollouts sampled ahead"] == parts["train"]["rollouts sampled ahead"]
        assert parts["train"]["rollouts sampled ahead"] == 3 * 16 * 8 * 24 * 77
    drawn = recipe(*bindings, "train.staleness = @uniform_age()", ages, model=str(tiny_folder))
    assert forecast(drawn).parts == forecast(made).parts
    assert forecast(replace(made, steps=3)).parts["train"]["rollouts sampled ahead"] == 2 * 16 * 8 * 24 * 77
    assert forecast(replace(made, staleness=0)).parts["train"]["rollouts sampled ahead"] == 0

    cut = recipe(*bindings, "train.staleness = 6", "train.top_p = 0.9", model=str(tiny_folder))
    whole = recipe(*bindings, "train.staleness = 6", "train.top_p = 0.9", "train.trainer_support = 'truncated'")
    for each in (made, cut, replace(whole, policy=made.policy)):
        queue = RolloutQueue(RunState.start(each, 0, "cpu"))
        queue.roll_out(1)
        waiting = queue._upcoming.values()
        width = sum(step.rounds.graded[0][0].generation.mask.shape[-1] for step in waiting)
        predicted = forecast(each).parts["train"]["rollouts sampled ahead"] * width / (3 * 24)
        # prompts, rewards and scores come on top
        assert held_by(list(waiting), {}) == pytest.approx(predicted, rel=0.05)


def test_adapters_need_no_reference_and_little_optimizer_state(folder: str, architecture: Architecture) -> None:
    N, added = architecture.parameters, architecture.adapter_parameters(8)
    made = recipe("grpo.kl_coef = 0.1", model=folder)
    predicted = forecast(
        replace(made, policy=PolicySettings(folder, "bfloat16", lora=LoraSettings(8, 32, "all-linear")))
    )
    held = predicted.parts["train"]
    assert (held["weights"], held["master weights"], held["optimizer state"]) == (2 * N + 4 * added, 0, 8 * added)
    assert held["reference"] == 0
    assert (predicted.total, predicted.trainable) == (N + added, added)


def test_checkpointing_keeps_inputs_of_layers_alone(folder: str, architecture: Architecture) -> None:
    made = recipe(model=folder)
    whole = forecast(replace(made, policy=PolicySettings(folder, "float32")))
    less = forecast(replace(made, policy=PolicySettings(folder, "float32", gradient_checkpointing=True)))
    # two layers' worth in either case, as both are worked on one after the other
    assert less.parts["train"]["activations"] < whole.parts["train"]["activations"]


def test_the_largest_of_phases_decides_and_evaluation_may_be_it(folder: str) -> None:
    few = forecast(recipe("train.micro_tokens = 60", "train.prompts = 2", model=folder))
    assert few.phase == "sample"
    more = forecast(recipe("train.micro_tokens = 60", "train.prompts = 2", "evaluation.questions = 256", model=folder))
    assert more.parts["sample"]["key-value cache"] == 2 * few.parts["sample"]["key-value cache"]
    many = forecast(recipe("train.micro_tokens = 60", "train.prompts = 256", model=folder))
    # 256 x 8 rows against 128 x (2 + 1), greedy ones included
    assert many.parts["sample"]["key-value cache"] * 3 == 16 * few.parts["sample"]["key-value cache"]


def test_gradients_are_there_when_others_of_the_step_went_before(folder: str, architecture: Architecture) -> None:
    one = forecast(recipe(model=folder))
    assert one.moments["train"].name == "backward through the layers"
    head = 4 * architecture.embedding
    assert one.parts["train"]["gradients"] == head, "the output layer's own alone"
    two = forecast(recipe("train.micro_tokens = 2000", model=folder))
    assert two.parts["train"]["gradients"] == 4 * architecture.parameters + head


def test_a_group_objective_takes_whole_groups_however_small_the_limit(folder: str) -> None:
    """As much as a limit of one group's tokens gives an objective on rows, and a reference for its log-probs."""
    made = recipe("train.variant = @dpo()", "train.micro_tokens = 1", model=folder)
    group = forecast(made).prompts.mean + made.group_size * made.max_tokens
    by_row = recipe("grpo.kl_coef = 0.1", f"train.micro_tokens = {group}", model=folder)
    assert forecast(made).moments["train"] == forecast(by_row).moments["train"]
    assert forecast(made, processes=2).moments["train"] == forecast(by_row, processes=2).moments["train"]
    row = forecast(recipe("grpo.kl_coef = 0.1", "train.micro_tokens = 1", model=folder))
    assert row.parts["train"]["activations"] < forecast(made).parts["train"]["activations"] / 2


def test_processes_share_responses_and_with_sharding_weights(folder: str, architecture: Architecture) -> None:
    made = recipe(model=folder)
    one, two, sharded = forecast(made), forecast(made, processes=2), forecast(made, processes=2, sharded=True)
    assert two.parts["sample"]["key-value cache"] * 2 == one.parts["sample"]["key-value cache"]
    assert two.parts["train"]["activations"] < 0.6 * one.parts["train"]["activations"]
    assert two.parts["train"]["optimizer state"] == one.parts["train"]["optimizer state"]
    assert sharded.parts["train"]["optimizer state"] * 2 == one.parts["train"]["optimizer state"]
    assert sharded.parts["train"]["weights"] * 2 == one.parts["train"]["weights"]
    assert sharded.parts["sample"]["gathered weights"] == 4 * architecture.parameters, "sampling has them whole"


def test_prompts_are_counted_with_the_tokenizer_or_in_bytes(folder: str) -> None:
    """The embedded model's tokens are characters."""
    counted, guessed = forecast(recipe()).prompts, forecast(recipe(model=folder)).prompts
    assert counted.are_counted
    assert not guessed.are_counted
    assert (counted.mean, counted.longest) == (guessed.mean, guessed.longest)


def test_any_size_needs_no_weights(tmp_path: Path) -> None:
    """Llama 3.1 8B by its published sizes: 8,030,261,248 parameters."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(tmp_path)
    predicted = forecast(recipe("policy.dtype = 'bfloat16'", model=str(tmp_path)))
    assert predicted.total == 8_030_261_248
    assert predicted.peak > 18 * predicted.total


def test_what_cannot_be_forecast_says_so(tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=r"could not be read: .* Its config\.json is\s+enough"):
        forecast(recipe(model=str(tmp_path)))
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(tmp_path)
    with pytest.raises(GrpoLabError, match="GPT2LMHeadModel: not a decoder of equal layers"):
        forecast(recipe(model=str(tmp_path)))


def test_the_embedded_folder_is_read_like_any_other() -> None:
    named, placed = forecast(recipe()), forecast(recipe(model=str(EMBEDDED)))
    assert named == placed


@pytest.mark.parametrize("on_cpu", [True, False])
def test_drawing_the_noise_table_takes_memory_of_the_host(
    on_cpu: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three copies in float64 of 2^22 numbers; on a GPU only the table itself is in the device's memory."""
    monkeypatch.setattr("experiments.memory.activations.SMALL_VOCABULARY", 99)
    monkeypatch.setattr("experiments.memory.forecast.takes_cpu", lambda: on_cpu)
    sample = forecast(recipe("train.prompts = 1", model=folder)).parts["sample"]
    assert sample["noise table"] == 4 * (1 << 22)
    assert (sample.get("copies", 0) == 3 * 8 * (1 << 22)) == on_cpu
