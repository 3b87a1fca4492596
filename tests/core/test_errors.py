"""Whose doing a failure is: the code's, the machine's or the training's; and what is shown of it."""

import errno
import signal
from pathlib import Path

import pytest
import torch

from core.errors import GrpoLabError, MachineError, TrainingError, cause_of, cause_of_exit, describe_error
from core.model.policy import Policy


class OutOfMemoryError(RuntimeError):
    """As torch's, on any machine."""


class SafetensorError(Exception):
    """As safetensors', which is no OSError."""


def of(number: int) -> OSError:
    return OSError(number, "text of the system's")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TrainingError("the gradient is not finite"), "algorithmic"),
        (MachineError("the disk is full"), "infrastructure"),
        (GrpoLabError("advantage 'mine' returned [3]"), "code"),
        (ZeroDivisionError("division by zero"), "code"),
        (KeyError("answer"), "code"),
        (SystemExit(3), "code"),
        (of(errno.ENOSPC), "infrastructure"),
        (of(errno.EIO), "infrastructure"),
        (of(errno.EAGAIN), "infrastructure"),
        (ConnectionResetError("by peer"), "infrastructure"),
        (TimeoutError("no answer"), "infrastructure"),
        # a path that is wrong is what somebody wrote
        (of(errno.ENOENT), "code"),
        (of(errno.EACCES), "code"),
        (of(errno.ENOTDIR), "code"),
        (MemoryError(), "infrastructure"),
        (KeyboardInterrupt(), "infrastructure"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "infrastructure"),
        (torch.OutOfMemoryError("of an accelerator"), "infrastructure"),
        (torch.distributed.DistBackendError("connection closed by peer"), "infrastructure"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "infrastructure",
        ),
        (Exception("No space left on device (os error 28)"), "infrastructure"),  # as tokenizers has it
        (SafetensorError("Error while deserializing header: invalid JSON"), "code"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"), "code"),
    ],
)
def test_an_error_is_the_codes_unless_it_is_known_to_be_the_trainings_or_the_machines(
    error: BaseException, cause: str
) -> None:
    assert cause_of(error) == cause


def test_memory_that_torch_cannot_get_is_the_machines() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert cause_of(caught.value) == "infrastructure"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-signal.SIGKILL, "infrastructure"),  # of a lack of memory, most often
        (-signal.SIGTERM, "infrastructure"),
        (-signal.SIGABRT, "infrastructure"),  # std::bad_alloc
        (-signal.SIGBUS, "infrastructure"),  # a full disk under mapped memory
        (-signal.SIGSEGV, "code"),
        (3, "code"),
        (0, "code"),
    ],
)
def test_a_process_that_was_killed_is_the_machines_and_one_that_crashed_or_left_is_the_codes(
    code: int, cause: str
) -> None:
    assert cause_of_exit(code) == cause


def test_an_exception_is_shown_with_the_line_of_the_users_code_that_it_arose_in(tmp_path: Path) -> None:
    """The deepest such line, not that of the library below it."""
    module = tmp_path / "mine.py"
    module.write_text("import json\n\ndef mine(text):\n    return json.loads(text)\n")
    namespace: dict[str, object] = {}
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    with pytest.raises(ValueError, match="Expecting value") as caught:
        namespace["mine"]("")  # type: ignore[operator]
    assert describe_error(caught.value) == (
        f"JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({module}:4, in mine: return json.loads(text))"
    )


def test_a_message_of_ours_is_shown_alone_and_a_bug_of_ours_with_its_traceback(tiny: Policy) -> None:
    assert describe_error(GrpoLabError("what, where, remedy")) == "what, where, remedy"
    namespace: dict[str, object] = {}
    exec(compile("def broken(): return 1 / 0", "<frozen x>", "exec"), namespace)
    try:
        namespace["broken"]()  # type: ignore[operator]
    except ZeroDivisionError as error:
        ours = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    assert describe_error(ours).startswith("Traceback (most recent call last)")
    assert describe_error(ours).endswith("ZeroDivisionError: division by zero")
