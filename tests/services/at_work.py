"""A gateway at work on the orders of a few clients, and what can be seen of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.crash import books
from tests.gateway import IMAGE, Answer, Running, running, until
from tests.upstream.xai_server import XaiServer


@asynccontextmanager
async def house(folder: Path, xai: XaiServer, *, tokens: int = 1, **options: Any) -> AsyncIterator[Running]:
    """A gateway with tokens of one slot each."""
    async with running(folder, upstream__xai__base_url=xai.base_url, **options) as gateway:
        for number in range(tokens):
            await gateway.api.token(f"xai-{number}", concurrency=1)
        yield gateway


def again(folder: Path, xai: XaiServer, **options: Any) -> AbstractAsyncContextManager[Running]:
    """A gateway on a folder that another has worked on."""
    return running(folder, upstream__xai__base_url=xai.base_url, **options)


async def in_flight(gateway: Running) -> int:
    return sum(token["in_flight"] for token in (await gateway.api.admin("GET", "/tokens"))["data"])


async def slots_are_free(gateway: Running) -> None:
    async def free() -> bool:
        return await in_flight(gateway) == 0

    await until(free)


async def closed(gateway: Running, job_id: str) -> Any:
    """Return a job once all of its attempts have ended."""

    async def look() -> Any:
        job = await gateway.api.job(job_id)
        return job if all(attempt["ended_at"] for attempt in job["attempts"]) else None

    return await until(look)


async def ask(gateway: Running, key: str, prompt: str = "a wave") -> tuple[str, "asyncio.Task[Answer]"]:
    """Let a client wait for a video; return the job's id and the client."""
    known = len(await gateway.api.jobs())
    client = asyncio.ensure_future(gateway.api.generate(key, prompt))

    async def accepted() -> Any:
        jobs = await gateway.api.jobs()
        return jobs[-1]["id"] if len(jobs) > known else None

    return str(await until(accepted)), client


async def warm_key(gateway: Running) -> str:
    """Return a key once the decoder of pictures has started: its time is not the job's."""
    key = await gateway.api.key()
    refused = await gateway.api.generate(key, image_url=IMAGE[:-40] + "AAAA")
    assert refused.code == "invalid_image_url"
    return key


def resume_everything(folder: Path) -> None:
    """Lift all pauses while no gateway runs."""
    with books.database(folder) as connection:
        connection.execute("DELETE FROM pauses")


async def is_past(moment: float) -> bool:
    return time.time() > moment  # noqa: TID251
