"""A file is written whole or not at all, and nothing but a file is replaced."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import MachineError
from core.store.files import write_text, write_whole


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: Path(path).symlink_to("/dev/full"), lambda path: Path(path).symlink_to("/dev/null")],
    ids=["pipe", "link to a device", "link to another"],
)
def test_what_is_no_regular_file_is_not_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    target = tmp_path / "target"
    make(target)
    before = os.lstat(target)
    with pytest.raises(MachineError, match=r"cannot write .*target: it is not a regular file; choose another"):
        write_text(target, "text")
    assert os.path.samestat(os.lstat(target), before)
    assert os.listdir(tmp_path) == ["target"]


def test_a_file_and_a_link_to_one_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link", "deep/new"):
        write_whole(tmp_path / name, b"new")
        assert (tmp_path / name).read_text() == "new"
