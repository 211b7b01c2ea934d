"""Short words for exchanges with the stand-in, and for how they failed."""

from collections.abc import Awaitable

import pytest

from proxy.domain.outcomes import Phase, Signal, Trouble, UpstreamFailed
from proxy.upstream.transport import Answer, Transport
from tests.upstream.xai_server import XaiServer

KEY = {"Authorization": "Bearer xai-1"}
JOB = {**KEY, "Content-Type": "application/json"}


def look(transport: Transport, server: XaiServer, proxy_id: str | None = None) -> Awaitable[Answer]:
    return transport.exchange("GET", f"{server.base_url}/api-key", proxy_id=proxy_id, headers=KEY)


def submit(transport: Transport, server: XaiServer, proxy_id: str | None = None) -> Awaitable[Answer]:
    url = f"{server.base_url}/videos/generations"
    return transport.exchange("POST", url, proxy_id=proxy_id, headers=JOB, body=b'{"prompt": "a boat"}')


async def failure(exchange: Awaitable[Answer]) -> Signal:
    """Await what must fail; return the signal."""
    with pytest.raises(UpstreamFailed) as caught:
        await exchange
    return caught.value.signal


def through(failed: Signal) -> tuple[Phase, Trouble | None]:
    return failed.phase, failed.trouble
