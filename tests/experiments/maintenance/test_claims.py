"""The pages of claims name every shipped study that makes one, and say of each what its study says."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.maintenance.claims import PAGES, Page, declared_again, differences, section, write_page
from experiments.study.configs import CONFIGS
from tests.experiments.report.studies import write_curves, write_study


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


def test_a_section_says_how_often_runs_fell_and_what_they_cost(tmp_path: Path) -> None:
    """Of 256 answers 90 are right at first; rloo falls back at three of four seeds, in the end at one of them."""
    steady, dipped, collapsed = [90, 200, 220, 230, 235], [90, 200, 100, 230, 235], [90, 200, 220, 210, 95]
    claim = {"question": "Is it?", "source": "nobody", "predictions": ["rloo > grpo on test/accuracy by 0.02"]}
    study = write_curves(
        tmp_path / "study",
        {"grpo": [steady] * 4, "rloo": [steady, dipped, dipped, collapsed]},
        claim=claim,
        margin=0.02,
    )
    judgement = study.judge()
    assert judgement is not None
    text = section(study, judgement, PAGES[0])
    # 3 of 4, p(K >= 3) = .025 at .194; exact McNemar of 3 and 0 pairs: 2 / 2^3
    assert "| `grpo` | 0 of 4 (0 to 60 %) | 0 |  |" in text
    assert "| `rloo` | 3 of 4 (19 to 99 %) | 1 | p = 0.25 |" in text
    assert "8 runs, 2 core-minutes" in text  # 12 s each, by the clock

    for run in study.runs:
        run.manifest["cpu_seconds"] = 30.0  # type: ignore[index]
    assert "8 runs, 4 CPU-minutes" in section(study, judgement, PAGES[0])


def test_the_table_of_differences_has_them_at_equal_tokens(tmp_path: Path) -> None:
    """dapo pays 4,000 tokens an evaluation, grpo 2,000 and 6,000 in all, at which dapo, .3 at first, is read too:

    (.425 + .55 + .555) / 3 = .51, and grpo's mean is .52.
    """
    study = write_study(tmp_path / "study")
    judgement = study.judge()
    assert judgement is not None
    assert differences(study, judgement)[-2:] == [
        "| `grpo` | 3 | 0.520 | baseline |  |  |  |",
        "| `dapo` | 3 | 0.560 | +0.040 | -0.010 to +0.090 | inconclusive | -0.010, inconclusive |",
    ]


def test_two_declarations_name_each_other_under_an_overview() -> None:
    parts = {
        "a": "## a\n\nIs it?\n\nOutcome: *underpowered*.\n",
        "a_2": "## a_2\n\nIs it?\n\nOutcome: supported.\n",
        "b": "## b\n\nNot run yet.\n",
    }
    assert declared_again({"b": parts["b"]}) == [parts["b"]]
    overview, first, second, other = declared_again(parts)
    assert overview.splitlines()[2:] == ["| a | [*underpowered*](#a) | [supported](#a_2) |"]
    assert first.startswith("## a\n\nFirst declaration; judged again as [a_2](#a_2).\n\nIs it?")
    assert second.startswith("## a_2\n\nSecond declaration of [a](#a).\n\nIs it?")
    assert other == parts["b"]
    assert declared_again({"a": first, "a_2": second, "b": other}) == [overview, first, second, other]
