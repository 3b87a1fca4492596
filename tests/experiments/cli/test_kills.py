"""Kill -9 at every instant, and files that rot: what is resumed or made again equals what was never disturbed."""

import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import experiments.cli.conclude
from core import reward
from core.loop.train import Interrupted, run
from core.parts.problems import Problem
from core.parts.registry import config
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.launchers import local
from experiments.launchers.job import Job, run_job
from experiments.launchers.progress import Progress
from experiments.launchers.quarantine import quarantine_damaged
from experiments.results.stored_study import load_study
from experiments.study.configs import (
    CONFIGS,
    build,
)
from experiments.study.settings import Arm
from tests.forked import Forked, run_command

SMALL = (
    "train.prompts = 2",
    "train.group_size = 2",
    "train.max_tokens = 6",
    "train.checkpoint_every = 2",
    "evaluation.every = 1",
    "evaluation.questions = 2",
)
MOMENTARY = ("seconds", "cpu_seconds", "command", "git", "seal", "files")
STATEFUL = ("grpo.advantage = @running_baseline", "grpo.kl_coef = 0.5", "reference.every = 2", "reference.share = 0.6")
CRITIC = (
    "train.variant = @ppo()",
    "ppo.kl_coef = 0.5",
    "ppo.kl_target = 0.1",
    "ppo.kl_horizon = 50",
    "critic.learning_rate = 0.01",
    "reference.every = 2",
)
STALE = (
    "train.variant = @dapo()",
    "train.rewards = [@even_length]",
    "train.staleness = @uniform_age()",
    "uniform_age.most = 2",
    "train.steps = 5",
)


def ignore(record: Mapping[str, Any]) -> None:
    """Watch nothing."""


