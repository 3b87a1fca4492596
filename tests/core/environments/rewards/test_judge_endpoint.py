"""The judge behind an OpenAI-compatible endpoint, against a real server in a thread."""

import json
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from core import GrpoLabError
from core.environments.judges import endpoint as endpoint_module
from core.environments.judges.endpoint import Endpoint, EndpointJudge
from core.environments.rewards.judge import judge
from core.errors import MachineError
from core.loop.scoring import score, start
from core.parts.problems import Problem

# --- a model behind an address ---------------------------------------------------------------------------------------


@dataclass
class Server:
    """Answers by `answer(question, nth request)`: a status, and a text, content or seconds to wait before."""

    answer: Callable[[str, int], tuple[int, Any]] = lambda question, n: (200, probabilities({"Yes": 0.6, "No": 0.2}))
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""


def probabilities(of: dict[str, float]) -> dict[str, Any]:
    """A completion whose token came with these."""
    top = [{"token": token, "logprob": math.log(p)} for token, p in of.items()]
    content = [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]
    return {"choices": [{"message": {"content": top[0]["token"]}, "logprobs": {"content": content}}]}


def text(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "logprobs": None}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made, lock, now = Server(), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                made.requests.append(content)
                made.keys.append(self.headers["Authorization"])
                now[0] += 1
                made.most_at_once = max(made.most_at_once, now[0])
                n = len(made.requests)
            status, body = made.answer(content["messages"][0]["content"], n)
            if isinstance(body, float):
                time.sleep(body)
                body = probabilities({"Yes": 0.5, "No": 0.5})
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            with lock:
                now[0] -= 1
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client no longer waits
                pass

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(endpoint_module, "WAITS", (0.01, 0.02))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        listening.shutdown()
        thread.join()


def at(server: Server, **changed: Any) -> EndpointJudge:
    bounds: dict[str, Any] = {
        "name": "j",
        "key_variable": "",
        "seconds": 5.0,
        "parallel": 4,
        "cache": "",
        "budget": 1000,
    }
    return EndpointJudge(Endpoint(server.url, **{**bounds, **changed}))


YES_NO = ("Yes", "No")


def test_probabilities_of_all_spellings_of_a_verdict_are_added(server: Server) -> None:
    """By hand: (.3 + .2 + .1) / (.3 + .2 + .1 + .2) = .75; what is no verdict does not matter."""
    server.answer = lambda question, n: (
        200,
        probabilities({"Yes": 0.3, " yes": 0.2, "YES": 0.1, "No": 0.2, "Maybe": 0.1}),
    )
    assert at(server).prefer(["q"], YES_NO) == [pytest.approx(0.75)]
    (sent,) = server.requests
    assert (sent["max_tokens"], sent["temperature"], sent["model"], sent["logprobs"]) == (1, 0, "j", True)
    # letters are not words: "a" begins many an English sentence
    server.answer = lambda question, n: (200, probabilities({"A": 0.1, "a": 0.5, "B": 0.3}))
    assert at(server).prefer(["q"], ("A", "B")) == [pytest.approx(0.25)]


@pytest.mark.parametrize(("verdict", "value"), [("Yes", 1.0), (" no", 0.0), ("Perhaps", math.nan), ("", math.nan)])
def test_without_probabilities_the_text_is_the_verdict(server: Server, verdict: str, value: float) -> None:
    server.answer = lambda question, n: (200, text(verdict))
    assert at(server).prefer(["q"], YES_NO) == pytest.approx([value], nan_ok=True)


