"""Certificates, proxies and the stand-in, for all tests of the upstream floor."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.domain.proxies import Address
from tests.upstream import proxy_servers
from tests.upstream.certificates import Authority, authority
from tests.upstream.xai_server import XaiServer


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def microsocks() -> Iterator[Address]:
    with proxy_servers.microsocks() as address:
        yield address


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Address]:
    with proxy_servers.tinyproxy(tmp_path) as address:
        yield address


@pytest.fixture
async def plain() -> AsyncIterator[XaiServer]:
    """The stand-in over plain HTTP."""
    async with XaiServer() as server:
        yield server


@pytest.fixture
async def secure(trusted: Authority) -> AsyncIterator[XaiServer]:
    """The stand-in over TLS, as `localhost`."""
    async with XaiServer(tls=trusted.context("localhost"), name="localhost") as server:
        yield server
