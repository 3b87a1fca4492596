"""The page as a browser shows it. Skipped where there is no Chromium (`apt-get install chromium`)."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from experiments.report import write_report
from tests.experiments.report.chromium import CHROMIUM, Browser
from tests.experiments.report.studies import judge, write_study

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")

FINALS = {
    "grpo": [0.50, 0.52, 0.54, 0.51, 0.55, 0.53, 0.50, 0.52],
    "dapo_with_a_rather_long_name_eps_high=0.28": [0.54, 0.58, 0.56, 0.57, 0.61, 0.60, 0.55, 0.59],
    "rloo": [0.53, 0.52, 0.51, 0.54, 0.50, 0.53, 0.56, 0.52],
}
BOXES = """[...document.querySelectorAll("svg.figure")].filter((each) => each.getClientRects().length)
  .map((each) => each.getBoundingClientRect()).map(({width, height}) => [width, height])"""
COLUMN = """[...document.querySelectorAll("table.comparisons tbody tr")].map((row) => row.cells[4].dataset.v)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    study = write_study(folder / "three", FINALS, family="all", failures="worst", unfinished=[("rloo", 3, "failed")])
    return write_report(study, judge(study), folder / "report.html")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pairs of eight arms, with long names, long answers and runs that did not finish."""
    names = ("grpo", "rloo", "reinforce_plus_plus_baseline", "an arm in words, with a comma, and more besides")
    finals = {
        f"{name}{suffix}": [round(0.5 + 0.013 * k + 0.01 * ((7 * k + 3 * seed) % 5), 3) for seed in range(10)]
        for k, (suffix, name) in enumerate(product(("", "_and_a_long_ending=0.28"), names))
    }
    folder = tmp_path_factory.mktemp("large")
    unfinished = [("rloo", 3, "failed"), ("rloo", 4, "lost")]
    study = write_study(folder / "large", finals, family="all", response="x" * 300, unfinished=unfinished)
    return write_report(study, judge(study), folder / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_every_figure_is_drawn_and_nothing_is_complained_about(browser: Browser, page: Path) -> None:
    browser.open(page)
    boxes = browser.value(BOXES)
    hidden = browser.value('document.querySelectorAll(".on-axis svg.figure").length') * 2 / 3
    assert len(boxes) == browser.value('document.querySelectorAll("svg.figure").length') - hidden
    assert all(width > 60 and height > 40 for width, height in boxes)
    assert browser.problems == []


def test_another_budget_shows_other_curves(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = '[...document.querySelectorAll(".on-axis")].filter((each) => each.offsetHeight).map((e) => e.classList[1])'
    assert browser.value(shown) == ["on-steps"]
    browser.value('document.querySelector("label[for=axis-sampled_tokens]").click()')
    assert browser.value(shown) == ["on-sampled_tokens"]


def test_a_header_sorts_by_number_both_ways_and_says_so(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = [float(value) for value in browser.value(COLUMN)]
    assert before != sorted(before)
    for way in ("ascending", "descending"):
        browser.value('document.querySelectorAll("table.comparisons th button")[4].click()')
        assert [float(value) for value in browser.value(COLUMN)] == sorted(before, reverse=way == "descending")
        heads = '[...document.querySelectorAll("table.comparisons thead th")].map((each) => each.ariaSort)'
        assert browser.value(heads) == [way if place == 4 else "none" for place in range(10)]


def test_the_keyboard_reaches_a_header_and_sees_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    first = "document.activeElement.className + document.activeElement.textContent"
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", windowsVirtualKeyCode=9)
    assert browser.value(first) == "skipSkip to the verdicts"
    browser.value('document.querySelector("table.comparisons th button").focus({focusVisible: true})')
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", windowsVirtualKeyCode=13)
    assert browser.value('document.querySelector("table.comparisons th").ariaSort') == "ascending"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["page", "large"])
def test_nothing_is_wider_than_the_screen_but_what_scrolls_by_itself(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    browser.open(request.getfixturevalue(which), width=width, height=844)
    browser.value('document.querySelectorAll("details").forEach((each) => { each.open = true; })')
    inside = browser.value("document.documentElement.clientWidth")
    outside = """[...document.querySelectorAll("body *")].filter((each) => !each.closest(".skip, pre > *")
      && !each.parentElement.closest(".scroll") && (({left, right, width}) => width && (left < -1 || right > %d))
      (each.getBoundingClientRect())).map((each) => each.outerHTML.slice(0, 80))"""
    assert browser.value(outside % (inside + 1)) == []
    assert browser.value("document.documentElement.scrollWidth") == inside


def test_what_is_too_wide_says_so_and_nothing_else(browser: Browser, page: Path) -> None:
    """Tables and figures alike; a wide screen has none."""
    browser.open(page, width=390, height=844)
    shown = '[...document.querySelectorAll(".scroll")].filter((each) => each.checkVisibility())'
    hinted = '.map((each) => each.querySelector(":scope > .sideways").checkVisibility())'
    too_wide = ".map((each) => each.scrollWidth > each.clientWidth + 1)"
    assert browser.value(shown + hinted) == browser.value(shown + too_wide)
    assert browser.value(f'{shown}.filter((each) => each.querySelector("table.comparisons")){hinted}') == [True]
    browser.open(page, width=1280, height=844)
    assert browser.value(f'{shown}.filter((each) => each.querySelector("table.comparisons")){hinted}') == [False]


@pytest.mark.parametrize("which", ["page", "large"])
def test_no_text_is_cut_by_the_edge_of_its_figure(browser: Browser, request: pytest.FixtureRequest, which: str) -> None:
    browser.open(request.getfixturevalue(which))
    cut = """[...document.querySelectorAll("svg.figure")].flatMap((figure) => [...figure.querySelectorAll("text")]
      .filter((each) => { const {x, y, width, height} = each.getBBox(), {width: w, height: h} = figure.viewBox.baseVal;
        return x < -1 || y < -1 || x + width > w + 1 || y + height > h + 1; })
      .map((each) => `${figure.ariaLabel.slice(0, 40)}: ${each.textContent}`))"""
    assert browser.value(cut) == []


def test_the_contents_lead_to_every_section_and_back_under_a_thumb(browser: Browser, large: Path) -> None:
    browser.open(large, width=390, height=844)
    links = '[...document.querySelectorAll(".contents a")]'
    sections = '[...document.querySelectorAll("section")].map((each) => `#${each.id}`)'
    assert browser.value(f'{links}.map((each) => each.getAttribute("href"))') == browser.value(sections)
    assert browser.value(f"Math.min(...{links}.map((each) => each.getBoundingClientRect().height))") >= 28
    browser.value(f"{links}.at(-1).click()")
    assert browser.value('document.querySelector("section:last-of-type h2").getBoundingClientRect().top') < 844
    browser.value('document.querySelector(".back").click()')
    assert -1 < browser.value('document.querySelector(".contents").getBoundingClientRect().top') < 200


def test_a_long_list_of_comparisons_is_folded_after_its_first(browser: Browser, large: Path) -> None:
    browser.open(large, width=390, height=844)
    shown = '[...document.querySelectorAll(".verdicts > li")].filter((each) => each.checkVisibility()).length'
    assert browser.value(shown) == 8
    assert browser.value('document.querySelector("header > details:last-of-type summary").textContent') == (
        "20 more comparisons"
    )


def test_paper_shows_what_is_folded_and_no_controls(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.value('dispatchEvent(new Event("beforeprint"))')
    assert browser.value('document.querySelectorAll("details:not([open])").length') == 0
    assert browser.value('getComputedStyle(document.querySelector(".switch")).display') == "none"
    main = '[...document.querySelectorAll(".on-axis .main")].filter((each) => each.offsetHeight).length'
    assert browser.value(main) == 3
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.value('dispatchEvent(new Event("afterprint"))')
    assert browser.value('document.querySelectorAll("details[open]").length') == 0


def test_a_dark_screen_gets_light_ink_in_figures_too(browser: Browser, page: Path) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", features=[scheme])
    browser.open(page)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    ink = browser.value('getComputedStyle(document.querySelector("svg.figure text.name")).fill')
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert (paper, ink) == ("rgb(20, 24, 29)", "rgb(230, 233, 237)")
