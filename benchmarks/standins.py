"""Upstreams on loopback, written on bare protocols so that they are never what is slow.

`Constant` answers everything with one JSON body. `Xai` makes videos of set lengths, reports a noisy progress, and
keeps the ledger from which the figures are made.
"""

import asyncio
import random
import re
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import orjson

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NUMBER = re.compile(rb'"prompt": ?"job (\d+)"')
HEAD_END = b"\r\n\r\n"
ANSWER = orjson.dumps({"id": "video-1", "object": "video", "text": "x" * 537})  # 581 bytes
KILOBYTE, MEGABYTE = 1024, 1024 * 1024
SMALL_VIDEO = 4 * KILOBYTE
NOISE = 0.2  # the reported progress is off by up to this share of itself
HURRY = 0.2  # seconds of a job that is only to warm up
SPREAD = 1 / 3  # a job takes its mean length, give or take up to this share of it


class Server(asyncio.Protocol):
    """One HTTP/1.1 connection that is kept alive. `answer` maps a request (head, body) to a whole answer."""

    def __init__(self, answer: Callable[[bytes, bytes], bytes]) -> None:
        self._answer = answer
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but in name

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := message_end(self._buffer)) is not None:
            message = bytes(self._buffer[:end])
            del self._buffer[:end]
            head, _, body = message.partition(HEAD_END)
            self._transport.write(self._answer(head, body))


def message_end(buffer: bytearray) -> int | None:
    """Return the length of the first whole message in `buffer`; None while it is not all there."""
    head = buffer.find(HEAD_END)
    if head < 0:
        return None
    length = LENGTH.search(buffer, 0, head)
    end = head + len(HEAD_END) + (int(length[1]) if length else 0)
    return end if len(buffer) >= end else None


def answer(body: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


@asynccontextmanager
async def serving(handle: Callable[[bytes, bytes], bytes]) -> AsyncIterator[int]:
    """Serve on a free port of loopback; give the port."""
    server = await asyncio.get_running_loop().create_server(lambda: Server(handle), "127.0.0.1", 0, backlog=4096)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def constant() -> Callable[[bytes, bytes], bytes]:
    whole = answer(ANSWER)
    return lambda _head, _body: whole


@dataclass(slots=True)
class Flight:
    """One job as the stand-in knows it; moments are of the monotonic clock."""

    number: int
    submitted_at: float
    ends_at: float
    polls: int = 0
    told_at: float | None = None  # when a poll was first answered with "done"
    fetched_at: float | None = None

    def progress(self, now: float) -> int:
        share = (now - self.submitted_at) / (self.ends_at - self.submitted_at)
        return int(min(99.0, 100 * share * random.uniform(1 - NOISE, 1 + NOISE)))


class Xai:
    """The API of `upstream.xai`, for orders whose prompts are `job N`. One video in `large_every` has 5 MB."""

    def __init__(self, seconds: float, large_every: int) -> None:
        self.flights: dict[int, Flight] = {}  # by the number in the prompt
        self.hurried = False  # jobs take a moment
        self.port = 0
        self._seconds = seconds
        self._large_every = large_every
        self._lengths = random.Random(1)
        self._small = answer(_mp4(SMALL_VIDEO), kind=b"video/mp4")
        self._large = answer(_mp4(5 * MEGABYTE), kind=b"video/mp4")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Xai"]:
        async with serving(self.handle) as port:
            self.port = port
            yield self

    def handle(self, head: bytes, body: bytes) -> bytes:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            return self._submit(body)
        number = int(path.rpartition(b"/")[2].removesuffix(b".mp4"))
        flight = self.flights[number]
        return self._video(flight) if path.endswith(b".mp4") else self._state(flight)

    def _submit(self, body: bytes) -> bytes:
        found = NUMBER.search(body)
        assert found is not None
        number, now = int(found[1]), time.monotonic()
        length = HURRY if self.hurried else self._seconds * self._lengths.uniform(1 - SPREAD, 1 + SPREAD)
        self.flights[number] = Flight(number, now, now + length)
        return answer(b'{"request_id":"%d"}' % number)

    def _state(self, flight: Flight) -> bytes:
        now = time.monotonic()
        flight.polls += 1
        if now < flight.ends_at:
            return answer(b'{"status":"pending","progress":%d}' % flight.progress(now), b"202 Accepted")
        flight.told_at = flight.told_at or now
        video = {"url": f"http://127.0.0.1:{self.port}/media/{flight.number}.mp4", "respect_moderation": True}
        return answer(orjson.dumps({"status": "done", "video": video | {"duration": 6}}))

    def _video(self, flight: Flight) -> bytes:
        flight.fetched_at = time.monotonic()
        return self._large if flight.number % self._large_every == 0 else self._small


def _mp4(size: int) -> bytes:
    """Return `size` bytes in the boxes of an MP4 file without a picture."""
    head = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp41")
    return head + struct.pack(">I4s", size - len(head), b"free") + bytes(size - len(head) - 8)
