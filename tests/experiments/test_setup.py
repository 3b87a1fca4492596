"""What every process does first: the command line is read without torch, a worker finds what its command finds."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.parts.import_path import ROOT, find_modules_in, users_folders
from core.parts.registry import config
from experiments.setup import Origin


def test_the_command_line_is_read_without_torch() -> None:
    """Importing it takes seconds, and `--help` and a mistyped option need none of it."""
    program = (
        "import sys\nfrom experiments.cli.main import make_parser\n"
        "make_parser().parse_args(['compare', '-c', 'demo', '--launcher', 'slurm', '--time', '5'])\n"
        "print([name for name in ('torch', 'transformers', 'gin') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "[]\n"


def test_a_users_folders_come_after_ours_and_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), sys.path[-1]])
    find_modules_in(str(tmp_path), str(ROOT), str(tmp_path))
    assert sys.path[0] == str(ROOT)
    assert sys.path[2:] == [str(tmp_path)]


def test_the_folders_of_the_user_are_neither_pythons_nor_a_librarys_nor_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside").mkdir()
    library = str(Path(pytest.__file__).parents[1])
    monkeypatch.setattr(sys, "path", ["", str(ROOT), *sys.path, library, str(tmp_path / "beside"), "/nowhere"])
    folders = users_folders()
    assert (folders[0], folders[-1]) == (str(tmp_path), str(tmp_path / "beside"))
    assert not {str(ROOT), library, "/nowhere"} & set(folders)


def test_a_worker_finds_modules_beside_the_gin_file_that_imports_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not in the command's current folder alone, and none in the place of ours."""
    beside = tmp_path / "studies"
    (tmp_path / "core").mkdir()
    beside.mkdir()
    (beside / "lies_beside_the_gin_file.py").touch()
    (beside / "study.gin").write_text("import lies_beside_the_gin_file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with config([beside / "study.gin"]):
        origin = Origin.here()
    assert origin.folder == str(tmp_path)
    program = (
        "import json, os, sys\nfrom experiments.setup import Origin\n"
        f"Origin({origin.folder!r}, {origin.modules!r}, ('grpolab', 'compare')).enter()\n"
        "import core.errors, lies_beside_the_gin_file\nprint(os.getcwd(), sys.argv, core.__path__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == f"{tmp_path} ['grpolab', 'compare'] ['{ROOT / 'core'}']\n"
