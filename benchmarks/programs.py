"""The programs under test: each in a process of its own, on a core of its own."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, ClientTimeout

from benchmarks.machine import cpu_seconds, memory_bytes

LINE = 2**24  # bytes of one line of output, at most
START = 60.0  # seconds
CHECKOUT = Path(__file__).parents[1]
TOKENS = 200
SLOTS = 100  # of each token


class NotStarted(Exception):
    """A program did not say that it is ready; the message ends with its last words."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running process that prints one JSON line when it is ready, and another for each SIGUSR1."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def cpu(self) -> float:
        """Return the CPU seconds used so far, child processes included."""
        return cpu_seconds(self.pid)

    def memory(self) -> int:
        """Return the resident memory, without child processes."""
        return memory_bytes(self.pid)

    async def ask(self) -> dict[str, Any]:
        """Return what the program has to tell of itself."""
        self.process.send_signal(signal.SIGUSR1)
        return await _line(self.process)


@asynccontextmanager
async def program(
    module: str, *options: str, core: int, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run `python -m module`, pinned to `core`; it is killed at the end, for nobody needs its good-bye."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
            limit=LINE,
            start_new_session=True,
        )
    os.sched_setaffinity(process.pid, {core})  # its threads and children inherit it
    try:
        async with asyncio.timeout(START):
            ready = await _line(process)
        yield Program(process, ready)
    except EOFError:
        raise NotStarted(f"{module}: {_last_words(log)}") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _last_words(log: Path) -> str:
    return log.read_text()[-2000:]


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    if process.stdout is None or not (line := await process.stdout.readline()):
        raise EOFError
    value: dict[str, Any] = orjson.loads(line)
    return value


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway under test, and what opens it."""

    program: Program
    key: str  # of a client without limits
    limited_key: str  # of a client that may send one request a minute


@asynccontextmanager
async def gateway(
    folder: Path, upstream: str, *, core: int, proxy: str | None = None, works: bool = True
) -> AsyncIterator[Gateway]:
    """Start the gateway on a fresh data folder, with tokens for `upstream` and two client keys."""
    admin_key = secrets.token_urlsafe(36)
    options = () if works else ("--no-worker",)
    environment = {
        "GROKPOOL_DATA_DIR": str(folder / "data"),
        "GROKPOOL_ADMIN_KEY": admin_key,
        "GROKPOOL_SERVER__PORT": "0",
        "GROKPOOL_UPSTREAM__XAI__BASE_URL": upstream,
        "GROKPOOL_JOBS__MAX_IN_FLIGHT": str(TOKENS * SLOTS),
        "GROKPOOL_LOG__FORMAT": "json",
    }
    log = folder / "gateway.log"
    async with program("benchmarks.subject", *options, core=core, log=log, environment=environment) as running:
        async with Admin(running.url, admin_key) as admin:
            if proxy is not None:
                await admin.create("proxies", {"url": proxy})
            for number in range(TOKENS):
                secret = f"xai-benchmark-{number:04}-{'0' * 32}"
                await admin.create("tokens", {"driver": "xai", "secret": secret, "concurrency": SLOTS})
            key = await admin.create("keys", {"name": "free", "requests_per_minute": None, "concurrency": None})
            limited = await admin.create("keys", {"name": "limited", "requests_per_minute": 1, "concurrency": None})
        yield Gateway(running, key["key"], limited["key"])


class Admin:
    """The admin API of a gateway."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._session = ClientSession(headers={"Authorization": f"Bearer {key}"}, timeout=ClientTimeout(total=30))

    async def __aenter__(self) -> "Admin":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def create(self, noun: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/admin/{noun}", json=body) as response:
            answer: dict[str, Any] = await response.json()
            if response.status != 201:
                raise NotStarted(f"{noun}: {response.status} {answer}")
            return answer
