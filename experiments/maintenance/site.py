"""What the site of docs/ has beside docs/ itself, and what becomes of links that lead out of it (mkdocs.yml, `hooks`).

On a forge the pages are read where they lie, so their links are paths. In the site a link to one of the pages that are
taken in becomes one to that page, and a link to any other file outside docs/ becomes its path as text.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
TAKEN_IN: Final = {name: f"docs/{name.lower()}" for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
"""Pages beside docs/, and where the site has them."""
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCED: Final = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def site_links(markdown: str, place: str) -> str:
    """The text of the page at `place` (a path from the root, such as `docs/tables.md`) with the links of the site."""
    at = dirname(next((site for origin, site in TAKEN_IN.items() if origin == place), place))

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = normpath(join(dirname(place), target))
        if (ROOT / path).is_dir() and (ROOT / path / "README.md").is_file():
            path = join(path, "README.md")
        path = TAKEN_IN.get(path, path)
        if path.startswith("docs/"):
            return f"{image}[{text}]({relpath(path, at)}{anchor})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    pieces = _FENCED.split(markdown)
    return "".join(piece if piece.startswith("```") else _LINK.sub(link, piece) for piece in pieces)


def on_files(files: Any, config: Any) -> Any:
    """Take in the pages beside docs/."""
    from mkdocs.structure.files import File

    for place, site in TAKEN_IN.items():
        text = site_links((ROOT / place).read_text("utf-8"), place)
        files.append(File.generated(config, site.removeprefix("docs/"), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the site's links into a page of docs/."""
    place = f"docs/{page.file.src_uri}"
    return markdown if place in TAKEN_IN.values() else site_links(markdown, place)