def test_a_server_that_refuses_logprobs_is_asked_without(server: Server) -> None:
    server.answer = lambda question, n: (
        (400, "no logprobs") if "logprobs" in server.requests[-1] else (200, text("Yes"))
    )
    judge = at(server, parallel=1)
    assert judge.prefer(["q", "r"], YES_NO) == [1.0, 1.0]
    assert ["logprobs" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize("first", [(429, "slow down"), (503, "starting"), (200, "{garbage"), (200, {"choices": []})])
def test_what_passes_is_tried_again(server: Server, first: tuple[int, Any]) -> None:
    server.answer = lambda question, n: first if n == 1 else (200, text("Yes"))
    assert at(server).prefer(["q"], YES_NO) == [1.0]
    assert len(server.requests) == 2


def test_a_slow_answer_is_given_up_and_asked_for_again(server: Server) -> None:
    server.answer = lambda question, n: (200, 0.6) if n == 1 else (200, text("No"))
    assert at(server, seconds=0.1).prefer(["q"], YES_NO) == [0.0]


def test_a_question_that_always_fails_is_not_judged_and_the_others_are(server: Server) -> None:
    server.answer = lambda question, n: (500, "broken") if question == "bad" else (200, text("Yes"))
    preferences = at(server).prefer(["bad", "good", "fine"], YES_NO)
    assert math.isnan(preferences[0])
    assert preferences[1:] == [1.0, 1.0]
    assert len(server.requests) == 3 + 2


def test_a_server_that_is_down_stops_the_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_IN_A_ROW", 3)
    server.answer = lambda question, n: (500, "broken for ever")
    with pytest.raises(MachineError, match=r"3 questions in a row.*500 broken for ever"):
        at(server, parallel=1).prefer([str(n) for n in range(50)], YES_NO)
    assert len(server.requests) == 3 * 3


def test_a_late_answer_does_not_hide_why_a_run_stops(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question is under way while the others fail, and is answered after the run was given up."""
    monkeypatch.setattr(endpoint_module, "MAX_IN_A_ROW", 3)
    server.answer = lambda question, n: (200, 1.0) if question == "late" else (500, "broken for ever")
    with pytest.raises(MachineError, match=r"3 questions in a row.*500 broken for ever"):
        at(server, parallel=2).prefer(["late", *(str(n) for n in range(9))], YES_NO)


@pytest.mark.parametrize("status", [302, 401, 404])
def test_what_will_not_pass_is_not_tried_again(server: Server, status: int) -> None:
    server.answer = lambda question, n: (status, "no such model or key")
    with pytest.raises(GrpoLabError, match=rf"refused: {status} no such model or key.*judge.name = 'j'"):
        at(server).prefer(["q"], YES_NO)
    assert len(server.requests) == 1


def test_requests_under_way_are_bounded_and_answers_keep_their_places(server: Server) -> None:
    def answer(question: str, n: int) -> tuple[int, Any]:
        time.sleep(0.02)
        p = (int(question) + 1) / 20
        return 200, probabilities({"Yes": p, "No": 1 - p})

    server.answer = answer
    preferences = at(server, parallel=3).prefer([str(n) for n in range(12)], YES_NO)
    assert preferences == pytest.approx([(n + 1) / 20 for n in range(12)])
    assert 2 <= server.most_at_once <= 3


def test_what_is_in_the_cache_costs_no_request(server: Server, tmp_path: Path) -> None:
    cache = str(tmp_path / "kept" / "judge.sqlite")
    first = at(server, cache=cache).prefer(["q", "r"], YES_NO)
    assert len(server.requests) == 2
    # another process, or the same run resumed
    assert at(server, cache=cache, budget=1).prefer(["r", "q"], YES_NO) == first[::-1]
    assert len(server.requests) == 2
    # everything that a verdict depends on is in the key
    at(server, cache=cache).prefer(["q"], ("A", "B"))
    at(server, cache=cache, name="other").prefer(["q"], YES_NO)
    assert len(server.requests) == 4


def test_several_processes_may_write_to_a_cache_at_a_time(tmp_path: Path) -> None:
    """Connections of their own, as processes have; they meet on half of the verdicts."""
    path = str(tmp_path / "judge.sqlite")

    def write(first: int) -> None:
        cache = endpoint_module._Cache(path)
        for n in range(first, first + 20):
            cache.write(str(n), n / 100)
        cache.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [0, 10, 20, 30]))
    cache = endpoint_module._Cache(path)
    assert cache.read([str(n) for n in range(60)]) == {str(n): n / 100 for n in range(50)}
    cache.close()


def test_no_verdict_is_not_kept(server: Server, tmp_path: Path) -> None:
    cache = str(tmp_path / "judge.sqlite")
    server.answer = lambda question, n: (200, text("Perhaps" if n == 1 else "Yes"))
    assert math.isnan(at(server, cache=cache).prefer(["q"], YES_NO)[0])
    assert at(server, cache=cache).prefer(["q"], YES_NO) == [1.0]


def test_a_cache_that_is_none_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "judge.sqlite").write_text("a text, and not a short one: no data base begins like that" * 20)
    with pytest.raises(MachineError, match=r"judge.cache = .*judge.sqlite' cannot be used.*'' for no cache"):
        at(server, cache=str(tmp_path / "judge.sqlite")).prefer(["q"], YES_NO)


def test_a_budget_stops_the_run_and_what_was_bought_is_kept(server: Server, tmp_path: Path) -> None:
    cache = str(tmp_path / "judge.sqlite")
    with pytest.raises(MachineError, match=r"5 requests, which is judge.budget.*goes on from its last checkpoint"):
        at(server, budget=5, parallel=2, cache=cache).prefer([str(n) for n in range(9)], YES_NO)
    assert len(server.requests) == 5
    at(server, budget=5, cache=cache).prefer([str(n) for n in range(9)], YES_NO)
    assert len(server.requests) == 9


def test_the_key_is_read_from_the_environment_and_stored_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1234")
    cache = tmp_path / "judge.sqlite"
    part = judge.using(model=f"{server.url}/", name="j", key_variable="MY_KEY", cache=str(cache)).resolved()
    description = start([part])["judge"]
    assert "j at http" in description
    assert "verdicts with probabilities, mode score, principles arithmetic (" in description
    problems = [Problem("1+1=", "2", 0), Problem("2+2=", "4", 1)]
    scores = score([part], problems, [[">2", ">2"], [">4", ">5"]])
    assert torch.allclose(scores.parts, torch.full((2, 2, 1), 0.75))
    assert scores.correct.all()
    assert set(server.keys) == {"Bearer secret-1234"}
    assert len(server.requests) == 1 + 3, "one to see that it works, then each different question"
    assert b"secret" not in cache.read_bytes() + description.encode() + repr(part).encode()


def test_a_server_that_does_not_answer_is_refused_before_anything_runs(server: Server) -> None:
    server.answer = lambda question, n: (503, "starting")
    part = judge.using(model=server.url, name="j").resolved()
    with pytest.raises(GrpoLabError, match=r"does not answer: 3 attempts, the last: 503 starting"):
        start([part])


def everything(error: BaseException) -> str:
    """All that a traceback of an error may show."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "message", ["you sent Bearer secret-1234", "x" * 295 + "secret-1234", '{"key": "secret-1234"}']
)
@pytest.mark.parametrize("status", [401, 503, 200])
def test_a_key_that_a_server_echoes_is_not_shown(
    status: int, message: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1234")
    server.answer = lambda question, n: (status, {"choices": [message]} if status == 200 else message)
    with pytest.raises(GrpoLabError) as refused:
        start([judge.using(model=server.url, name="j", key_variable="MY_KEY", cache="").resolved()])
    assert "secret" not in everything(refused.value)
    assert set(server.keys) == {"Bearer secret-1234"}


def test_a_key_ends_with_its_line_and_is_a_word(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    part = judge.using(model=server.url, name="j", key_variable="MY_KEY", cache="").resolved()
    for wrong in ("secret\nX-Other: 1", "secret 1", "secret\u00e9"):
        monkeypatch.setenv("MY_KEY", wrong)
        with pytest.raises(GrpoLabError, match=r"key_variable = 'MY_KEY': what .* holds is no key") as refused:
            start([part])
        assert "secret" not in everything(refused.value)
    monkeypatch.setenv("MY_KEY", " secret-1234\n")
    start([part])
    assert server.keys == ["Bearer secret-1234"]


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"judge\.model: the address of host holds more than") as refused:
        start([judge.using(model="http://me:secret@host/v1", name="j").resolved()])
    assert "secret" not in str(refused.value)


TOKEN = '{{"choices": [{{"logprobs": {{"content": [{{"top_logprobs": [{{"token": "Yes", "logprob": {}}}]}}]}}}}]}}'


@pytest.mark.parametrize(
    "answer",
    [
        *(TOKEN.format(value) for value in ("1000", "1e999", "NaN", '"0"', "9" * 400, "null")),
        "[" * 200_000,
        '{"a":' * 200_000,
        "9" * 5000,
        '{"choices": {"0": 1}}',
        '{"choices": [[[]]]}',
    ],
)
def test_an_answer_that_breaks_arithmetic_is_no_verdict(answer: str, server: Server) -> None:
    server.answer = lambda question, n: (200, answer)
    assert math.isnan(at(server).prefer(["q"], YES_NO)[0])


def test_what_a_server_says_cannot_command_the_terminal(server: Server) -> None:
    server.answer = lambda question, n: (401, "\x1b]0;title\x07\x1b[2Jno\r\nsuch\u202e key")
    with pytest.raises(GrpoLabError, match=r"401 \]0;title\[2Jno such key\. Look at judge.name"):
        at(server).prefer(["q"], YES_NO)
