"""`grpolab watch`: a study while it runs, as a page on this machine alone and as a table in the terminal.

files -> `Watcher`: the study as it could last be read -> a page, rendered when the files have changed
                                                       -> a `Screen` of arms x seeds
"""

import argparse
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from rich import console as rich
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core.errors import GrpoLabError
from experiments.report.formatting import metric_name, number_text, unit, value_text
from experiments.report.sentences import plain_sentence
from experiments.report.tables import no_verdict, verdict_table
from experiments.results.stored_run import StoredRun
from experiments.results.stored_study import StoredStudy, load_study
from experiments.statistics import Analysis, Judgement
from experiments.terminal import Console

Render: TypeAlias = Callable[[StoredStudy, Judgement | None], str]

HOST = "127.0.0.1"
POLL_SECONDS = 1.0  # seconds between two checks of the files
REQUEST_TIMEOUT_SECONDS = 10.0  # seconds that a request may take
MAX_REQUESTS = 32  # requests at a time
WATCHED = ("study.json", "*/seed=*/manifest.json", "*/seed=*/metrics.jsonl", "*/seed=*/eval/**/step=*.json")
MARKS = {
    "finished": ("✓", "green"),
    "running": ("▶", "cyan"),
    "interrupted": ("‖", "yellow"),
    "failed": ("✗", "red"),
    "broken": ("!", "red"),
}
CELL = 17  # terminal columns of a run; also the longest name of an arm

# a reload by script keeps the scroll position, a <meta> refresh does not
RELOAD = """<script>
setInterval(async () => {
  try {
    const answer = await fetch("/", {method: "HEAD", cache: "no-store"});
    if (answer.ok && answer.headers.get("ETag") !== 'TAG') location.reload();
  } catch { /* nobody is watching any more */ }
}, 2000);
</script>
"""


@dataclass(frozen=True)
class View:
    """The study as last read, and the error if it cannot be read now."""

    study: StoredStudy
    judgement: Judgement | None
    read_at: str
    trouble: str = ""

    @property
    def warning(self) -> str:
        """The error as shown to the reader; empty if there is none."""
        return f"As of {self.read_at}; the files cannot be read now: {self.trouble}" if self.trouble else ""


@dataclass(frozen=True)
class Page:
    """The page of a view; `tag` identifies its state (ETag)."""

    view: View
    tag: str
    content: bytes


class Watcher:
    """Reads a study's folder again when its files have changed; keeps the last view while it cannot be read.

    Raises StudyError when there is no study to begin with. Safe to use from several threads.
    """

    def __init__(self, folder: Path, render: Render) -> None:
        self.folder = folder
        self._render = render
        self._lock = threading.Lock()
        self._fingerprint = fingerprint(folder)
        self._view = _read(folder)
        self._page: Page | None = None

    def view(self) -> View:
        """The study now, or as last read."""
        with self._lock:
            return self._refresh()

    def page(self) -> Page:
        """The report of the view, as a page that reloads itself when the study changes."""
        with self._lock:
            view = self._refresh()
            if self._page is None or self._page.view is not view:
                self._page = _page(view, self._render(view.study, view.judgement))
            return self._page

    def _refresh(self) -> View:
        current = fingerprint(self.folder)
        if current != self._fingerprint or self._view.trouble:
            self._fingerprint = current
            try:
                self._view = _read(self.folder)
            except (GrpoLabError, OSError) as error:  # a file is being written, or went away
                if str(error) != self._view.trouble:
                    self._view = View(self._view.study, self._view.judgement, self._view.read_at, str(error))
        return self._view


def fingerprint(folder: Path) -> frozenset[tuple[Path, int, int]]:
    """Name, time and size of every file that a view depends on."""
    entries = set()
    for pattern in WATCHED:
        for file in folder.glob(pattern):
            try:
                status = file.stat()
            except OSError:  # replaced at this moment; the next check sees it
                continue
            entries.add((file, status.st_mtime_ns, status.st_size))
    return frozenset(entries)


def _read(folder: Path) -> View:
    study = load_study(folder)
    return View(study, study.judge(), time.strftime("%H:%M:%S"))


def _page(view: View, report: str) -> Page:
    if view.warning:
        report = report.replace("<body>", f'<body>\n<p role="alert"><strong>{escape(view.warning)}</strong></p>', 1)
    tag = f'"{hashlib.blake2b(report.encode(errors="replace"), digest_size=8).hexdigest()}"'
    head, end, tail = report.rpartition("</body>")
    return Page(view, tag, (head + RELOAD.replace("TAG", tag) + end + tail).encode(errors="replace"))


