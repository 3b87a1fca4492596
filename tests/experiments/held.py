"""Runs that wait in the middle, so that what a test does to them does not hang on how fast the machine is."""

from pathlib import Path
from typing import Final

MODULE: Final = '''
import time
from pathlib import Path

from core import advantage

HOLD = Path({hold!r})


def wait_while_held(batch):
    """In every step after number {free}, wait as long as the file is there."""
    while batch.step > {free} and HOLD.exists():
        time.sleep(0.01)


@advantage
def held_mean(batch):
    """Reward minus the mean of its group."""
    wait_while_held(batch)
    return batch.rewards - batch.rewards.mean(dim=1, keepdim=True)


@advantage
def held_median(batch):
    """Reward minus the median of its group."""
    wait_while_held(batch)
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)
'''


def write_held(module: Path, free: int) -> Path:
    """Write a module with `held_mean` and `held_median`; runs wait after so many steps while `hold` exists.

    Returns the path of `hold`, which is not there yet.
    """
    hold = module.with_name("hold")
    module.write_text(MODULE.format(hold=str(hold), free=free))
    return hold
