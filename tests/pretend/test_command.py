"""`grpolab` on the pretend device: its runs are in workers that it spawns, as beside every accelerator."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.pretend.ledger import ROOT
from tests.pretend.process import on_pretend
from tests.pretend.runs import SMALL, command

pytestmark = pytest.mark.slow

SITE: Final = f"""\
import sys
sys.path.append({ROOT!r})
from tests.pretend.process import have_device
have_device()
"""
"""A Python that begins with it has the device from the start."""
RECIPE: Final = ("-c", "embedded", *(word for binding in SMALL for word in ("-b", binding)))
STUDY: Final = (
    *("-b", "compare.variants = [@grpo, @rloo]", "-b", "train.steps = 3", "-b", "evaluation.every = 1"),
    *("--seeds", "2", "--workers", "1"),
)


@pytest.mark.parametrize(
    ("words", "runs", "steps"),
    [(("train", *RECIPE), 1, 2), (("compare", *RECIPE, *STUDY), 4, 3)],
    ids=["train", "compare"],
)
def test_runs_end_in_spawned_workers_and_their_manifests_name_the_device(
    words: tuple[str, ...], runs: int, steps: int, tmp_path: Path
) -> None:
    site, out = tmp_path / "site", tmp_path / "runs"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    on_pretend(command, *words, "--out", str(out), site=str(site))
    found: list[dict[str, Any]] = [json.loads(file.read_text()) for file in out.rglob("seed=*/manifest.json")]
    assert len(found) == runs
    for each in found:
        assert (each["status"], each["steps"], each["device"]) == ("finished", steps, "pretend")
        assert each["hardware"].startswith("pretend; ")
