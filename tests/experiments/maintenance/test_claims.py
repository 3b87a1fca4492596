"""The pages of claims name every shipped study that makes one, and say of each what its study says."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.maintenance.claims import PAGES, Page, write_page
from experiments.study.configs import CONFIGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
def test_the_page_names_every_shipped_claim_with_its_outcome(page: Page) -> None:
    text = page.path.read_text()
    claims = [path.stem for path in page.files]
    assert claims
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == claims
    for part in text.split("\n## ")[1:]:
        name = part.splitlines()[0]
        assert "Outcome: " in part or "Not run yet." in part
        assert ("Outcome: " in part) == (page.reports / f"{name}.html").is_file()


def test_every_shipped_config_with_a_claim_is_on_a_page() -> None:
    making = {file for file in CONFIGS.rglob("*.gin") if "claim.predictions" in file.read_text()}
    assert making == {file for page in PAGES for file in page.files}


def test_a_section_stays_where_there_is_no_study(tmp_path: Path) -> None:
    copy = replace(PAGES[0], path=tmp_path / "claims.md")
    copy.path.write_text(PAGES[0].path.read_text())
    write_page(copy, tmp_path)
    assert copy.path.read_text() == PAGES[0].path.read_text()
