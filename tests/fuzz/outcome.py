"""What a broken input may come to: a result or one clear message; no traceback, no hang, nothing half-written."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from core.errors import GrpoLabError

Result = TypeVar("Result")

SECONDS: Final = 60.0
"""Of processor time for one input, which a busy machine does not change; most take a few hundredths."""
LONGEST: Final = 4000
"""Characters of a message."""


class HangError(BaseException):
    """An input took longer than any may; no handler of ours catches it."""


@contextmanager
def limited_time() -> Iterator[None]:
    """Raise `HangError` in what runs inside when it has used up its processor time."""

    def over(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def result_or_message(act: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """The result of `act`, or its one message; anything else that is raised is a defect, and raised."""
    with limited_time():
        try:
            return act(), None
        except GrpoLabError as error:
            message = str(error)
    assert message.strip(), "a message without words"
    assert len(message) <= LONGEST, f"a message of {len(message)} characters"
    assert "Traceback" not in message, message
    assert not re.search(r"0x[0-9a-f]{8,}", message), f"an address of an object: {message}"
    return None, message


def listing(folder: Path) -> dict[str, int]:
    """Every file below `folder` with its size."""
    return {str(file.relative_to(folder)): file.lstat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