def stop_after(step: int) -> Callable[[Mapping[str, Any]], None]:
    def watch(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise Interrupted

    return watch


def content(run: Path) -> dict[str, Any]:
    """Everything in a run's folder but clocks, the command, and digests of these."""
    contents: dict[str, Any] = {str(f.relative_to(run)): f.read_bytes() for f in run.rglob("*") if f.is_file()}
    contents["metrics.jsonl"] = [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in contents["metrics.jsonl"].splitlines()
    ]
    manifest = json.loads(contents["manifest.json"])
    contents["manifest.json"] = {k: v for k, v in manifest.items() if k not in MOMENTARY}
    contents["manifest.json"]["files"] = {k: v for k, v in manifest["files"].items() if k != "metrics.jsonl"}
    return contents


def verdicts(study: Path) -> str:
    """All that `analyze --json` prints, were every step as long as any other: seconds are one of the axes."""
    stored = load_study(study)
    for each in stored.runs:
        for row in each.metrics:
            row["seconds"] = {"update": 1.0}
    judgement = stored.judge()
    assert judgement is not None
    return json.dumps(judgement.to_json(), indent=1)


def in_a_child(work: Callable[[], None]) -> int:
    """Do `work` in a process of its own; the signal that ended it, or 0 when it ended by itself."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def photograph(folder: Path, album: Path) -> None:
    """From now on, copy the folder to `album` before every change of it: what kill -9 at that instant would leave.

    A write that has not been synced may also have arrived in part, which is another picture; of equal ones the first is
    kept. Ends with the process.
    """
    taken, busy = 0, False
    seen: set[tuple[tuple[str, bytes | None], ...]] = set()

    def take(torn: Path | None = None) -> None:
        nonlocal taken, busy
        if busy or not folder.is_dir():
            return
        busy = True
        picture = album / f"{taken:03d}"
        shutil.copytree(folder, picture)
        if torn is not None:
            file = picture / torn.relative_to(folder)
            os.truncate(file, max(0, file.stat().st_size - 5))
        files = sorted(picture.rglob("*"))
        state = tuple((str(f.relative_to(picture)), f.read_bytes() if f.is_file() else None) for f in files)
        if state in seen:
            shutil.rmtree(picture)
        seen.add(state)
        taken, busy = taken + 1, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # rmtree names what is in a folder relative to that folder
        removes = event in ("os.remove", "os.rmdir")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if removes or writes or event in ("os.rename", "os.mkdir"):
            where = str(arguments[0])
            if where.startswith(str(folder)) or (removes and not os.path.isabs(where)):
                take()

    def fsync(descriptor: Any) -> None:
        take(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        synced(descriptor)

    synced = os.fsync
    setattr(os, "fsync", fsync)  # noqa: B010 - the types of the two differ
    sys.addaudithook(hook)


@pytest.mark.slow
@pytest.mark.parametrize("stateful", [STATEFUL, CRITIC, STALE], ids=["running baseline", "critic", "stale"])
def test_a_run_killed_at_any_instant_ends_like_one_that_was_not(
    tmp_path: Path, tiny_folder: Path, stateful: tuple[str, ...]
) -> None:
    """A kill between any two changes of its folder, and within its writes; then the same run again."""
    bindings = (*SMALL, "train.steps = 3", *stateful, "evaluation.every = 2", f"policy.model = '{tiny_folder}'")

    @reward
    def even_length(problem: Problem, response: str) -> float:
        """Some groups have no spread, and a filter asks for further rounds."""
        return float(len(response) % 2 == 0)

    with config([CONFIGS / "embedded.gin"], bindings):
        recipe = build("train")

    def go(folder: Path) -> None:
        run(recipe, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=ignore)

    def go_photographed() -> None:
        photograph(tmp_path / "whole", tmp_path / "album")
        go(tmp_path / "whole")

    in_a_child(go_photographed)
    whole = content(tmp_path / "whole")
    pictures = sorted((tmp_path / "album").iterdir())
    assert len(pictures) > 50
    states = set()
    for cut in pictures:
        job = Job(Arm("grpo", ()), 0, "", str(cut))
        quarantine_damaged([job], {"grpo": recipe}, Console(quiet=True))
        assert cut.is_dir(), f"instant {cut.name}: a kill was taken for damage"
        states.add(job.store.manifest.get("status", "not begun"))
        go(cut)
        assert content(cut) == whole, f"killed at instant {cut.name}"
    assert states == {"not begun", "running", "finished"}


def test_a_worker_that_outlives_its_parent_ends_its_step_before_the_run_goes_on(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """It holds the folder to the end of its step; the run goes on from there."""
    with config([CONFIGS / "embedded.gin"], [*SMALL, "train.steps = 3", f"policy.model = '{tiny_folder}'"]):
        recipe = build("train")

    def go(folder: Path, watch: Callable[[Mapping[str, Any]], None] = ignore) -> None:
        run(recipe, 0, RunStore(folder), facts={"identity": {}, "arm": "grpo"}, watch=watch)

    go(tmp_path / "whole")
    cut = tmp_path / "cut"
    under_way, ended = tmp_path / "under_way", tmp_path / "ended"

    def slow_step(record: Mapping[str, Any]) -> None:
        under_way.touch()
        time.sleep(1)
        ended.touch()
        raise Interrupted  # as a worker does when it notices

    def orphan() -> None:
        with pytest.raises(Interrupted):
            go(cut, slow_step)

    worker = threading.Thread(target=in_a_child, args=(orphan,))
    worker.start()
    while not under_way.exists():
        time.sleep(0.01)
    assert not ended.exists()
    quarantine_damaged([Job(Arm("grpo", ()), 0, "", str(cut))], {"grpo": recipe}, Console(quiet=True))
    assert ended.exists()
    worker.join()
    assert RunStore(cut).manifest["status"] == "interrupted"
    go(cut)
    assert content(cut) == content(tmp_path / "whole")


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that a command makes, in this process and without a report."""
    executed: list[tuple[str, int]] = []

    def launch(jobs: Sequence[Job], workers: int, progress: Progress) -> dict[tuple[str, int], str]:
        for job in jobs:
            executed.append((job.arm.label, job.seed))
            run_job(job, ignore)
        return {}

    monkeypatch.setattr(local, "launch", launch)
    monkeypatch.setattr(experiments.cli.conclude, "write_report", lambda study, judgement, path: Path(os.devnull))
    monkeypatch.setattr(experiments.cli.conclude, "write_figures", lambda study, page, folder: [])
    return executed


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A study of two arms and two seeds."""
    file = tmp_path_factory.mktemp("study") / "study.gin"
    bindings = (
        "include 'embedded.gin'",
        *SMALL,
        "train.steps = 4",
        f"policy.model = '{tiny_folder}'",
        "compare.name = 'pair'",
        "compare.arms = {'grpo': [], 'mean': 'grpo.advantage = @group_mean'}",
        "compare.seeds = [0, 1]",
    )
    file.write_text("\n".join(bindings) + "\n")
    return file


RUNS = [("grpo", 0), ("mean", 0), ("grpo", 1), ("mean", 1)]


@pytest.fixture
def pair(study_file: Path, executed: list[tuple[str, int]], tmp_path: Path) -> Path:
    """The study's folder, all runs finished; copies are made of a first one."""
    first = study_file.parent / "runs"
    if not first.exists():
        assert main(["compare", "-c", str(study_file), "--out", str(first)]) == 0
        assert executed == RUNS
        executed.clear()
    shutil.copytree(first, tmp_path / "runs")
    return tmp_path / "runs" / "pair"


def folders(study: Path) -> dict[tuple[str, int], Path]:
    return {(arm, seed): study / arm / f"seed={seed}" for arm, seed in RUNS}


def untouched(run: Path) -> dict[Path, tuple[bytes, int]]:
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in run.rglob("*") if f.is_file() and f.name != ".lock"}


