from collections.abc import Iterator

import pytest

from tests.crash.processes import Processes, processes


@pytest.fixture(scope="session")
def gateways() -> Iterator[Processes]:
    with processes() as started:
        yield started
