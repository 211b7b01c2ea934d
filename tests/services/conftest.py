from collections.abc import AsyncIterator

import pytest

from tests.upstream.xai_server import XaiServer


@pytest.fixture
async def xai() -> AsyncIterator[XaiServer]:
    """An upstream whose jobs take until the test says so."""
    async with XaiServer(seconds=None) as server:
        yield server
