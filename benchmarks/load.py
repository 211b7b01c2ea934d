"""The load: raw connections that ask again and again, and clients that wait for one video each."""

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson
from PIL import Image

from benchmarks.standins import message_end

STATUS = slice(9, 12)  # of "HTTP/1.1 200 OK"
COMMENT = b"\xff\xfe"  # a JPEG's comment segment: weight that costs no decoding
SEGMENT = 60_000  # bytes of one comment


def request(method: str, url: str, key: str, body: bytes = b"", headers: str = "") -> bytes:
    """Return a whole request, `headers` with a line end after each."""
    host = urlsplit(url).netloc
    path = urlsplit(url).path
    lines = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n{headers}"
    if body:
        lines += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{lines}\r\n".encode() + body


def place_of(url: str) -> tuple[str, int]:
    place = urlsplit(url)
    return place.hostname or "", place.port or 80


def order(prompt: str, image_url: str) -> bytes:
    return orjson.dumps({"prompt": prompt, "image_url": image_url})


def picture(weight: int = 0) -> str:
    """Return a data URI with a JPEG of 64 × 64 pixels, and about `weight` bytes of comments."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(file, "JPEG")
    content = file.getvalue()
    comments = (COMMENT + (SEGMENT + 2).to_bytes(2) + b"." * SEGMENT) * (weight // SEGMENT)
    return "data:image/jpeg;base64," + base64.b64encode(content[:2] + comments + content[2:]).decode()


@dataclass(slots=True)
class Tally:
    """What came back: seconds until each answer, and answers with another status than was expected."""

    expected: bytes
    waits: list[float] = field(default_factory=list)
    surprises: list[bytes] = field(default_factory=list)

    def note(self, answer: bytes, seconds: float) -> None:
        if answer[STATUS] == self.expected:
            self.waits.append(seconds)
        else:
            self.surprises.append(answer)

    def require_none_else(self) -> None:
        """Raises `RuntimeError`: figures about the wrong answers are worse than none."""
        if self.surprises or not self.waits:
            raise RuntimeError(f"{len(self.surprises)} unexpected answers, like {self.surprises[:1]}")


class Asker(asyncio.Protocol):
    """One kept-alive connection that asks the same again as soon as it has its answer, until it is stopped."""

    def __init__(self, question: bytes, tally: Tally) -> None:
        self._question = question
        self._tally = tally
        self._buffer = bytearray()
        self._stopped = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but in name
        self._ask()

    def stop(self) -> None:
        self._stopped = True

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (end := message_end(self._buffer)) is None:
            return
        self._tally.note(bytes(self._buffer[:end]), time.perf_counter() - self._asked_at)
        del self._buffer[:end]
        if self._stopped:
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._stopped:
            self._tally.surprises.append(f"connection lost: {error}".encode())
        if not self.ended.done():
            self.ended.set_result(None)


async def ask_for(seconds: float, question: bytes, url: str, expected: bytes, connections: int) -> Tally:
    """Ask over some connections for some seconds. Raises `RuntimeError` when an answer is not the expected one."""
    loop = asyncio.get_running_loop()
    tally = Tally(expected)
    host, port = place_of(url)
    askers = [(await loop.create_connection(lambda: Asker(question, tally), host, port))[1] for _ in range(connections)]
    await asyncio.sleep(seconds)
    for asker in askers:
        asker.stop()
    await asyncio.wait([asker.ended for asker in askers])
    tally.require_none_else()
    return tally


class Waiter(asyncio.Protocol):
    """A client that asks for one video and waits for it, however long that takes."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._buffer = bytearray()
        self.answer: bytes | None = None
        self.answered_at: float | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but in name
        self._transport.write(self._question)
        self._question = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (end := message_end(self._buffer)) is not None:
            self.answered_at = time.monotonic()
            self.answer = bytes(self._buffer[:end])
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def has_video(self) -> bool:
        return self.answer is not None and self.answer[STATUS] == b"200"


class Crowd:
    """Clients that come one after another, evenly, so that a set number of them waits at any time."""

    def __init__(self, url: str, key: str, image_url: str) -> None:
        self._host, self._port = place_of(url)
        self._url, self._key, self._image_url = f"{url}/v1/videos/generations", key, image_url
        self.waiters: dict[int, Waiter] = {}
        self.refused: list[str] = []

    async def come(self, a_second: float, numbers: Iterator[int]) -> None:
        """Let clients come until this is cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as arrivals:
            began = loop.time()
            for count, number in enumerate(numbers):
                await asyncio.sleep(max(0.0, began + count / a_second - loop.time()))
                arrivals.create_task(self.ask(number))

    async def ask(self, number: int) -> None:
        body = order(f"job {number}", self._image_url)
        waiter = Waiter(request("POST", self._url, self._key, body))
        try:
            await asyncio.get_running_loop().create_connection(lambda: waiter, self._host, self._port)
        except OSError as error:
            self.refused.append(str(error))
            return
        self.waiters[number] = waiter
