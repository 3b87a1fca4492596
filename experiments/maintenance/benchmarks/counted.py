"""Runs a command; the last line is JSON of what it and all its descendants took: processor seconds, those on the clock.

    python counted.py COMMAND ...

On Linux, where what outlives its parent can become a child of this process and so be counted. Imports nothing of ours.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER."""


def main() -> None:
    """Run, wait for all that was started, and print."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    began = time.perf_counter()
    result = subprocess.run(sys.argv[1:], check=False)
    wall = time.perf_counter() - began
    with suppress(ChildProcessError):
        while True:
            os.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps([usage.ru_utime + usage.ru_stime, wall]))
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
