"""The page of claims names every shipped claim, and says of each what its study says."""

from pathlib import Path

import pytest

from experiments.claims import PAGE, write_page
from experiments.study import CONFIGS


def test_the_page_names_every_shipped_claim_with_its_outcome() -> None:
    text = PAGE.read_text()
    claims = [path.stem for path in sorted((CONFIGS / "claims").glob("*.gin"))]
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == claims
    for part in text.split("\n## ")[1:]:
        name = part.splitlines()[0]
        assert "Outcome: " in part or "Not run yet." in part
        assert ("Outcome: " in part) == (PAGE.parent / "claims" / f"{name}.html").is_file()


def test_what_was_said_stays_where_there_is_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "claims.md"
    copy.write_text(PAGE.read_text())
    monkeypatch.setattr("experiments.claims.PAGE", copy)
    write_page(tmp_path)
    assert copy.read_text() == PAGE.read_text()
