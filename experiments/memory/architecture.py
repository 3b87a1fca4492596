"""What a model's memory depends on, read from its configuration: no weight is read or made."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from core import GrpoLabError
from core.model.decoding import has_known_blocks
from core.model.loading import read_config, reading
from core.model.policy import PolicySettings


@dataclass(frozen=True)
class Linear:
    """A linear layer inside a decoder layer, by its name there."""

    name: str
    inputs: int
    outputs: int

    @property
    def reads(self) -> str:
        """What its input is named after: layers side by side have the same."""
        module, _, own = self.name.rpartition(".")
        return self.name if own in ("o_proj", "down_proj") else module


@dataclass(frozen=True)
class Architecture:
    """A decoder of equal layers with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the output layer's weight is the embedding's."""
    parameters: int
    """All, tied ones once."""
    layer_parameters: int
    linears: tuple[Linear, ...]
    """Those of one layer."""
    norms: int
    """Norms of a whole token in one layer."""
    head_norms: bool
    """Whether there are norms of queries and keys."""
    known_blocks: bool
    """Whether sampling goes through blocks that are written out, whose weights may be laid out for it."""

    @property
    def inputs(self) -> dict[str, int]:
        """Elements a token of the different inputs that linear layers of one decoder layer have."""
        return {linear.reads: linear.inputs for linear in self.linears}

    @property
    def embedding(self) -> int:
        """Elements of the embedding, which are as many as the output layer's weight has."""
        return self.vocabulary * self.hidden

    def adapter_parameters(self, rank: int, targets: str | Collection[str] = "all-linear") -> int:
        """Parameters of low-rank adapters: rank * (inputs + outputs) for each target layer; the head has none."""
        return self.layers * sum(rank * (x.inputs + x.outputs) for x in self.targeted(targets))

    def targeted(self, targets: str | Collection[str]) -> list[Linear]:
        """The layers of one decoder layer that get adapters: all, those of these names, or those a pattern matches."""
        if targets == "all-linear":
            return list(self.linears)
        if isinstance(targets, str):
            return [x for x in self.linears if re.fullmatch(targets, f"model.layers.0.{x.name}")]
        return [x for x in self.linears if x.name.rpartition(".")[2] in targets or x.name in targets]


def meta_model(settings: PolicySettings) -> PreTrainedModel:
    """The model with shapes and no weights; GrpoLabError when its configuration cannot be read."""
    try:
        config = read_config(settings.model)
        with reading(f"policy.model = {settings.model!r}", "config.json"), torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except GrpoLabError as error:
        raise GrpoLabError(f"{error}. Its config.json is enough: give a folder that holds it") from error
    return model


def read_architecture(model: PreTrainedModel) -> Architecture:
    """The sizes of a model; GrpoLabError for a kind of model that the arithmetic does not cover."""
    config, base = model.config, model.base_model
    decoder = getattr(base, "layers", None)
    missing = [
        name for name in ("hidden_size", "intermediate_size", "num_attention_heads") if not hasattr(config, name)
    ]
    if not isinstance(decoder, nn.ModuleList) or missing:
        raise GrpoLabError(
            f"{type(model).__name__}: not a decoder of equal layers with attention and a gated MLP, the only kind "
            "that the memory forecast supports (Llama, Qwen2, Qwen3, SmolLM3, OLMo and the like); measure a run instead"
        )
    layer = decoder[0]
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    norms = [name for name, module in layer.named_modules() if type(module).__name__.endswith("Norm")]
    of_heads = [name for name in norms if name.endswith((".q_norm", ".k_norm"))]
    head: nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return Architecture(
        layers=len(decoder),
        hidden=config.hidden_size,
        heads=heads,
        key_heads=key_heads,
        head_width=width,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        tied=head.weight is model.get_input_embeddings().weight,
        parameters=sum(p.numel() for p in model.parameters()),
        layer_parameters=sum(p.numel() for p in layer.parameters()),
        linears=tuple(
            Linear(name, module.in_features, module.out_features)
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear)
        ),
        norms=len(norms) - len(of_heads),
        head_norms=bool(of_heads),
        known_blocks=has_known_blocks(model),
    )