class Server(ThreadingHTTPServer):
    """Answers GET and HEAD of `/` with the page, to this machine only; every other path is 404.

    A request ends after `REQUEST_TIMEOUT_SECONDS`, whatever is sent or not read; beyond `MAX_REQUESTS` at a time it is
    refused.
    """

    def __init__(self, watcher: Watcher, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.watcher = watcher
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        self.hosts = {f"{host}:{self.server_port}" for host in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """The page's URL."""
        return f"http://{HOST}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if fewer than `MAX_REQUESTS` are open."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer within the request's time limit."""
        over = threading.Timer(REQUEST_TIMEOUT_SECONDS, _shut, [request])
        over.daemon = True
        over.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            over.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a client that has gone: the terminal shows the study."""


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        if self.headers.get("Host") not in self.server.hosts:  # another site's name that leads to this machine
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        page = self.server.watcher.page()
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page.content))),
            ("ETag", page.tag),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(page.content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: the terminal shows the study."""


@contextmanager
def serving(watcher: Watcher, port: int) -> Iterator[str]:
    """Serve the page while the block runs; yields its URL. Port 0 is any free one."""
    if not 0 <= port <= 65535:
        raise GrpoLabError(f"--port {port}: must be between 0 (any that is free) and 65535")
    try:
        server = Server(watcher, port)
    except OSError as error:
        raise GrpoLabError(f"--port {port}: {error.strerror or error}; choose another, or 0 for any") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Screen:
    """The terminal's view: every run's state, and the means of the finished ones so far."""

    watcher: Watcher
    address: str = ""

    def __rich_console__(self, console: rich.Console, options: rich.ConsoleOptions) -> rich.RenderResult:
        """Lay out the present view, as many seeds side by side as fit."""
        view = self.watcher.view()
        study = view.study
        across = max(1, (options.max_width - CELL) // CELL)
        for first in range(0, len(study.seeds), across):
            yield _grid(study, study.seeds[first : first + across])
        marks = [(f"{mark} {status}  ", style) for status, (mark, style) in MARKS.items()]
        yield Text.assemble(*marks, ("· not begun", "dim"))
        name, scalar = metric_name(study.plan.metric), study.plan.scalar
        yield Text(
            f"below each step: reward and {name}, the last; of a finished run {name} as judged ({scalar})", style="dim"
        )
        yield Text("")
        yield from _findings(view)
        if view.warning:
            yield Text(view.warning, style="bold red")
        if self.address:
            yield Text(f"{self.address}  (Ctrl-C ends the view, not the study)", style="bold")


def _grid(study: StoredStudy, seeds: tuple[int, ...]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", max_width=CELL - 1, overflow="fold")
    for seed in seeds:
        table.add_column(f"seed {seed}", min_width=CELL - 1, no_wrap=True)
    for arm in study.arms:
        table.add_row(arm, *(_cell(study, study.run(arm, seed)) for seed in seeds))
    return table


def _cell(study: StoredStudy, run: StoredRun | None) -> Text:
    """Status and step of a run, and below them its last reward and its last score."""
    if run is None:
        return Text("·", style="dim")
    mark, style = MARKS[run.status]
    plan = study.plan
    last = run.metrics[-1] if run.metrics else {}
    if plan.axis == "steps":
        progress = f"{run.steps}/{plan.budget:.0f}"
    else:
        progress = f"{run.steps} ({100 * run.spent(last, plan.axis) / (plan.budget or 1):.0f} %)" if last else "0"
    metric = plan.metric if run.finished else plan.course_metric
    scores = study.curve(run.arm, run.seed, metric)[1].tolist() if metric in study.keys else []
    score = study.scalar(run, metric) if run.finished and scores else scores[-1] if scores else None
    return Text.assemble(
        (f"{mark} {progress}\n", style),
        f"{number_text(last.get('reward'), 3)}  {value_text(score, unit(metric))}",
    )


def _findings(view: View) -> Iterator[Table | Text]:
    """Means until every seed has finished, then verdicts: early verdicts tempt one to stop early."""
    if view.judgement is None:
        yield Text(no_verdict(view.study))
        return
    analysis = view.judgement.analysis
    interim = [note for note in analysis.notes if note.startswith("Interim")]
    yield _means(analysis) if interim else verdict_table(view.judgement, view.study)
    for line in interim or [plain_sentence(each, view.judgement) for each in analysis.comparisons]:
        yield Text(line)
    for warning in () if interim else view.judgement.warnings:
        yield Text(warning, style="yellow")


def _means(analysis: Analysis) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("mean over the same seeds of all arms")
    for column in ("seeds", metric_name(analysis.metric)):
        table.add_column(column, justify="right")
    for each in analysis.arms:
        table.add_row(each.arm, str(each.n), value_text(each.mean, unit(analysis.metric)))
    return table


def run_watch(options: argparse.Namespace) -> int:
    """`grpolab watch`."""
    from experiments.report import render

    watcher = Watcher(Path(options.folder), render)
    console = Console()
    if options.once:
        console.print(Screen(watcher))
        return 0
    with serving(watcher, options.port) as address:
        if not console.is_terminal:
            print(address, flush=True)
            threading.Event().wait()
        with Live(Screen(watcher, address), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(POLL_SECONDS)
                live.refresh()
