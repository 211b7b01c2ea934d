"""Where a test holds the world: a call of the stand-in upstream, a write of a file, the database."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.gateway import Steps
from tests.upstream.xai_script import Exchange, Reply


@dataclass(frozen=True, slots=True)
class Gate:
    """A step of the stand-in's script: the call has come; it is served when the gate is opened."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        await self.opened.wait()
        return await exchange.as_asked(exchange.call)


class Refusal(Gate):
    """Answers 429 once it is opened."""

    def __init__(self, opened: asyncio.Event) -> None:
        super().__init__(opened)

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await self.opened.wait()
        return await Reply(429, {"code": "resource-exhausted", "error": "too many requests"}).carry_out(exchange)


@contextmanager
def held(steps: Steps, step: str) -> Iterator[None]:
    """Hold the thread that next comes to a step of the media store, until the block ends."""
    opened = threading.Event()
    steps.at(step, lambda: opened.wait(30))
    try:
        yield
    finally:
        opened.set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of a gateway's database, as another process may."""
    with closing(sqlite3.connect(folder / "grokpool.db", isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
