"""Low-rank adapters (LoRA) through peft, added inside the model: everything that calls the model goes on as before."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import GrpoLabError
from core.model.sharding import full_tensor


@dataclass(frozen=True)
class LoraSettings:
    """W + alpha / rank * B A on each of the target layers (Hu et al. 2022, arXiv:2106.09685, section 4.1)."""

    rank: int
    alpha: int
    targets: str | tuple[str, ...]


def add_adapters(model: PreTrainedModel, settings: LoraSettings, name: str) -> None:
    """Freeze the model and add float32 adapters; B starts at 0, so the model computes what it did."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise GrpoLabError(f"policy.lora_rank = {settings.rank} needs peft: pip install 'grpo-lab[lora]'") from error
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise GrpoLabError(f"policy.lora_targets = {settings.targets!r}: {error}") from error
    # what the adapters belong to, as this bench and, for a hub id or a folder, peft find it again
    config.base_model_name_or_path = name
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in parameter_name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.eval()  # type: ignore[no-untyped-call]


def merge_adapters(model: PreTrainedModel, folder: Path, where: str) -> PreTrainedModel:
    """The model with the adapters in a folder, which peft wrote or `save_adapters`, added to its weights.

    The vocabulary is as large as theirs. Raises `GrpoLabError` where they lack a weight or do not fit the model.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    except ImportError as error:
        raise GrpoLabError(f"{folder} holds adapters, which need peft: pip install 'grpo-lab[lora]'") from error
    weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    broken = sorted(name for name, weight in weights.items() if not weight.isfinite().all())
    if broken:
        raise GrpoLabError(f"{where}: the adapters in {folder} have values that are not finite, in {broken[0]}")
    embeddings = _resize_vocabulary(model, weights, where)
    with warnings.catch_warnings():
        # peft asks transformers by names that transformers is about to drop
        warnings.simplefilter("ignore", FutureWarning)
        # what is missing is looked for below
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        adapted = PeftModel.from_pretrained(model, str(folder))
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    if wrong := sorted((expected ^ weights.keys()) - (embeddings - expected)):
        lacks = wrong[0] in expected
        raise GrpoLabError(
            f"{where}: the adapters in {folder} {'lack' if lacks else 'have'} {wrong[0]}"
            + ("" if lacks else ", which the model does not have")
            + (f" (one of {len(wrong)} such weights)" if len(wrong) > 1 else "")
            + ": they were cut, or belong to another model than their adapter_config.json names"
        )
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _resize_vocabulary(model: PreTrainedModel, weights: Mapping[str, Tensor], where: str) -> set[str]:
    """Make room for as many tokens as the adapters' own embeddings have; the names of those among `weights`."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    names = {module: f"base_model.model.{name}.weight" for name, module in model.named_modules()}
    resized = {layer: names[layer] for layer in (embeddings, head) if names.get(layer) in weights}
    size = max((len(weights[name]) for name in resized.values()), default=len(embeddings.weight))
    if size != len(embeddings.weight):
        if head is not None and head not in resized and head.weight is not embeddings.weight:
            raise GrpoLabError(
                f"{where}: the adapters have embeddings of {size} tokens, the model has {len(embeddings.weight)}, and "
                "its output layer does not come with them: save them with save_embedding_layers=True"
            )
        model.resize_token_embeddings(size, mean_resizing=False)
    return set(resized.values())


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by name."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off meanwhile: the model computes as before it was adapted."""
    for _, layer in adapted_layers(model):
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for _, layer in adapted_layers(model):
            layer.enable_adapters(True)


def save_adapters(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters as peft does; `state` is the model's state, whole."""
    from peft import get_peft_model_state_dict

    # embeddings are never adapted; asked to find out itself, peft would look the base model up on a hub
    weights = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    # a model that peft wraps has one level more
    save_file(
        {f"base_model.model.{name}": x.contiguous() for name, x in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config: Any = model.peft_config["default"]
    config.save_pretrained(folder)


@torch.no_grad()
def adapter_weight(layer: Any) -> Tensor:
    """What an adapter adds to its layer's weight, [out, in]."""
    A, B = (full_tensor(factor["default"].weight) for factor in (layer.lora_A, layer.lora_B))
    scale: float = layer.scaling["default"]
    return scale * (B @ A)
