"""Output to the terminal: names, answers and errors may come from outside, and must not control it."""

from collections.abc import Iterable

from rich import console
from rich.segment import Segment

from core.printable import printable


class Console(console.Console):
    """Rich's console, without control sequences in the printed text."""

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments to print, their text made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
