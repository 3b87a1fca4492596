"""Watching a study: the page changes with the files, half-written ones keep the last state, nothing else is served."""

import http.client
import os
import re
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

import experiments.report
from core.errors import GrpoLabError
from experiments.cli.main import main
from experiments.report.watch import HOST, Screen, Watcher, fingerprint, serving
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement
from tests.experiments.results.test_stored_study import write_manifest, write_study


def report(study: StoredStudy, judgement: Judgement | None) -> str:
    """A report as far as these tests look at one."""
    means = [each.mean for each in judgement.analysis.arms] if judgement else []
    words = f"{study.name}, {len(study.runs)} runs, {means}"
    return f"<!doctype html>\n<html>\n<body>\n<main>{words}</main>\n</body>\n</html>\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path / "pair")


@pytest.fixture
def watcher(folder: Path) -> Watcher:
    return Watcher(folder, report)


@pytest.fixture
def port(watcher: Watcher) -> Iterator[int]:
    with serving(watcher, 0) as address:
        yield int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)[1])  # type: ignore[index]


def ask(port: int, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers), content


def shown(watcher: Watcher, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Screen(watcher))
    console.file.close()
    return console.export_text()


def leave(folder: Path, arm: str, seed: int, status: str, steps: int) -> None:
    """Put a run back to where it had made `steps` steps."""
    run = folder / arm / f"seed={seed}"
    write_manifest(run, arm=arm, seed=seed, status=status)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:steps]))
    for file in (run / "eval").glob("step=*.json"):
        if int(file.stem.partition("=")[2]) > steps:
            file.unlink()


def test_the_page_changes_when_the_files_do_and_not_before(folder: Path, port: int) -> None:
    status, headers, page = ask(port)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "pair, 4 runs" in page
    assert ask(port) == (status, headers, page)
    # what the page compares with is what it was served with
    assert f"!== '{headers['ETag']}'" in page
    assert page.count("<script>") == 1
    assert page.endswith("</script>\n</body>\n</html>\n")
    head = ask(port, method="HEAD")
    assert head[::2] == (200, "")
    assert head[1]["ETag"] == headers["ETag"]
    assert int(head[1]["Content-Length"]) == len(page.encode())

    shutil.rmtree(folder / "dapo" / "seed=1")
    assert ask(port, method="HEAD")[1]["ETag"] != headers["ETag"]
    assert "pair, 3 runs" in ask(port)[2]


@pytest.mark.parametrize("path", ["/study.json", "/../study.json", "/%2e%2e/", "/?x", "/index.html", "/grpo/", "*"])
def test_nothing_but_the_page_is_served(path: str, port: int) -> None:
    status, _, content = ask(port, path)
    assert status == 404
    assert "declaration" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_sent(method: str, port: int) -> None:
    assert ask(port, method=method)[0] == 501


def test_only_this_machine_is_answered(port: int) -> None:
    assert ask(port, host=f"localhost:{port}")[0] == 200
    assert ask(port, host=f"evil.example:{port}")[0] == 403
    assert ask(port, host="evil.example")[0] == 403
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))  # reached if the server listened on every address


