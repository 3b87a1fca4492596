"""1,000 trainers' logs, broken: each is the verdicts of some numbers, or one clear message that names the file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Final

import pytest

from experiments.results.tables.tables import Question, judge_table, read_tables
from experiments.statistics import Judgement
from tests.experiments.results.tables.engines import recorded
from tests.fuzz.outcome import result_or_message
from tests.fuzz.text import damage

CASES: Final = 1000
CHUNK: Final = 100
SHORT: Final = [(step, value) for step, value in ((0, 0.30), (5, 0.37), (10, 0.41))]


def write_verl(folder: Path) -> None:
    for arm, seed, _ in recorded.runs():
        folder.mkdir(exist_ok=True)
        (folder / f"{arm}_s{seed}.jsonl").write_text(recorded.verl_lines([(s, v + seed / 50) for s, v in SHORT]))


def write_trl(folder: Path) -> None:
    for arm, seed, _ in recorded.runs():
        points = [(10 * step, value + seed / 50) for step, value in SHORT]
        recorded.write_state(folder / f"{arm}_s{seed}" / "checkpoint-100" / "trainer_state.json", points)


def write_trackio(folder: Path) -> None:
    folder.mkdir()
    recorded.write_trackio(folder / "project.db")


def judged(folder: Path, metric: str) -> Judgement:
    """As the command line has it."""
    return judge_table(read_tables([folder], metric=metric), Question(baseline="grpo"))


def broken(data: bytes, draw: Random) -> bytes:
    """Bytes lost, doubled or changed."""
    at, length = draw.randrange(len(data)), draw.choice((1, 4, 30, 300))
    kept = draw.choice((b"", data[at : at + length] * 2, bytes(draw.randrange(256) for _ in range(length))))
    return data[:at] if draw.random() < 0.2 else data[:at] + kept + data[at + length :]


KINDS: Final[list[tuple[Callable[[Path], None], str, bool]]] = [
    (write_verl, "val-core/*", True),
    (write_trl, "eval_rewards/*", True),
    (recorded.write_prime, "eval/*", True),
    (recorded.write_events, "eval/*", False),
    (write_trackio, "eval/accuracy", False),
]
"""What writes the logs, a metric in them, and whether they are text."""


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_broken_log_is_verdicts_or_a_message(first: int, tmp_path: Path) -> None:
    for kind, (write, _, _) in enumerate(KINDS):
        write(tmp_path / f"whole{kind}")
    for n in range(first, first + CHUNK):
        draw, kind, folder = Random(f"log {n}"), n % len(KINDS), tmp_path / str(n)
        _, metric, is_text = KINDS[kind]
        copytree(tmp_path / f"whole{kind}", folder)
        file = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        whole = file.read_bytes()
        file.write_bytes(
            damage(whole.decode(), draw).encode("utf-8", "surrogatepass") if is_text else broken(whole, draw)
        )
        try:
            _, message = result_or_message(partial(judged, folder, metric))
            assert message is None or str(folder) in message, f"no place: {message}"
        except BaseException as error:
            raise AssertionError(f"log {n}, {file}:\n{file.read_bytes()[:3000]!r}") from error
