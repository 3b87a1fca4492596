"""Real runs on the pretend device, and what they asked of it; each of these is work for `on_pretend`."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch

from core.generation.base import Request
from core.generation.native import Native
from core.loop.run_state import RunState
from core.loop.train import Interrupted, run
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts import registry
from core.store.run_folder import RunStore
from experiments.study.configs import CONFIGS, build, find_config
from tests.pretend.ledger import LEDGER

SMALL: Final = (
    "train.steps = 2",
    "train.prompts = 2",
    "train.group_size = 4",
    "train.max_tokens = 6",
    "evaluation.split = 'test'",
    "evaluation.questions = 1",
    "evaluation.samples = 2",
    "evaluation.every = 2",
)
DECODING: Final = "core/generation/native.py"


@dataclass(frozen=True)
class Plant:
    """A mistake, planted in a module by replacing a piece of its text; its functions are then made anew."""

    module: str
    text: str
    mistake: str

    def __call__(self) -> None:
        """Plant it in this process."""
        module = importlib.import_module(self.module)
        assert module.__file__
        source = Path(module.__file__).read_text()
        assert source.count(self.text) == 1, f"{self.module} has {self.text!r} {source.count(self.text)} times"
        exec(compile(source.replace(self.text, self.mistake), module.__file__, "exec"), module.__dict__)


@dataclass(frozen=True)
class Trained:
    """A run, as far as it went."""

    hashes: dict[str, str]
    lines: list[dict[str, Any]]
    """Of metrics, one a step."""
    launches: int
    waits: list[dict[str, int]]
    """By step, how often the host waited, by `place: operator`, but for decoding; what comes before is in the first."""
    unsteady: set[tuple[str, str]]
    """Functions, and the operators in them whose CUDA kernel may give other bits the next time."""


def trained(
    *bindings: str,
    config: str = "embedded",
    stop_after: int = 0,
    plant: Plant | None = None,
    patches: Mapping[str, Any] | None = None,
) -> Trained:
    """A run of a shipped recipe made small, stopped after a step or gone through, with modules' names patched."""
    if plant:
        plant()
    with ExitStack() as stack:
        for path, value in (patches or {}).items():
            stack.enter_context(patch(path, value))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return _trained_in(folder, *bindings, config=config, stop_after=stop_after)


def preferences_and_what_learns_from_them() -> list[Trained]:
    """Pairs by `grpolab preferences`, a reward model of them, and runs on it and on them."""
    small = ("--prompts", "8", "-b", "train.max_tokens = 16")
    command("preferences", "-c", "embedded", *small, "--out", "pairs.jsonl")
    steps = ("-b", "reward_model_training.steps = 2")
    command("reward-model", "-c", "embedded", "--pairs", "pairs.jsonl", *steps, "--out", "proxy")
    pairs = ("train.source = @preference_pairs()", "preference_pairs.path = 'pairs.jsonl'", "train.max_tokens = 16")
    offline = [(f"train.variant = @{name}()", "train.group_size = 2", *pairs) for name in ("dpo", "kto")]
    return [
        trained("reward_model.model = 'proxy'", config="rlhf"),
        *(trained(*bindings) for bindings in offline),
    ]


def command(*words: str, site: str | None = None) -> None:
    """`grpolab` with these words, in this process, to a good end; those that it starts find `site` first."""
    from experiments.cli.main import main

    sys.path[:0] = [site] if site else []
    assert main(words) == 0, words


def straight_and_resumed(*bindings: str) -> tuple[Trained, Trained]:
    """A run, and one that goes on from what that had stored when its second step was over."""
    with tempfile.TemporaryDirectory() as folder:
        straight, cut = Path(folder, "straight"), Path(folder, "cut")
        whole = _trained_in(straight, *bindings, "train.checkpoint_every = 1", copied=(2, cut))
        assert RunStore(cut).manifest["status"] == "running"
        return whole, _trained_in(cut, *bindings)


