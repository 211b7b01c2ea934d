"""One gateway for the whole folder, hurried: its limits of time are seconds, so that the tests need not wait longer."""

from collections.abc import Iterator

import pytest

from tests.bad_inputs.running import Running, gateway

HEAD_SECONDS = 2.0  # within which a request's head must be there
BODY_GRACE = 2.0  # seconds before the rate of a body counts


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with gateway(
        tmp_path_factory.mktemp("gateway"),
        server__keepalive=HEAD_SECONDS,
        server__body_grace=BODY_GRACE,
        fetch__timeout=3,
        fetch__connect_timeout=1,
        fetch__read_timeout=1,
        fetch__resolve_timeout=1,
    ) as running:
        yield running
