"""The models that checks look at, and the one of random weights, which is made where it is first asked for.

Random weights do for all that is about memory, speed and rounding. On a GPU they have the shape of Qwen2.5-0.5B; on a
CPU that shape cut down, large enough that products and not Python decide.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.doctor.visit import EMBEDDED, RANDOM, Visit

if TYPE_CHECKING:
    from core.model.policy import Policy, PolicySettings

QWEN2_5_0_5B: Final[Mapping[str, Any]] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
CUT_DOWN: Final[Mapping[str, Any]] = {
    **QWEN2_5_0_5B,
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class Subject:
    """A model that is there to be read, and the precision that it is trained in here."""

    model: str
    dtype: str
    on_gpu: bool

    @property
    def bindings(self) -> list[str]:
        """What binds it in a recipe."""
        bound = [f"policy.model = {self.model!r}", f"policy.dtype = {self.dtype!r}"]
        return bound + (["policy.gradient_checkpointing = True"] if self.dtype != "float32" else [])

    def settings(self, dtype: str | None = None) -> "PolicySettings":
        """To be loaded, in its own or another precision."""
        from core.model.policy import PolicySettings

        return PolicySettings(self.model, dtype or self.dtype)

    def policy(self, dtype: str | None = None) -> "Policy":
        """Loaded, in a process that is set up as a run's."""
        from core.distributed import init
        from core.model.policy import load_policy

        return load_policy(self.settings(dtype), init().device)


def subject_of(visit: Visit) -> Subject:
    """The visit's model: as it is trained here, and made where it is of random weights and not there yet."""
    from experiments.doctor.precisions import device_of_runs

    on_gpu = device_of_runs() != "cpu"
    model = visit.model
    if model == RANDOM:
        folder = Path(visit.scratch) / "random-model"
        if not folder.is_dir():
            make_random_model(folder, QWEN2_5_0_5B if on_gpu else CUT_DOWN)
        model = str(folder)
    return Subject(model, "bfloat16" if on_gpu and model != EMBEDDED else "float32", on_gpu)


def make_random_model(folder: Path, shape: Mapping[str, Any]) -> None:
    """A Qwen2 of random weights, saved whole or not at all, with a tokenizer in which every number is some text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"<{i}>" for i in range(len(letters), shape["vocab_size"]))]
    raw = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    end = words[-1]
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=end, pad_token=end)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    number = len(words) - 1
    config = Qwen2Config(**shape, eos_token_id=number, bos_token_id=None, pad_token_id=number)
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
