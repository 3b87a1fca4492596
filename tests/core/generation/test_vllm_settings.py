"""What can be tested of the vLLM generator without vLLM."""

import gc
import importlib.util
import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from safetensors.torch import load_file

from core import SETTINGS, GrpoLabError
from core.errors import MachineError
from core.generation.base import Request
from core.generation.native import native
from core.generation.vllm import _samples, vllm
from core.generation.vllm.engine import Engine
from core.generation.vllm.server import Server
from core.loop.rollout_queue import RolloutQueue
from core.loop.run_state import RunState
from core.model.policy import Policy, PolicySettings, load_policy
from core.model.truncation import Truncation
from core.parts.problems import Problem
from core.parts.registry import config


def test_a_server_and_its_folder_go_together() -> None:
    with pytest.raises(GrpoLabError, match=r"vllm.url and vllm.sync_folder go together"):
        vllm(url="http://127.0.0.1:8000")


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(GrpoLabError, match=r"127.0.0.1:9/version does not answer"):
        vllm(url="http://127.0.0.1:9/", sync_folder="sync").start()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_remedy_is_shown_before_anything_runs() -> None:
    with pytest.raises(GrpoLabError, match=r"pip install 'grpo-lab\[vllm\]'"):
        vllm().start()


def test_a_recipe_can_be_built_without_vllm_and_corrects_variants_that_do_not() -> None:
    bindings = ["train.variant = @grpo()", "train.task = @chain_sums()", "train.generator = @vllm()"]
    with config(bindings=[*bindings, "train.correction = @token_truncated", "token_truncated.cap = 3.0"]):
        recipe = SETTINGS["train"]()
    assert recipe.variant.card()["correction"] == "token_truncated(cap=3.0, floor=0.0)"
    assert not recipe.generator.exact
    assert native().exact


# a server, by a stand-in