def flip_digit(file: Path) -> None:
    """Another digit in a file's last number: valid JSON still, of another meaning."""
    text = file.read_text()
    place = [match.start() for match in re.finditer(r"(?<=: )\d", text)][-1]
    file.write_text(text[:place] + str(int(text[place]) ^ 1) + text[place + 1 :])
    json.loads(file.read_text().splitlines()[-1] if file.suffix == ".jsonl" else file.read_text())


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a flipped digit of an evaluation": ("eval/test/step=000002.json", flip_digit, "altered"),
    "a flipped digit of the metrics": ("metrics.jsonl", flip_digit, "altered"),
    "a flipped digit of the manifest": ("manifest.json", flip_digit, "altered"),
    "a cut evaluation": ("eval/test/step=000003.json", cut_in_half, r"\d+ bytes where \d+ were written"),
    "cut metrics": ("metrics.jsonl", cut_in_half, r"\d+ bytes where \d+ were written"),
    "a cut manifest": ("manifest.json", cut_in_half, "not valid JSON"),
    "an empty manifest": ("manifest.json", lambda file: os.truncate(file, 0), "not valid JSON"),
    "a missing evaluation": ("eval/test/step=000001.json", Path.unlink, "missing"),
    "a missing rollout": ("rollouts/step=000001.json", Path.unlink, "missing"),
    "missing metrics": ("metrics.jsonl", Path.unlink, "missing"),
    "a missing manifest": ("manifest.json", Path.unlink, r"results without a manifest\.json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_finished_run_is_named_and_made_again_alone(
    kind: str, pair: Path, study_file: Path, executed: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, message = DAMAGE[kind]
    before, table = {key: content(folder) for key, folder in folders(pair).items()}, verdicts(pair)
    victim = folders(pair)["mean", 0]
    damage(victim / name)
    rest = {key: untouched(folder) for key, folder in folders(pair).items()}

    # who reads does not repair
    where = rf"{victim}(/{name})?(, line \d+)?: {message}"
    for command in (["analyze", str(pair), "--json"], ["report", str(pair)]):
        assert main(command) == 2
        assert re.search(rf"{where}.*; remove the folder .*or give the same command again", capsys.readouterr().err)
    assert {key: untouched(folder) for key, folder in folders(pair).items()} == rest

    assert main(["compare", "-c", str(study_file), "--out", str(pair.parent)]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"{where}.*\. The folder is now seed=0\.corrupt-1; this run is made again", shown)
    assert executed == [("mean", 0)]
    aside = victim.with_name("seed=0.corrupt-1")
    assert {f.relative_to(aside): x for f, x in untouched(aside).items()} == {
        f.relative_to(victim): x for f, x in rest["mean", 0].items()
    }
    assert {key: content(folder) for key, folder in folders(pair).items()} == before
    for key in set(RUNS) - {("mean", 0)}:
        assert untouched(folders(pair)[key]) == rest[key]
    assert verdicts(pair) == table
    assert load_study(pair).ignored == ()


UNFINISHED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a cut checkpoint": ("checkpoint/state.pt", cut_in_half, "not a valid checkpoint"),
    "a missing checkpoint": ("checkpoint/state.pt", Path.unlink, "missing"),
    "a flipped digit before the checkpoint": ("eval/test/step=000002.json", flip_digit, "altered"),
    "a missing rollout": ("rollouts/step=000001.json", Path.unlink, "missing"),
    "metrics that end before the checkpoint": ("metrics.jsonl", cut_in_half, r"\d+ bytes where \d+ were written"),
    "a cut manifest": ("manifest.json", cut_in_half, "not valid JSON"),
}


