"""All readers of trainers' logs, and what of a folder they read."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from experiments.results.tables.engines import flat_jsonl, nemo_rl, tensorboard, trackio, trainer_state, verl, wandb
from experiments.results.tables.engines.log import Reader

READERS: Final[Sequence[Reader]] = (
    trainer_state.States(),
    verl.Metrics(),
    verl.Answers(),
    nemo_rl.Answers(),
    flat_jsonl.FlatLines(),
    wandb.RunFiles(),
    wandb.Summaries(),
    trackio.Databases(),
    tensorboard.EventFiles(),
)
"""In the order in which they are asked, and in which one is preferred where several have the same run."""


def reader_of(file: Path) -> Reader | None:
    """The reader that recognises a file."""
    return next((reader for reader in READERS if reader.recognises(file)), None)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and below, by name; links to folders, such as W&B's `latest-run`, are not followed."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(files))
