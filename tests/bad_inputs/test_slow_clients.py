"""Clients that are slow on purpose, many at a time. They are sent away within the limits, the gateway answers others
meanwhile, and when they are gone it holds no more than before."""

import asyncio
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.bad_inputs import corpus
from tests.bad_inputs.conftest import BODY_GRACE, HEAD_SECONDS
from tests.bad_inputs.running import GENERATIONS, Running

LINGERING = 10.0  # seconds that aiohttp lets a refused body run on before it closes the connection
HEALTHY = 0.25  # seconds: the slowest answer but one in a hundred of /healthz meanwhile
SLACK = 1.05
ALLOCATED = 24 * 1024 * 1024  # bytes that the allocator keeps after the first crowd, and uses for the next
RECEIVE_BUFFER = 4096
LARGE = 16 * 1024 * 1024  # bytes of a file that no kernel takes off the gateway's hands
READERS = 12  # descriptors of the database's readers, which are opened when needed, and kept

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Scenario = Callable[[Running, int], Awaitable[None]]


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """2,000 connections have 2,000 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def head(running: Running, *more: str) -> bytes:
    """Return the head of an order whose body is to come."""
    lines = [
        f"POST {GENERATIONS} HTTP/1.1",
        f"Host: {running.base}",
        f"Authorization: Bearer {running.ctx['KEY_A']}",
        "Content-Type: application/json",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def _idle(running: Running, count: int) -> None:
    """Connect and say nothing."""
    async with connected(running, count) as streams:
        answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
    assert set(answers) == {b""}


async def _slow_head(running: Running, count: int) -> None:
    """Send the head a byte at a time."""

    async def drip(stream: Stream) -> bytes:
        return await dripping(stream, [bytes([byte]) for byte in head(running)], 0.2)

    async with connected(running, count) as streams:
        answers = await asyncio.gather(*map(drip, streams))
    assert set(answers) == {b""}


async def _slow_body(running: Running, count: int) -> None:
    """Send the body a byte at a time; one in five, of unknown length, at 1 KiB/s."""
    chunk = b"100\r\n" + b" " * 0x100 + b"\r\n"
    by_length = [head(running, "Content-Length: 1000"), *[b" "] * 1000]
    by_chunk = [head(running, "Transfer-Encoding: chunked"), *[chunk] * 1000]

    async def drip(number: int, stream: Stream) -> bytes:
        return await dripping(stream, by_length if number % 5 else by_chunk, 0.25)

    async with connected(running, count) as streams:
        answers = await asyncio.gather(*(drip(number, stream) for number, stream in enumerate(streams)))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}


async def _half_rst(running: Running, count: int) -> None:
    """Send half a request and break the connection."""
    half = head(running, "Content-Length: 1000") + b'{"image_url":'
    for _ in range(0, count, 100):
        async with connected(running, 100) as streams:
            for _, writer in streams:
                writer.write(half)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.gather(*(writer.drain() for _, writer in streams))
            for _, writer in streams:
                writer.transport.abort()


SCENARIOS: dict[str, tuple[Scenario, int, float]] = {
    "idle": (_idle, 2000, HEAD_SECONDS),
    "slow_head": (_slow_head, 200, HEAD_SECONDS),
    "slow_body, endless_chunked": (_slow_body, 250, BODY_GRACE + LINGERING),
    "half_rst": (_half_rst, 1000, 0.0),
}
"""By the corpus's names: what the clients do, how many they are, and the seconds after which they must be gone."""


@pytest.mark.parametrize("name", SCENARIOS)
async def test_slow_clients_are_sent_away(running: Running, name: str) -> None:
    play, count, limit = SCENARIOS[name]
    descriptors, memory = running.descriptors(), running.resident()
    async with looking_at_its_health(running) as seconds:
        async with asyncio.timeout(limit + 8):
            await play(running, count)
    assert percentile(seconds, 0.99) < HEALTHY
    await eventually(lambda: running.descriptors() <= descriptors * SLACK + READERS)
    assert running.resident() <= memory * SLACK + ALLOCATED


class TestSlowDownloads:
    """A signed link needs no key, so whoever has one may try to hold connections and files open."""

    @pytest.fixture
    def link(self, running: Running) -> str:
        """A link to a large file, which the gateway takes for a short film: there is little time to fetch it."""
        running.fixture()
        link = urlsplit(running.generate(running.ctx["GOOD_IMG"]).json["video_url"])
        (kept,) = (running.ctx_file.parent / "media").glob(f"*/{Path(link.path).stem}")
        os.truncate(kept, LARGE)
        return f"{link.path}?{link.query}"

    async def test_a_reader_that_dawdles_is_cut_off(self, running: Running, link: str) -> None:
        descriptors = running.descriptors()
        async with looking_at_its_health(running) as seconds, asyncio.timeout(BODY_GRACE + 10):
            received = await asyncio.gather(*[dawdle(running, link) for _ in range(100)])
        assert max(received) < LARGE
        assert percentile(seconds, 0.99) < HEALTHY
        await eventually(lambda: running.descriptors() <= descriptors * SLACK + READERS)

    async def test_a_reader_that_does_not_is_served(self, running: Running, link: str) -> None:
        async with connected(running, 1) as ((reader, writer),):
            writer.write(ask_for(link))
            assert len((await reader.read()).partition(b"\r\n\r\n")[2]) == LARGE


@corpus.needed
def test_the_corpus_has_no_other_slow_client() -> None:
    modes = {case["scenario"]["mode"] for case in corpus.cases("conn")}
    assert modes <= {"slow_read", *", ".join(SCENARIOS).split(", ")}


@asynccontextmanager
async def connected(running: Running, count: int) -> AsyncIterator[list[Stream]]:
    """Open connections, and leave none of them open."""
    streams: list[Stream] = []
    try:
        while len(streams) < count:
            streams.append(await asyncio.open_connection(*running.address))
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()
        await asyncio.sleep(0)


async def dripping(stream: Stream, pieces: list[bytes], pause: float) -> bytes:
    """Send the pieces one after the other, until the other side closes; return what it said."""
    reader, writer = stream
    answer = asyncio.ensure_future(read_all(reader))
    for piece in pieces:
        writer.write(piece)
        if (await asyncio.wait([answer], timeout=pause))[0]:
            break
    return await answer


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Return what came before the end, be it a reset: that is how a connection ends on which more was still coming."""
    answer = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            answer += piece
    return answer


def ask_for(link: str) -> bytes:
    return f"GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


async def dawdle(running: Running, link: str) -> int:
    """Fetch a file at 1 KiB/s until the connection ends; return the bytes that came."""
    loop, received = asyncio.get_running_loop(), 0
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        raw.setblocking(False)
        await loop.sock_connect(raw, running.address)
        await loop.sock_sendall(raw, ask_for(link))
        with suppress(ConnectionError):
            while piece := await loop.sock_recv(raw, 256):
                received += len(piece)
                await asyncio.sleep(0.25)
    return received


@asynccontextmanager
async def looking_at_its_health(running: Running) -> AsyncIterator[list[float]]:
    """Ask for /healthz all the time; give the seconds that the answers take."""
    seconds: list[float] = []

    async def look() -> None:
        while True:
            began = time.monotonic()
            async with connected(running, 1) as ((reader, writer),):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.05)

    looking = asyncio.ensure_future(look())
    try:
        yield seconds
        assert not looking.done(), looking.exception()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something to become true of another process, by looking."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share) - 1] if values else 0.0
