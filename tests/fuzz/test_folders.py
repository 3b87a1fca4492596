"""1,000 damaged studies: each has the verdicts that it had or is one clear message; nothing is lost or half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from experiments.cli.main import main
from experiments.results.stored_study import load_study
from tests.fuzz.outcome import listing, result_or_message

CASES: Final = 1000
CHUNK: Final = 50
STUDY: Final = """
include 'embedded.gin'
policy.model = '{model}'
train.steps = 3
train.prompts = 2
train.group_size = 4
train.max_tokens = 6
evaluation.every = 1
evaluation.questions = 4
compare.name = 'whole'
compare.seeds = 3
compare.variants = [@grpo, @rloo]
"""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A study that was run to its end."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "study.gin").write_text(STUDY.format(model=tiny_folder))
    assert main(["compare", "-c", str(folder / "study.gin"), "--workers", "1", "--out", str(folder)]) == 0
    for checkpoint in folder.glob("whole/*/*/checkpoint/model.safetensors"):
        assert checkpoint.is_file()
    return folder / "whole"


def flip(data: bytes, draw: Random) -> bytes:
    """One byte is another."""
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


DAMAGE: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (
    flip,
    lambda data, draw: data[: draw.randrange(len(data))],
    lambda data, draw: data + data[-draw.randint(1, 200) :],
    lambda data, draw: b"",
    lambda data, draw: b"\x00" * len(data),
    lambda data, draw: b"[" * 100_000,
    lambda data, draw: b"null",
    lambda data, draw: b"[]",
    lambda data, draw: b"{}",
    lambda data, draw: data.replace(b"1", b"9", draw.randint(1, 3)),
    lambda data, draw: data.replace(b":", b": NaN,", 1),
)


def verdict(study: Path) -> dict[str, Any]:
    """All that is judged."""
    judgement = load_study(study).judge()
    return judgement.to_json() if judgement else {}


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The study, to be broken."""
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    return folder


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_damaged_study_has_its_verdicts_or_a_message(first: int, copy: Path) -> None:
    expected = verdict(copy)
    files = [file for file in sorted(copy.rglob("*")) if file.is_file() and file.suffix in (".json", ".jsonl")]
    for n in range(first, first + CHUNK):
        draw = Random(f"study {n}")
        file = draw.choice(files) if draw.random() < 0.8 else copy / "study.json"
        data, kind = file.read_bytes(), draw.random()
        file.unlink()
        if kind < 0.1:
            file.mkdir()
        elif kind < 0.2:
            file.symlink_to("nowhere")
        elif kind < 0.9:
            file.write_bytes(draw.choice(DAMAGE)(data, draw))
        before = listing(copy)
        try:
            found, message = result_or_message(lambda: verdict(copy))
            if message is None and found != expected:
                raise AssertionError(f"another verdict: {json.dumps(found)[:1000]}")
            assert listing(copy) == before, "reading has written"
        except BaseException as error:
            now = file.read_bytes()[:300] if file.is_file() else "no file"
            raise AssertionError(f"study {n}, {file.relative_to(copy)}: {now!r}") from error
        finally:
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_bytes(data)