@pytest.mark.parametrize("kind", UNFINISHED)
def test_a_damaged_unfinished_run_is_named_and_made_again_alone(
    kind: str,
    pair: Path,
    study_file: Path,
    executed: list[tuple[str, int]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, damage, message = UNFINISHED[kind]
    before, table = {key: content(folder) for key, folder in folders(pair).items()}, verdicts(pair)
    victim = folders(pair)["grpo", 1]
    command = ["compare", "-c", str(study_file), "--out", str(pair.parent)]
    shutil.rmtree(victim)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "ignore", stop_after(3))
        with pytest.raises(Interrupted):
            main(command)
    damage(victim / name)
    executed.clear()
    capsys.readouterr()
    assert main(command) == 0
    assert re.search(rf"{victim}/{name}(, line \d+)?: {message}.*seed=1\.corrupt-1", capsys.readouterr().out)
    assert executed == [("grpo", 1)]
    assert {key: content(folder) for key, folder in folders(pair).items()} == before
    assert verdicts(pair) == table


def test_damage_during_a_run_is_not_taken_for_its_result(
    pair: Path, study_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run vouches for what it wrote, not for what it finds at its end."""
    victim = folders(pair)["grpo", 1]
    shutil.rmtree(victim)

    def rot(record: Mapping[str, Any]) -> None:
        if record["step"] == 3:
            flip_digit(victim / "eval" / "test" / "step=000001.json")

    monkeypatch.setattr(sys.modules[__name__], "ignore", rot)
    assert main(["compare", "-c", str(study_file), "--out", str(pair.parent)]) == 2
    assert f"{victim}/eval/test/step=000001.json: altered" in capsys.readouterr().err


def test_a_run_that_is_sound_goes_on_from_its_checkpoint(
    pair: Path, study_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counterpart of the above: an interruption alone sets nothing aside and repeats no step."""
    victim = folders(pair)["grpo", 1]
    before = content(victim)
    command = ["compare", "-c", str(study_file), "--out", str(pair.parent)]
    shutil.rmtree(victim)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "ignore", stop_after(3))
        with pytest.raises(Interrupted):
            main(command)
    steps: list[int] = []
    monkeypatch.setattr(sys.modules[__name__], "ignore", lambda record: steps.append(record["step"]))
    assert main(command) == 0
    assert steps == [4]
    assert content(victim) == before
    assert "corrupt" not in capsys.readouterr().out


def test_a_damaged_declaration_stays_an_error(
    pair: Path, study_file: Path, executed: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What was declared cannot be made again: the file is to be restored."""
    file = pair / "study.json"
    whole = file.read_text()
    file.write_text(whole.replace('"alpha": 0.05', '"alpha": 0.06'))
    assert file.read_text() != whole
    assert main(["analyze", str(pair)]) == 2
    assert f"{file}: the declaration is not the one that was hashed before the first run" in capsys.readouterr().err
    cut_in_half(file)
    for command in (["analyze", str(pair)], ["compare", "-c", str(study_file), "--out", str(pair.parent)]):
        assert main(command) == 2
        assert re.search(rf"{file}.*restore it", capsys.readouterr().err)
    assert not executed


def test_a_study_from_before_fingerprints_and_seals_is_read_as_ever(
    pair: Path, study_file: Path, executed: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    table = verdicts(pair)
    for folder in folders(pair).values():
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["files"], manifest["seal"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verdicts(pair) == table
    assert main(["analyze", str(pair)]) == 0
    assert main(["compare", "-c", str(study_file), "--out", str(pair.parent)]) == 0
    assert not executed


KILLS = int(os.environ.get("GRPOLAB_KILLS", "0"))
STUDY = """
include 'embedded.gin'
train.steps = 60
train.prompts = 4
train.group_size = 4
train.checkpoint_every = 3
evaluation.every = 10
evaluation.questions = 8
compare.name = 'small'
compare.seeds = [0, 1]
compare.arms = {'grpo': [], 'stale': 'train.staleness = 8', 'stateful': [
    'grpo.advantage = @running_baseline', 'grpo.kl_coef = 0.1', 'reference.every = 5', 'reference.share = 0.6']}
"""


@pytest.mark.slow
@pytest.mark.skipif(KILLS == 0, reason="minutes: GRPOLAB_KILLS=20, or make kills")
def test_a_study_killed_at_random_instants_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """Through the command line with workers: all processes killed at once, or the parent alone, whose workers go on."""
    (tmp_path / "study.gin").write_text(STUDY)

    shown = tmp_path / "shown"

    def grpolab(*arguments: str) -> Forked:
        shown.unlink(missing_ok=True)
        return Forked(run_command, *arguments, folder=tmp_path, output=(shown, shown))

    def ended(process: Forked) -> None:
        assert process.wait() == 0, shown.read_text()
        process.end()

    def tables(study: Path) -> dict[str, Any]:
        contents: dict[str, Any] = {str(f.parent.relative_to(study)): content(f.parent) for f in runs(study)}
        ended(grpolab("analyze", str(study), "--json"))
        return contents | {"verdicts": verdicts(study)}

    def runs(study: Path) -> list[Path]:
        return sorted(study.glob("*/seed=*/manifest.json"))

    def lines(study: Path) -> int:
        return sum(file.read_bytes().count(b"\n") for file in study.glob("*/seed=*/metrics.jsonl"))

    def wait_for(steps: int, process: Forked, study: Path) -> None:
        """Until the study has made so many steps more, or its process has ended."""
        last = lines(study)
        while steps > 0 and process.poll() is None:
            time.sleep(0.005)
            now = lines(study)
            steps, last = steps - max(0, now - last), now

    command = ["compare", "-c", "study.gin", "--workers", "2", "--out"]
    ended(grpolab(*command, "whole"))
    cut, random_instant = tmp_path / "cut" / "small", random.Random(0)
    kills: list[tuple[str, int, list[str]]] = []
    while len(kills) < KILLS:
        process = grpolab(*command, "cut")
        # a quarter at any time since the start, the others once some steps have been made
        if random_instant.random() > 0.25:
            wait_for(random_instant.randint(1, 24), process, cut)
            time.sleep(random_instant.uniform(0, 0.5))
        else:
            time.sleep(random_instant.uniform(0, 15))
        if process.poll() is not None:
            ended(process)
            shutil.rmtree(cut)  # all over: anew
            continue
        whom = random_instant.choice([os.killpg, os.killpg, os.kill])
        whom(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        states = [json.loads(file.read_text())["status"] for file in runs(cut)]
        kills.append((whom.__name__, lines(cut), states))
        print(len(kills), *kills[-1], flush=True)
    ended(grpolab(*command, "cut"))
    assert tables(cut) == tables(tmp_path / "whole" / "small")
    assert not list(cut.glob("*/*.corrupt-*")), "a kill was taken for damage"
