"""What every test shares: one thread, repeatable examples, a tiny model, and the embedded one."""

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias

import gin
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor
from torch.nn.attention import flex_attention

from core import Batch
from core.model import flex
from core.model.loading import EMBEDDED
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts import registry
from experiments.setup import import_parts, quiet_libraries
from tests.forking_python import forking_python

torch.set_num_threads(1)
quiet_libraries()
import_parts()
settings.register_profile(
    "bench", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("bench"), max_examples=6)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "bench"))

OURS = ("core", "estimators", "variants", "experiments")
MakeBatch: TypeAlias = Callable[..., Batch]
"""`(groups=3, samples=4, holes=False, seed=0)` to a batch of ragged responses with real token ids."""


def pytest_collection_finish() -> None:
    """Collections of garbage need not look at what was imported: it stays, and there are a million objects of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """A run sets the number of threads of its process; put it back for the next test."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    """Forget the parts that a test registers, and the modules that did, so that no other test sees them."""
    before = {kind: dict(found._parts) for kind, found in registry.REGISTRIES.items()}
    modules = set(sys.modules)
    yield
    for kind, found in registry.REGISTRIES.items():
        for name in found.keys() - before[kind].keys():
            part = found._parts[name]
            if part.module.split(".")[0] in OURS:  # ours, which the test was the first to import
                continue
            del found._parts[name]
            gin.config._REGISTRY.pop(part.selector)
            if part.module not in modules:  # imported again, it would register nothing
                sys.modules.pop(part.module, None)


@pytest.fixture(scope="session")
def _forking_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with forking_python(tmp_path_factory.mktemp("python")) as program:
        yield program


@pytest.fixture
def forks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that this process, and torchrun, would start a Python for are run by forks, where those can be minded."""
    if sys.platform == "linux":
        program = str(request.getfixturevalue("_forking_python"))
        monkeypatch.setattr(sys, "executable", program)
        monkeypatch.setenv("PYTHON_EXEC", program)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved one-layer Llama with grouped heads, random weights and the embedded character tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(7)
    # wide weights, so that distributions are far from uniform
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
        initializer_range=0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def _tiny(tiny_folder: Path) -> Policy:
    return load_policy(PolicySettings(str(tiny_folder), "float32"))


@pytest.fixture
def tiny(_tiny: Policy) -> Policy:
    """The one-layer policy, float32, fresh for every test."""
    return Policy(deepcopy(_tiny.model), _tiny.tokenizer)


@pytest.fixture(scope="session")
def embedded() -> Policy:
    """The embedded policy, float32; shared, so read only."""
    return load_policy(PolicySettings("embedded", "float32"))


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's flex attention composed of plain operations, with the backward pass that it refuses on a CPU."""
    # torch's compiler looks at it, and hides the warning by a way that it does not have where warnings are errors
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "BACKEND", "eager")


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    """A maker of batches of ragged responses with every field that a part may ask for."""

    def make(groups: int = 3, samples: int = 4, *, holes: bool = False, seed: int = 0, vocabulary: int = 15) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 8, (groups, samples), generator=draw)
        lengths[0, 0], lengths[-1, -1] = 8, 1
        T = int(lengths.max())
        response_mask = torch.arange(T) < lengths[..., None]
        shape = response_mask.shape

        def noise(scale: float = 1.0) -> Tensor:
            return torch.randn(shape, generator=draw).mul(scale).where(response_mask, 0.0)

        mask = response_mask & (torch.rand(shape, generator=draw) < 0.7) if holes else response_mask
        tokens = torch.randint(1, vocabulary, shape, generator=draw).where(response_mask, 0)
        sizes = torch.randint(2, 7, (groups,), generator=draw).tolist()
        prompts = tuple(torch.randint(1, vocabulary, (size,), generator=draw) for size in sizes)
        rewards = torch.randn(groups, samples, generator=draw)
        return Batch(
            rewards=rewards,
            response_mask=response_mask,
            mask=mask,
            prompt_ids=torch.arange(groups),
            max_tokens=T + 3,
            prompt_tokens=prompts,
            response_tokens=tokens,
            correct=rewards > 0,
            truncated=torch.zeros(groups, samples, dtype=torch.bool),
            old_logps=noise() - 2,
            ref_logps=noise() - 2,
            behaviour_logps=noise() - 2,
            values=noise(),
            sum_squared_probs=noise().square() / 9,
            greedy_rewards=torch.randn(groups, generator=draw),
            reward_parts=torch.stack([rewards / 2, rewards / 2], -1),
            reward_names=("one", "other"),
            reward_weights=(1.0, 1.0),
            step_ends=response_mask & (torch.rand(shape, generator=draw) < 0.5),
        )

    return make
