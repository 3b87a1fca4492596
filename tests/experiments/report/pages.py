"""Reads a page back: its tables, headings, ids and links; a tag closed out of order is an error."""

from html.parser import HTMLParser
from pathlib import Path

VOID = ("meta", "br", "wbr", "input")


class Page(HTMLParser):
    """Tables as rows of cell texts, by their label where they have one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.labels: dict[str, int] = {}
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def table(self, label: str) -> list[list[str]]:
        """The rows of a table, its head first."""
        return self.tables[self.labels[label]]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)
        self.tags.append(tag)
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self.open:
            self.headings[-1] += data
        elif "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += f" {data.strip()}" if "small" in self.open[-1:] else data.strip()

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("role") == "region":
            self.labels[str(given["aria-label"])] = len(self.tables)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.split(":")[-1] in ("src", "href", "srcset", "action", "data"):
                self.links.append(value or "")


def read(path: Path) -> Page:
    """The page in a file."""
    return Page(path.read_text("utf-8"))
