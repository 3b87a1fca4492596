"""The Ray launcher: every run is a task, on a cluster that is there or on one that is started on this machine.

Nodes need grpo-lab with the driver's versions. A task goes to the driver's current folder and writes to `--out`, so
both are on a shared file system. Without one, `bring_back` sends along the modules that were imported from the current
folder or from beside a gin file, and what a run has made so far, and brings its files back at the end; other files
(`files.path`, a model in a folder) must be on every node, under an absolute path.

A run whose process or node is lost is retried elsewhere: from its last checkpoint where the folder is shared, else from
where it was when it was handed out. The folder's lock is released by the kernel when a process dies, on NFS by the
server; one that is only cut off keeps it, and the retry waits for it and gives up rather than write beside it.

Ray kills the tasks of a driver that dies. A task that declares no GPU sees none.
"""

import io
import logging
import os
import platform
import shutil
import socket
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import core
from core import GrpoLabError
from core.errors import MachineError
from core.loop.train import Interrupted
from core.store.lock import lock
from experiments.launchers.job import (
    BrokenArmError,
    Failures,
    Job,
    Needs,
    Outcome,
    drive,
    mark_lost,
    note_end,
    run_and_report,
    stop_when,
    stopping_message,
)
from experiments.launchers.progress import Progress
from experiments.launchers.ray_mailbox import Mailbox
from experiments.setup import Origin
from experiments.study.own_code import OURS

RETRIES: Final = 3
"""How often a run is restarted that was lost with its process or node."""


@dataclass(frozen=True)
class _Payload:
    """Sent with every job: its origin and, where nothing is shared, the text of modules by their place."""

    origin: Origin
    modules: Mapping[str, str] | None


def launch(
    jobs: Sequence[Job],
    workers: int,
    progress: Progress,
    more: Callable[[], Sequence[Job]] = lambda: (),
    *,
    address: str | None = None,
    bring_back: bool = False,
) -> Failures:
    """Run the jobs as tasks of the cluster at `address`, or of one that lives as long as this call; see `Launch`."""
    try:
        import ray
    except ImportError as error:
        raise GrpoLabError("--launcher ray needs Ray: pip install 'grpo-lab[ray]'") from error
    _connect(address)
    try:
        return _Driver(workers, progress, bring_back=bring_back).run(jobs, more)
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    if address is not None:
        _refuse_unreachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    # Ray puts the folder of the moment first on its tasks' import path (see core.parts.import_path)
    with chdir(Path(core.__file__).parents[1]):
        try:
            ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise GrpoLabError(
                f"--address {address}: no Ray cluster is running here; start one with 'ray start --head', give "
                "HOST:PORT of one, or leave --address out"
            ) from error


def _refuse_unreachable(address: str) -> None:
    """Raise unless something listens at HOST:PORT: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise GrpoLabError(f"--address {address}: give HOST:PORT of the cluster, or auto, on one of its nodes")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise GrpoLabError(
            f"--address {address}: no Ray cluster answers there ({error.strerror or error}); start one with 'ray start "
            "--head', or leave --address out"
        ) from error


class _Driver:
    """Submits jobs as tasks and handles their messages."""

    def __init__(self, workers: int, progress: Progress, *, bring_back: bool) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._workers, self._progress, self._brings_back = workers, progress, bring_back
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        origin = Origin.here()
        modules = _own_modules(*map(Path, (origin.folder, *origin.modules))) if bring_back else None
        self._payload = ray.put(_Payload(origin, modules))
        self._under_way: dict[Any, Job] = {}
        self._failures: Failures = {}

    def run(self, jobs: Sequence[Job], more: Callable[[], Sequence[Job]]) -> Failures:
        """Run until all jobs have ended."""
        import ray

        try:
            drive(
                jobs,
                self._workers,
                more,
                begin=self._submit,
                listen=self._listen,
                under_way=lambda: len(self._under_way),
            )
        except (KeyboardInterrupt, BrokenArmError) as stop:
            try:
                begun = ray.get(self._mailbox.stop.remote())
                self._progress.print(stopping_message(stop))
                for task, job in self._under_way.items():
                    if job.key not in begun:
                        ray.cancel(task)
                while self._under_way:
                    self._listen()
            except KeyboardInterrupt:
                for task in self._under_way:
                    ray.cancel(task, force=True)
            raise
        return self._failures

    def _submit(self, job: Job) -> None:
        import ray

        needs = job.needs
        _refuse_unmeetable(needs)
        identity = job.identity or job.facts()["identity"]
        so_far = _pack(Path(job.folder)) if self._brings_back else None
        task = ray.remote(_work).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory or None,
            max_retries=RETRIES,
            name=f"{job.arm.label} seed {job.seed}",
        )
        self._under_way[task.remote(self._mailbox, job, identity, self._payload, so_far)] = job

    def _listen(self) -> BrokenArmError | None:
        """Handle new messages and ended runs; returns the error of the first broken one."""
        import ray

        ended, _ = ray.wait(list(self._under_way), timeout=0.5)
        for kind, (arm, seed), content in ray.get(self._mailbox.drain.remote()):
            if kind == "step":
                self._progress.step(arm, seed, content)
            elif kind == "message":
                self._progress.print(f"{arm} seed {seed}: {content}")
            elif content[0] > 1:
                self._progress.print(f"{arm} seed {seed}: lost with its process or node, begun again on {content[1]}")
        broken: BrokenArmError | None = None
        for task in ended:
            job = self._under_way.pop(task)
            ended_broken = note_end(job, self._end(task, job), self._progress, self._failures)
            broken = broken or ended_broken
        return broken

    def _end(self, task: Any, job: Job) -> Outcome:
        """A task's outcome, after its files are brought back."""
        import ray

        try:
            outcome, message, files = ray.get(task)
        except ray.exceptions.TaskCancelledError:
            return "interrupted", None
        except ray.exceptions.RayTaskError as error:  # ours, not the run's: the node has another grpo-lab, say
            return mark_lost(job, f"its task could not be carried out: {error}")
        except ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            return mark_lost(job, f"its process or node was lost {1 + RETRIES} times ({reason})")
        if files is not None:
            _unpack(files, Path(job.folder))
        return mark_lost(job, message) if outcome == "lost" else (outcome, message)