def test_clients_that_reset_are_not_reported(port: int, watcher: Watcher, capfd: pytest.CaptureFixture[str]) -> None:
    for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port):
        client = socket.create_connection((HOST, port))
        client.sendall(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        client.close()
    while threads_of_requests():
        time.sleep(0.01)
    assert ask(port)[0] == 200
    assert capfd.readouterr() == ("", "")


def threads_of_requests() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


def test_half_requests_hold_nothing_for_ever(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.report.watch.REQUEST_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("experiments.report.watch.MAX_REQUESTS", 2)
    with serving(watcher, 0) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        clients = [socket.create_connection((HOST, port)) for _ in range(6)]
        over = threading.Event()

        def drip(client: socket.socket) -> None:
            with suppress(OSError):
                while not over.wait(0.05):
                    client.sendall(b"G")

        threads = [threading.Thread(target=drip, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for client in clients:
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""  # ended from there, by its time or for want of a place
        over.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        while threads_of_requests():
            time.sleep(0.01)
        assert ask(port)[0] == 200


def test_a_page_is_rendered_once_for_each_state(folder: Path) -> None:
    rendered: list[int] = []

    def counting(study: StoredStudy, judgement: Judgement | None) -> str:
        rendered.append(len(study.runs))
        return report(study, judgement)

    watcher = Watcher(folder, counting)
    pages = {watcher.page().tag for _ in range(3)}
    assert (len(pages), len(rendered)) == (1, 1)
    leave(folder, "grpo", 0, "running", 4)
    pages |= {watcher.page().tag for _ in range(3)}
    assert (len(pages), len(rendered)) == (2, 2)


def test_a_half_written_file_keeps_the_last_good_page_and_says_so(folder: Path, watcher: Watcher) -> None:
    before = watcher.view()
    assert not before.warning
    file = folder / "grpo" / "seed=0" / "manifest.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    view = watcher.view()
    assert (view.study, view.judgement, view.read_at) == (before.study, before.judgement, before.read_at)
    page = watcher.page().content.decode()
    assert re.search(
        r'<body>\n<p role="alert"><strong>As of \d\d:\d\d:\d\d; the files cannot be read now: .*manifest', page
    )
    assert "pair, 4 runs" in page
    assert watcher.view() is view
    text = " ".join(shown(watcher).split())
    assert "the files cannot be read now" in text
    assert "✓ 6/6" in text
    file.write_text(whole)
    assert not watcher.view().warning
    assert "cannot be read" not in watcher.page().content.decode() + shown(watcher)


def test_trouble_is_over_even_if_the_files_look_the_same(folder: Path, watcher: Watcher) -> None:
    file = folder / "grpo" / "seed=0" / "manifest.json"
    times = file.stat()
    whole = file.read_bytes()
    file.write_bytes(b"x" * len(whole))
    assert watcher.view().warning
    broken = fingerprint(folder)
    changed = file.stat().st_mtime_ns
    file.write_bytes(whole)
    os.utime(file, ns=(times.st_atime_ns, changed))
    assert fingerprint(folder) == broken
    assert not watcher.view().warning


def test_a_study_that_goes_away_is_remembered(folder: Path, watcher: Watcher, port: int) -> None:
    shutil.rmtree(folder)
    assert "no such folder" in watcher.view().warning
    assert "pair, 4 runs" in ask(port)[2]


def test_the_screen_shows_every_run_and_no_verdict_before_the_end(folder: Path) -> None:
    leave(folder, "grpo", 1, "running", 5)
    leave(folder, "dapo", 0, "interrupted", 0)
    shutil.rmtree(folder / "dapo" / "seed=1")
    text = shown(Watcher(folder, report))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0].split() == ["seed", "0", "seed", "1"]
    assert lines[1].split() == ["grpo", "✓", "6/6", "▶", "5/6"]
    # of the finished run the mean of its last three evaluations, of the other its last
    assert lines[2].split() == ["0.600", "50.0", "%", "0.500", "52.0", "%"]
    assert lines[3].split() == ["dapo", "‖", "0/6", "·"]
    assert lines[4].split() == ["–", "30.0", "%"]
    assert "reward and held-out accuracy, the last; of a finished run" in " ".join(text.split())
    assert "Finished: grpo 1 of 2, dapo 0 of 2." in " ".join(text.split())


def test_means_until_every_seed_is_there_then_verdicts(folder: Path) -> None:
    leave(folder, "dapo", 1, "running", 5)
    text = " ".join(shown(Watcher(folder, report)).split())
    assert "Interim: 1 of the 2 declared seeds are finished in every arm." in text
    assert "seeds held-out accuracy grpo 1 50.0 % dapo 1 54.0 %" in text
    assert not re.search("untestable|inconclusive|better|worse", text.split("Interim")[0])
    write_manifest(folder / "dapo" / "seed=1", arm="dapo", seed=1, status="failed", error="out of memory")
    text = " ".join(shown(Watcher(folder, report)).split())
    assert "✗ 5/6" in text
    assert "Interim" not in text
    assert "untestable" in text


def test_seeds_that_do_not_fit_go_below(folder: Path, watcher: Watcher) -> None:
    wide, narrow = (shown(watcher, width).splitlines() for width in (80, 40))
    assert next(line.split() for line in wide if "seed" in line) == ["seed", "0", "seed", "1"]
    assert [line.split() for line in narrow if "seed" in line][:2] == [["seed", "0"], ["seed", "1"]]
    assert max(map(len, narrow)) <= 40


def test_progress_on_another_axis_is_in_percent(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "tokens", budget=6000, axis="sampled_tokens")
    leave(folder, "grpo", 0, "running", 3)
    assert re.search(r"▶ 3 \(50 %\) +✓ 6 \(100 %\)", shown(Watcher(folder, report)))


def test_a_study_without_a_run(folder: Path) -> None:
    for arm in ("grpo", "dapo"):
        shutil.rmtree(folder / arm)
    watcher = Watcher(folder, report)
    assert "·" in shown(watcher)
    assert "pair, 0 runs, []" in watcher.page().content.decode()


def test_many_readers_and_a_writer(folder: Path, watcher: Watcher, port: int) -> None:
    """A run writes without pause, also torn lines, while pages are asked for."""
    run = folder / "grpo" / "seed=1"
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    write_manifest(run, arm="grpo", seed=1, status="running")
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for k in range(len(lines)):
                (run / "metrics.jsonl").write_text("".join(lines[:k]) + lines[k][: len(lines[k]) // 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(ask(port)[0] == 200 for _ in range(40))
    finally:
        over.set()
        writer.join()


def test_mistakes(
    tmp_path: Path, folder: Path, watcher: Watcher, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StudyError, match=r"no such folder; studies in .*: pair"):
        Watcher(tmp_path / "pear", report)
    with (
        pytest.raises(GrpoLabError, match=f"--port {port}: Address already in use; choose another"),
        serving(watcher, port),
    ):
        pass
    with pytest.raises(GrpoLabError, match="--port 70000: must be between"), serving(watcher, 70000):
        pass


def test_once(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.report, "render", report, raising=False)
    assert main(["watch", str(folder), "--once"]) == 0
    assert capsys.readouterr().out.count("✓ 6/6") == 4
    assert main(["watch", str(folder / "nowhere"), "--once"]) == 2


def test_ctrl_c_ends_it_cleanly(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments.report, "render", report, raising=False)
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    pages: list[str] = []
    ended = threading.Event()

    def read_and_interrupt() -> None:
        while not pages and not ended.is_set():
            try:
                pages.append(ask(port)[2])
            except ConnectionRefusedError:
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    reader = threading.Thread(target=read_and_interrupt)
    reader.start()
    assert main(["watch", str(folder), "--port", str(port)]) == 130
    ended.set()
    reader.join()
    assert "pair, 4 runs" in pages[0]
    out, err = capsys.readouterr()
    assert (out, err) == (f"http://127.0.0.1:{port}/\n", "stopped\n")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
