"""What is printed: names, answers and errors may come from somebody else, and must not command the terminal."""

from collections.abc import Iterable

from rich import console
from rich.segment import Segment

from core.printable import printable


class Console(console.Console):
    """Rich's console, which prints its own control sequences alone."""

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is to be printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
