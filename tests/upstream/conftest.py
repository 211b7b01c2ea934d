"""Certificates, proxies and the stand-in, for all tests of the upstream floor."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.domain.proxies import Address
from proxy.upstream.transport import Timeouts, Transport
from tests.upstream import proxy_servers
from tests.upstream.certificates import Authority, authority
from tests.upstream.xai_server import XaiServer


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def transport(trusted: Authority) -> AsyncIterator[Transport]:
    transport = Transport(ca_file=trusted.ca_file)
    yield transport
    await transport.close()


@pytest.fixture
async def hasty(trusted: Authority) -> AsyncIterator[Transport]:
    """A transport that waits for nothing long."""
    transport = Transport(ca_file=trusted.ca_file, timeouts=Timeouts(connect=0.5, answer=0.5, idle=0.3, download=1.0))
    yield transport
    await transport.close()


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
