"""What tests of episodes share."""

import pytest

from core import Part
from tests.core.generation.playing import Echo, made_of


@pytest.fixture
def echo() -> Part:
    """See `Echo`."""
    return made_of(Echo)
