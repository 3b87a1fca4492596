"""Judges are kept for a process: every test of a reward begins without any."""

from collections.abc import Iterator

import pytest

from core.environments.judges import endpoint, local


@pytest.fixture(autouse=True)
def _no_judge_yet() -> Iterator[None]:
    yield
    for kept in (local.local_judge, local.check_local, endpoint.endpoint, endpoint.check_endpoint):
        kept.cache_clear()