def _trained_in(
    folder: Path,
    *bindings: str,
    config: str = "embedded",
    stop_after: int = 0,
    copied: tuple[int, Path] | None = None,
) -> Trained:
    lines: list[dict[str, Any]] = []
    waits: list[dict[str, int]] = []
    LEDGER.clear()

    def watch(line: Mapping[str, Any]) -> None:
        lines.append(dict(line))
        waits.append(LEDGER.waits_outside(DECODING))
        LEDGER.waits.clear()
        if copied and line["step"] == copied[0]:
            shutil.copytree(folder, copied[1])
        if line["step"] == stop_after:
            raise Interrupted

    with registry.config([find_config(config)], [*SMALL, *bindings], include_from=[CONFIGS]):
        recipe = build("train")
    with suppress(Interrupted) if stop_after else nullcontext():
        run(recipe, 0, RunStore(folder), facts={"identity": {}}, watch=watch)
    hashes = RunStore(folder).manifest.get("hashes", {})
    return Trained(hashes, lines, LEDGER.launches.total(), waits, LEDGER.unsteady_functions)


@dataclass(frozen=True)
class Decoding:
    """A way to decode: other values of modules' names, and what is asked for."""

    patches: Mapping[str, Any] = field(default_factory=dict)
    """`core.model.caching.MANY_COLUMNS` and its value meanwhile."""
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """Responses that were sampled, and what that asked of the device."""

    steps: int
    ended: int
    """Responses that ended before the last step."""
    waits: dict[str, int]
    launches: int


def decoded(
    ways: Mapping[str, Decoding], limits: tuple[int, ...], plant: Plant | None = None
) -> dict[str, list[Decoded]]:
    """The same responses by several ways, each with several limits on their tokens."""
    if plant:
        plant()
    native = importlib.import_module(Native.__module__).Native(0.75)
    loaded = load_policy(PolicySettings("embedded"), "pretend:0")
    found = {}
    for name, way in ways.items():
        with ExitStack() as stack:
            for path, value in way.patches.items():
                stack.enter_context(patch(path, value))
            policy = Policy(loaded.model, loaded.tokenizer)
            prompts = [torch.arange(3, 3 + n, device=policy.device) for n in (5, 9)]
            found[name] = [_decoded(native, policy, Request(prompts, 16, n, 1.0, 5, **way.request)) for n in limits]
    return found


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and what it asked of the device."""

    steps: int
    """Tokens of the longest response of every batch that was decoded, added up."""
    waits: dict[str, int]


def evaluated(ways: Mapping[str, tuple[str, ...]], *bindings: str, plant: Plant | None = None) -> dict[str, Evaluated]:
    """The evaluation of one model by several ways, each a recipe's bindings beside those of all."""
    if plant:
        plant()
    evaluate = importlib.import_module("core.loop.evaluation").evaluate
    state: RunState | None = None
    found = {}
    for name, way in ways.items():
        with registry.config([find_config("embedded")], [*SMALL, *bindings, *way], include_from=[CONFIGS]):
            recipe = build("train")
        state = state or RunState.start(recipe, 0, "pretend:0")
        state.recipe = recipe
        evaluate(state, 0)  # what is done once for a policy is done
        LEDGER.clear()
        (record,) = evaluate(state, 0)
        waits = LEDGER.waits_outside()
        drawn = max(sample["length"] for question in record["questions"] for sample in question["samples"])
        greedy = max(question["greedy"]["length"] for question in record["questions"])
        together = recipe.evaluation.temperature == 1 and not recipe.evaluation.truncation.cuts
        found[name] = Evaluated(max(drawn, greedy) if together else drawn + greedy, waits)
    return found


def _decoded(native: Any, policy: Any, request: Request) -> Decoded:
    native.generate(policy, [Request(request.prompts, 2, 2, 1.0, 5)])  # what is done once for a policy is done
    LEDGER.clear()
    (generation,) = native.generate(policy, [request])
    waits, launches = LEDGER.waits_outside(), LEDGER.launches.total()
    lengths = generation.mask.sum(-1).cpu()
    steps = int(lengths.max())
    return Decoded(steps, int((lengths < steps).sum()), waits, launches)
