"""Text that may leave the machine: without paths, host, user, or the value of any environment variable."""

import getpass
import os
import platform
import re
from collections.abc import Mapping
from typing import Any, Final

MIN_SECRET: Final = 12
"""Characters from which the value of an environment variable is taken out wherever it stands."""
_PATH: Final = re.compile(
    r"(?<![\w.:/])(?:[A-Za-z]:)?(?:~|\.{1,2})?(?:[\\/][^\s\\/'\"`:;,()<>|]+)*[\\/]([^\s\\/'\"`:;,()<>|]+)"
)


def scrubbed(value: Any) -> Any:
    """Plain data with every text in it scrubbed; other values as they are."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {scrub(str(key)): scrubbed(each) for key, each in value.items()}
    return [scrubbed(each) for each in value] if isinstance(value, list | tuple) else value


def scrub(text: str) -> str:
    """Text in which a path is its last name after `.../`, and secrets, host and user are words in angle brackets."""
    for secret in sorted(filter(_is_secret, os.environ.values()), key=len, reverse=True):
        text = text.replace(secret, "<environment>")
    text = _PATH.sub(r".../\1", text)
    for name, word in ((platform.node(), "<host>"), (_user(), "<user>")):
        if name:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    return text


def _is_secret(value: str) -> bool:
    return len(value) >= MIN_SECRET and os.sep not in value


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return ""
