"""The one exception that means "you can fix this": it names the thing, the place and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

MOST_LISTED: Final = 60
"""Names that an error message spells out."""


class GrpoLabError(Exception):
    """A mistake in what the bench was given; the message says what, where and what to do instead.

    The command line prints the message alone, without a traceback. Everything else that is raised is a bug.
    """


class MachineError(GrpoLabError):
    """A run that ended for a reason outside its method: a full disk, a folder that vanished. Run that seed again."""


def near(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the near ones, then all that is known unless that is too much to read."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    if len(names) > MOST_LISTED:
        return f"{hint}(grpolab list shows all {len(names)})"
    return f"{hint}known: {', '.join(names) if names else 'none'}"
