"""One check in a process of its own: what it finds goes to standard output, a line of JSON each, as it is found."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from core.errors import GrpoLabError, describe_error
from core.parts.import_path import find_modules_in
from experiments.doctor.checks import by_name
from experiments.doctor.finding import FAILS, REPORT, Finding
from experiments.doctor.training import name
from experiments.doctor.visit import Check, Visit


def main(check: str, visit: str) -> None:
    """Carry out the check of this name; `visit` is a `Visit` as JSON."""
    findings = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no finding
    told = Visit(**json.loads(visit))
    find_modules_in(told.here)
    for finding in guarded(by_name(check), told):
        print(json.dumps(finding.to_json()), file=findings, flush=True)


def guarded(check: Check, visit: Visit) -> Iterator[Finding]:
    """What a check finds; an exception is a finding too."""
    title = check.name if check.models == "none" else name(check.name, visit)
    try:
        yield from check.run(visit)
    except GrpoLabError as error:  # says what to do itself
        yield Finding(title, FAILS, str(error), "Do as the message says.")
    except Exception as error:
        yield Finding(title, FAILS, *_of_exception(error))


def _of_exception(error: Exception) -> tuple[str, str]:
    if isinstance(error, ImportError):
        return f"{type(error).__name__}: {error}", "Install grpo-lab anew, in an environment of its own."
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        return f"out of memory: {error}", "Free memory, or give a smaller model with --model."
    where: Any = describe_error(error).splitlines()
    place = next((line.strip() for line in reversed(where) if line.lstrip().startswith("File ")), "")
    return f"{type(error).__name__}: {error} {place}".strip(), REPORT


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