def _refuse_unmeetable(needs: Needs) -> None:
    """Raise when no node is large enough for a run: its task would wait for ever."""
    import ray

    required = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= value for name, value in required.items()) for node in nodes):
        sizes = "; ".join(
            f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs, {node.get('memory', 0) / 2**30:.1f} GiB"
            for node in nodes
        )
        raise GrpoLabError(
            f"no node of the cluster is large enough for a run of {needs.cpus} CPUs, {needs.gpus:g} GPUs and "
            f"{needs.memory / 2**30:.1f} GiB (nodes: {sizes}); lower --cpus, --gpus or --memory, or add a node"
        )


def _work(
    mailbox: Any, job: Job, identity: Mapping[str, Any], payload: _Payload, so_far: bytes | None
) -> tuple[str, str | None, bytes | None]:
    """Run a job on a node; returns its outcome, and its files where they are to be brought back."""
    import ray

    node = platform.node()
    # in a thread of its own: a task that waits in its main thread lends its CPUs to another task meanwhile
    with ThreadPoolExecutor(1) as executor, ExitStack() as stack:

        def call(method: Any, *arguments: Any) -> Any:
            try:
                return executor.submit(lambda: ray.get(method.remote(job.key, *arguments))).result()
            except ray.exceptions.RayActorError as error:  # the driver died
                raise Interrupted from error

        attempt = call(mailbox.begin, node)
        if attempt == 0:
            return "interrupted", None, None
        # Ray itself retries for ever what it killed for lack of memory
        if attempt > 1 + RETRIES:
            return "lost", f"its process was lost {1 + RETRIES} times, perhaps for lack of memory", None
        origin = payload.origin
        if payload.modules is not None:
            home = _module_folder(tuple(sorted(payload.modules.items()))).name
            origin = replace(origin, folder=home, modules=())
            scratch = stack.enter_context(TemporaryDirectory(prefix="grpolab-"))
            job = replace(job, folder=str(Path(scratch, job.folder.lstrip("/"))))
            if so_far is not None:
                _unpack(so_far, Path(job.folder))
        elif not Path(origin.folder).is_dir():
            missing = f"node {node} has no folder {origin.folder}: share it with all nodes, or give --bring-back"
            return "lost", missing, None
        stack.callback(os.chdir, "/")
        watch = stop_when(lambda record: bool(call(mailbox.step, record)))
        outcome, message = run_and_report(job, watch, identity, lambda line: call(mailbox.notify, line), origin=origin)
        return outcome, message, None if payload.modules is None else _pack(Path(job.folder))


@cache  # for as long as the process: Ray gives it further runs, whose identity reads what it has imported again
def _module_folder(modules: tuple[tuple[str, str], ...]) -> "TemporaryDirectory[str]":
    """A folder with these modules, by place and text."""
    home = TemporaryDirectory(prefix="grpolab-")
    for place, text in modules:
        (file := Path(home.name, place)).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return home


def _own_modules(*folders: Path) -> dict[str, str]:
    """The text of every imported module that is found in `folders`, by its place there; not of ours and libraries'."""
    texts = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.suffix != ".py" or file.is_relative_to(sys.prefix) or name.split(".")[0] in (*OURS, "__main__"):
            continue
        package = Path(*name.split("."))
        place = package / "__init__.py" if file.stem == "__init__" else package.with_suffix(".py")
        if any((folder / place).is_file() and file.samefile(folder / place) for folder in folders):
            texts[str(place)] = file.read_text()
    return texts


def _pack(folder: Path) -> bytes | None:
    """The files of a run as a tar archive, or None when there are none."""
    if not folder.is_dir():
        return None
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != ".lock" and not file.name.startswith(".tmp-"):
                archive.add(file, file.relative_to(folder))
    return packed.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    """Put a run's files in the place of what is in its folder, all at once."""
    new, old = (folder.with_name(f".tmp-{os.getpid()}-{which}-{folder.name}") for which in ("new", "old"))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(new, filter="data")
        with lock(folder):
            os.rename(folder, old)
            os.rename(new, folder)
    except OSError as error:
        raise MachineError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
