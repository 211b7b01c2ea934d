"""Clients of a gateway, as tasks: they wait for their video, or leave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.gateway import Answer, Running, running
from tests.upstream.xai_server import XaiServer

Waiting = asyncio.Task[Answer]


@asynccontextmanager
async def house(folder: Path, xai: XaiServer, *, concurrency: int = 50, **options: Any) -> AsyncIterator[Running]:
    """A gateway with one token of the stand-in."""
    async with running(folder, upstream__xai__base_url=xai.base_url, **options) as gateway:
        await gateway.api.token("xai-1", concurrency=concurrency)
        yield gateway


def ask(gateway: Running, key: str, prompt: str = "a wave", **headers: str) -> Waiting:
    return asyncio.ensure_future(
        gateway.api.generate(key, prompt, {name.replace("_", "-"): value for name, value in headers.items()})
    )


async def leave(*clients: Waiting) -> None:
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)


async def only_job(gateway: Running) -> dict[str, Any]:
    (job,) = await gateway.api.jobs()
    return dict(job)