class StandIn(BaseHTTPRequestHandler):
    """Answers as vLLM's server does, keeps what completions were asked for, and fails where a test sets that."""

    read: str | None = None
    requests: ClassVar[list[dict[str, Any]]] = []
    refuses = ""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "model"}]} if self.path == "/v1/models" else None)

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/collective_rpc" and content["method"] == "folder_read":
            return self._answer({"results": [StandIn.read]})
        if self.path == "/collective_rpc":
            (StandIn.read,) = content["args"]
            assert load_file(Path(content["args"][0]) / "model.safetensors")
        if self.path == "/v1/completions":
            StandIn.requests.append(content)
            token = {"token_ids": [5], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}
            return self._answer({"choices": [token]})
        return self._answer({})

    def _answer(self, content: Any) -> None:
        text = b"<html>" if content is None else json.dumps(content).encode()
        self.send_response(500 if StandIn.refuses and StandIn.refuses in self.path else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    StandIn.read, StandIn.refuses = None, ""
    StandIn.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def request(policy: Policy) -> Request:
    return Request([policy.tokens(Problem("1+2=", "", 0))], 1, 4, 1.0, 7)


def test_a_server_samples_from_the_policy_whatever_the_models_own_settings(url: str, tmp_path: Path) -> None:
    """What is left out, vLLM takes from the model's generation_config.json: Qwen2.5's has a top_k of 20."""
    policy = load_policy(PolicySettings("embedded"))
    vllm(url=url, sync_folder=str(tmp_path)).generate(policy, [request(policy)])
    (completion,) = StandIn.requests
    neutral = {
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "temperature": 1.0,
    }
    assert {name: completion.get(name) for name in neutral} == neutral


def test_a_server_cuts_distributions_as_the_request_says(url: str, tmp_path: Path) -> None:
    policy = load_policy(PolicySettings("embedded"))
    cut = replace(request(policy), truncation=Truncation(top_p=0.9, top_k=20, min_p=0.05))
    vllm(url=url, sync_folder=str(tmp_path)).generate(policy, [cut, replace(cut, noise_key=None)])
    asked = {c["temperature"]: (c["top_p"], c["top_k"], c["min_p"]) for c in StandIn.requests}
    assert asked == {1.0: (0.9, 20, 0.05), 0.0: (1.0, 0, 0.0)}


def test_an_engine_cuts_distributions_as_the_request_says() -> None:
    """The engine beside the trainer, with a library that keeps what it is asked for."""
    policy = load_policy(PolicySettings("embedded"))
    cut = replace(request(policy), samples=2, truncation=Truncation(top_p=0.9, top_k=20, min_p=0.05))

    def generate(prompts: list[Any], params: list[dict[str, Any]], use_tqdm: bool) -> list[Any]:
        assert len(prompts) == len(params)
        assert not use_tqdm
        asked.extend(params)
        completion = SimpleNamespace(token_ids=[5], logprobs=[{5: SimpleNamespace(logprob=-0.5)}], finish_reason="stop")
        return [SimpleNamespace(outputs=[completion])] * len(prompts)

    asked: list[dict[str, Any]] = []
    engine: Any = object.__new__(Engine)
    engine._library, engine._engine = SimpleNamespace(SamplingParams=dict), SimpleNamespace(generate=generate)
    for each in (cut, replace(cut, noise_key=None)):
        assert engine.answer(_samples(each, policy.vocabulary), [2])[0].logps == [-0.5]
    assert [(p["temperature"], p["top_p"], p["top_k"], p["min_p"]) for p in asked] == [
        *[(1.0, 0.9, 20, 0.05)] * 2,
        *[(0.0, 1.0, 0, 0.0)] * 2,
    ]
    assert asked[0]["seed"] != asked[1]["seed"]


def test_a_server_that_got_other_weights_meanwhile_is_noticed(url: str, tmp_path: Path) -> None:
    policy = load_policy(PolicySettings("embedded"))
    generator = vllm(url=url, sync_folder=str(tmp_path))
    generator.generate(policy, [request(policy)])
    generator.generate(policy, [request(policy)])
    Server(url, tmp_path).push(policy)  # another run, which may have the same folder
    with pytest.raises(MachineError, match="restarted, or serves another run"):
        generator.generate(policy, [request(policy)])
    policy.version += 1
    generator.generate(policy, [request(policy)])
    StandIn.read = None  # started anew
    with pytest.raises(MachineError, match="restarted, or serves another run"):
        generator.generate(policy, [request(policy)])


def test_a_push_that_fails_leaves_nothing_and_is_tried_again(url: str, tmp_path: Path) -> None:
    policy = load_policy(PolicySettings("embedded"))
    generator = vllm(url=url, sync_folder=str(tmp_path / "sync"))
    StandIn.refuses = "reset_prefix_cache"
    with pytest.raises(MachineError, match="reset_prefix_cache refused: 500"):
        generator.generate(policy, [request(policy)])
    assert list((tmp_path / "sync").iterdir()) == []
    StandIn.refuses = ""
    generator.generate(policy, [request(policy)])
    (tmp_path / "file").write_text("in the way")
    generator = vllm(url=url, sync_folder=str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot write weights to vllm.sync_folder = '.*file'"):
        generator.generate(policy, [request(policy)])


def test_a_push_that_fails_fails_on_every_rank(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main one notifies the others, which would wait for it."""
    monkeypatch.setattr("core.generation.vllm.server.is_main", lambda: False)
    mains = (None, MachineError("no space left"))
    monkeypatch.setattr("core.generation.vllm.server.gather", lambda mine: [mains, *mine])
    with pytest.raises(MachineError, match="no space left"):
        Server(url, tmp_path).push(load_policy(PolicySettings("embedded")))


def test_the_model_of_a_run_that_is_over_is_not_kept(url: str, tmp_path: Path) -> None:
    policy = load_policy(PolicySettings("embedded"))
    vllm(url=url, sync_folder=str(tmp_path)).generate(policy, [request(policy)])
    kept = weakref.ref(policy)
    del policy
    gc.collect()
    assert kept() is None


def test_what_is_no_vllm_server_is_named(url: str) -> None:
    with pytest.raises(GrpoLabError, match=r"vllm.url = 'gpu-node': must begin with http://"):
        vllm(url="gpu-node", sync_folder="sync")
    with pytest.raises(GrpoLabError, match="version does not answer with JSON"):
        vllm(url=url, sync_folder="sync").start()


def test_rollouts_sampled_ahead_are_of_the_present_weights_with_the_seeds_of_their_step(
    url: str, tmp_path: Path, tiny_folder: Path
) -> None:
    pushed: list[str | None] = []

    def seeds(staleness: int) -> list[set[int]]:
        """Of what is asked before each of three steps, whatever step that is for."""
        bindings = (
            "train.variant = @grpo()",
            "train.task = @chain_sums()",
            "train.generator = @vllm()",
            f"vllm.url = '{url}'",
            f"vllm.sync_folder = '{tmp_path}'",
            f"policy.model = '{tiny_folder}'",
            "train.prompts = 2",
            "train.group_size = 2",
            "train.max_tokens = 4",
            f"train.staleness = {staleness}",
        )
        with config(bindings=bindings):
            state = RunState.start(SETTINGS["train"](), 0, "cpu")
        queue, asked = RolloutQueue(state), []
        for step in (1, 2, 3):
            StandIn.requests.clear()
            queue.roll_out(step)
            asked.append({each["seed"] for each in StandIn.requests})
            pushed.append(StandIn.read)
            state.policy.version += 1
        return asked

    synchronous, ahead = seeds(0), seeds(2)
    assert [len(asked) for asked in (*synchronous, *ahead)] == [4, 4, 4, 12, 4, 4]
    assert ahead[0] == synchronous[0] | synchronous[1] | synchronous[2]
    assert len(set(pushed)) == 6


def test_weights_are_whole_while_they_are_handed_to_an_engine_and_not_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    @contextmanager
    def unsharded(_: Policy) -> Iterator[None]:
        events.append("gathered")
        yield
        events.append("given back")

    def take_over(*_: Any, args: Any) -> None:
        events.append(f"{len(args[0])} weights")

    monkeypatch.setattr(Policy, "unsharded", unsharded)
    policy, engine = load_policy(PolicySettings("embedded")), object.__new__(Engine)
    engine._sleeps = engine._is_asleep = False
    engine._engine = SimpleNamespace(collective_rpc=take_over, reset_prefix_cache=lambda: True)
    engine.push(policy)
    assert events == ["gathered", f"{len(list(policy.weights()))} weights", "given back"]


def test_an_engine_that_sleeps_is_woken_and_handed_the_weights_before_it_samples_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Level 2 drops the weights; the key-value cache comes back once they are there, or both would not fit."""
    events: list[str] = []

    def tell(event: str) -> Any:
        return lambda *_, **how: events.append(f"{event} {how.get('tags') or how.get('level') or ''}".strip())

    def answer(*_: Any) -> list[Any]:
        events.append("sample")
        return []

    policy, engine = load_policy(PolicySettings("embedded")), object.__new__(Engine)
    library = SimpleNamespace(
        wake_up=tell("wake"), sleep=tell("sleep"), collective_rpc=tell("push"), reset_prefix_cache=lambda: True
    )
    engine._engine, engine._sleeps, engine._is_asleep, engine.loaded = library, True, False, None
    monkeypatch.setattr(engine, "answer", answer)
    monkeypatch.setattr("torch.accelerator.empty_cache", tell("free"))
    monkeypatch.setattr("core.generation.vllm.the_engine", lambda *_, **settings: engine)
    monkeypatch.setattr("core.generation.vllm._assemble", lambda *_: None)
    generator, nothing = vllm(sleep=True), request(policy)
    for _ in range(2):
        generator.generate(policy, [nothing])
    first = ["push", "sample", "sleep 2"]
    assert events == [*first, "free", "wake ['weights']", "push", "wake ['kv_cache']", "sample", "sleep 2"]


def test_sleep_is_for_an_engine_on_a_gpu() -> None:
    with pytest.raises(GrpoLabError, match=r"vllm.sleep = True is for an engine in the trainer's process"):
        vllm(url="http://127.0.0.1:9/", sync_folder="sync", sleep=True)
    with pytest.raises(GrpoLabError, match=r"gives back memory of a GPU, and the policy is on the CPU"):
        Engine(
            load_policy(PolicySettings("embedded")),
            max_num_seqs=1,
            kv_cache_gib=1.0,
            gpu_memory_utilization=0.3,
            sleep=True,
        )
