"""The site of docs/: what becomes of links, that every public name has its place, and a strict build."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.maintenance.site import TAKEN_IN, site_links

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("place", "link", "becomes"),
    [
        ("docs/claims.md", "[this](tables.md#scores)", "[this](tables.md#scores)"),
        ("docs/claims.md", "[below](#claims)", "[below](#claims)"),
        ("docs/claims.md", "[words](../CONTRIBUTING.md#glossary)", "[words](contributing.md#glossary)"),
        ("docs/results/rlvr.md", "[words](../../CONTRIBUTING.md)", "[words](../contributing.md)"),
        ("docs/claims.md", "[the loop](../core/loop/train.py)", "the loop (`core/loop/train.py`)"),
        ("docs/claims.md", "[`core/errors.py`](../core/errors.py)", "`core/errors.py`"),
        ("docs/claims.md", "[results](results/)", "[results](results/README.md)"),
        ("docs/claims.md", "[away](https://example.com/a)", "[away](https://example.com/a)"),
        ("CONTRIBUTING.md", "![plan](docs/architecture.svg)", "![plan](architecture.svg)"),
        ("CONTRIBUTING.md", "[news](CHANGELOG.md)", "[news](changelog.md)"),
        ("CONTRIBUTING.md", "[licence](LICENSE)", "licence (`LICENSE`)"),
        ("docs/claims.md", "```\n[x](../core/a.py)\n```\n", "```\n[x](../core/a.py)\n```\n"),
    ],
)
def test_links_that_lead_out_of_docs_become_pages_or_text(place: str, link: str, becomes: str) -> None:
    assert site_links(link, place) == becomes


def test_the_pages_that_are_taken_in_are_there_and_take_no_pages_place() -> None:
    assert all((ROOT / place).is_file() and not (ROOT / site).exists() for place, site in TAKEN_IN.items())


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("lab", "experiments.lab"),
        ("core", "core"),
        ("statistics", "experiments.statistics"),
        ("plots", "experiments.plots"),
    ],
)
def test_every_public_name_has_its_place_in_the_reference(page: str, module: str) -> None:
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text("utf-8")
    shown = re.findall(rf"^::: {re.escape(module)}\.(\w+)$", text, re.M)
    registries = re.findall(r"`([A-Z_]+)`", text)
    assert sorted([*shown, *(registries if module == "core" else [])]) == sorted(
        importlib.import_module(module).__all__
    )


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    done = build(ROOT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
    built = [re.sub(r"README\.md$", "index.md", page).removesuffix(".md") + ".html" for page in pages]
    assert [page for page in [*built, "contributing.html"] if not (tmp_path / page).is_file()] == []
    fetched = re.compile(r'<(?:script|link|img)[^>]* (?:src|href)="?(?:https?:)?//')
    assert [page for page in built if fetched.search((tmp_path / page).read_text("utf-8"))] == []
    assert "Raises GrpoLabError for what cannot work" in (tmp_path / "api" / "lab.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[x](none.md)", "link 'none.md', but the target is not found"),
        ("[x](#none)", "'#none', but there is no such anchor"),
        ("[x](/index.md)", "absolute link '/index.md'"),
    ],
)
def test_a_dead_link_fails_the_build(text: str, complaint: str, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# One\n\n{text}\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\nnav: [index.md]\nhooks: []\nplugins: []\nextra_css: []\n")
    done = build(config, tmp_path / "site")
    assert done.returncode == 1
    assert complaint in " ".join(done.stderr.split())
