"""A response without its thinking: the part in which an answer counts."""

import re
from typing import Final

_MARK: Final = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


def after_thoughts(response: str) -> str:
    """The text after the last <think> block, where one was opened or closed; nothing where it is still open."""
    mark = None
    for mark in _MARK.finditer(response):  # noqa: B007 - the last one
        pass
    if mark is None:
        return response
    return response[mark.end() :] if mark[1] else ""
