"""`python -m experiments.maintenance.conformance`: compare everything, print the matrix, write `docs/fidelity.md`.

Exits with 1 if a cell is unexplained. Run it by `make conformance`, whose environment has the references.
"""

import importlib.util
import logging
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Final

# no reference may look for a model or a data set; TRL announces its experimental parts
os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "RAY_DEDUP_LOGS": "0"}
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

REPORT: Final = Path("docs/fidelity.md")


def main() -> int:
    """Compare, print and write; the exit status is 1 if anything is unexplained."""
    from core import GrpoLabError
    from core.store.files import write_text
    from experiments.maintenance.conformance.comparison import REFERENCES, measure
    from experiments.setup import import_parts

    import_parts()
    installed = [name for name in REFERENCES if importlib.util.find_spec(name.lower())]
    # the tables import the references, which are there in this command's own environment only
    from experiments.maintenance.conformance import parts, whole_losses
    from experiments.maintenance.conformance.matrix import build
    from experiments.maintenance.conformance.report import markdown, show

    try:
        tables = parts.comparisons() + whole_losses.comparisons()
    except GrpoLabError as error:
        # a part was renamed, or lost a hyper-parameter that a table sets
        print(f"the tables no longer fit the parts: {error}")
        return 1
    rows = [row for row in tables if row.reference in installed]
    measured = [(row, measure(row)) for row in rows]
    matrix = build(measured, installed)
    versions = {name: version(name.lower()) for name in (*installed, "torch", "transformers")}
    show(matrix, versions)
    if not matrix.problems and len(installed) == len(REFERENCES):
        write_text(REPORT, markdown(matrix, measured, versions))
        print(f"written: {REPORT}")
    return 1 if matrix.problems else 0


if __name__ == "__main__":
    sys.exit(main())
