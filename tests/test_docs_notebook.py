"""The notebook of the tutorials is stored without outputs, and runs from its first cell to its last."""

import json
from pathlib import Path
from typing import Any

import pytest

PLACE = Path(__file__).resolve().parents[1] / "docs" / "tutorials" / "notebook.ipynb"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = [each for each in json.loads(PLACE.read_text("utf-8"))["cells"] if each["cell_type"] == "code"]
    assert len(cells) > 10
    assert [each for each in cells if each["outputs"] or each["execution_count"] is not None] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")  # of the libraries between a notebook and its kernel
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(PLACE, 4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=folder).execute()
    shown: list[Any] = [each.outputs[-1] for each in notebook.cells if each.cell_type == "code" and each.outputs]
    texts = [each.get("text") or each["data"].get("text/html") or each["data"]["text/plain"] for each in shown]
    assert any("[-0.1875,  0.0625,  0.0625,  0.0625]" in text for text in texts)
    assert any("rloo vs grpo on test/accuracy at equal steps" in text for text in texts)
    assert "better" in texts[-1]
    assert sum("image/png" in each.get("data", {}) for each in shown) == 2
    assert (tmp_path / "runs" / "notebook" / "study.json").is_file()
