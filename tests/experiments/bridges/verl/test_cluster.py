"""A step of verl's trainer through Ray's processes and TransferQueue themselves is ours, whatever the folder holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")
HERE = Path(__file__).parent
ROOT = Path(__file__).parents[4]


@pytest.mark.slow
def test_a_step_on_a_cluster_is_ours_in_a_folder_with_packages_named_as_ours(tmp_path: Path) -> None:
    for name in ("core", "experiments", "estimators", "variants"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')")
    command = [sys.executable, "-P", "-W", "ignore", str(HERE / "cluster.py"), "found.pt"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "found.pt")
    assert found["theirs"] == pytest.approx(found["ours"], rel=1e-4)  # float32; a broken bridge is wrong by tenths
    assert found["made_up"] == 4
    assert found["seeds"] == found["expected"], "of every request"
    assert len(set(found["seeds"].values())) == 12
    assert found["places"] == [str(ROOT / "core" / "__init__.py"), str(ROOT / "experiments" / "__init__.py")]
