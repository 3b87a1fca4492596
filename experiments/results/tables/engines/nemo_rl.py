"""NeMo-RL: `val_data_stepN.jsonl` and `train_data_stepN.jsonl`, an answer on each line with its `rewards`.

Its curves go to TensorBoard, W&B and MLflow only.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from experiments.results.tables.engines.answers import mean_line
from experiments.results.tables.engines.log import Log, records

_NAME: Final = re.compile(r"(train|val)_data_step(\d+)\.jsonl")
_METRICS: Final = {"train": "train/reward", "val": "validation/reward"}
_EXPERIMENT: Final = re.compile(r"exp_\d+")
"""A folder that it makes anew for every start."""


class Answers:
    """The answers of one step."""

    def recognises(self, file: Path) -> bool:
        """By the name."""
        return _NAME.fullmatch(file.name) is not None

    def read(self, file: Path) -> Sequence[Log]:
        """One step of one run: the mean reward."""
        match = _NAME.fullmatch(file.name)
        assert match is not None
        notes: list[str] = []
        metric, step = _METRICS[match[1]], float(match[2])
        rows = [{metric: _reward(record.get("rewards"))} for _, record in records(file, notes)]
        folder = file.parent.parent if _EXPERIMENT.fullmatch(file.parent.name) else file.parent
        line = mean_line(file, step, rows)
        return [Log("NeMo-RL", str(file), folder, [line], unit="step", notes=tuple(notes))]


def _reward(rewards: Any) -> Any:
    """A sample is written as a batch of one."""
    return rewards[0] if isinstance(rewards, list) and len(rewards) == 1 else rewards
