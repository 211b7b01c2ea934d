"""What the xAI stand-in can be told to do with a call, and the record it keeps of each."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web


@dataclass(slots=True)
class Call:
    """One line of the ledger. Moments are of the machine's monotonic clock, which all its processes share."""

    number: int
    kind: str  # submit, poll, result, key
    method: str
    path: str
    token: str  # the bearer, or ""
    headers: dict[str, str]  # lower-case names
    at: float
    running: int  # unfinished jobs of this token when the call came
    body: Any = None  # parsed; an image's bytes are replaced by their size and SHA-256
    request_id: str | None = None
    status: int | None = None  # None: no answer was sent
    ended_at: float | None = None

    def line(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call while it is served. `as_asked` does what it asks for; `closing` is set when the server goes."""

    request: web.Request
    call: Call
    as_asked: Callable[[Call], Awaitable[web.StreamResponse]]
    closing: asyncio.Event

    async def read(self) -> None:
        self.call.body = described(await self.request.read())

    def reset(self) -> None:
        """Send a TCP reset instead of a proper end."""
        assert self.request.transport
        connection: socket.socket = self.request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.transport.abort()


class Step(Protocol):
    """One entry of a script: how one call ends."""

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        """Serve the call; return the answer, or None where none was sent."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Do as asked: a placeholder in a script."""

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        return await exchange.as_asked(exchange.call)


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with this, instead of doing what was asked. A dict or a list is sent as JSON, NaN and all."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        await asyncio.sleep(self.delay)
        body, headers = self.body, dict(self.headers)
        if isinstance(body, dict | list):
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(body)
        return web.Response(status=self.status, body=body.encode() if isinstance(body, str) else body, headers=headers)


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection: `early` before the body is read, `read` after it, `accepted` after the job was made."""

    when: str = "read"

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        if self.when != "early":
            await exchange.read()
        if self.when == "accepted":
            await exchange.as_asked(exchange.call)
        exchange.reset()
        return None


@dataclass(frozen=True, slots=True)
class Hang:
    """Read the request, then say nothing until the server closes. `accepted`: the job was made."""

    accepted: bool = False

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        if self.accepted:
            await exchange.as_asked(exchange.call)
        await exchange.closing.wait()
        exchange.reset()
        return None


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the head of an answer of `length` bytes, then a byte every `interval` seconds."""

    length: int = 1000
    interval: float = 0.05
    headers: Mapping[str, str] = field(default_factory=dict)

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        response = web.StreamResponse(headers={"Content-Type": "application/json", **self.headers})
        response.content_length = self.length
        await response.prepare(exchange.request)
        for _ in range(self.length):
            await response.write(b" ")
            await asyncio.sleep(self.interval)
        return response


@dataclass(frozen=True, slots=True)
class Raw:
    """Write these bytes to the connection, whatever they are, and close it."""

    data: bytes

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        assert exchange.request.transport
        exchange.request.transport.write(self.data)
        exchange.request.transport.close()
        return None


# The steps that a script in JSON can name.
NAMED: dict[str, Callable[..., Step]] = {"serve": Serve, "reply": Reply, "reset": Reset, "hang": Hang, "drip": Drip}


def described(content: bytes) -> Any:
    """Return the parsed body, the image in it replaced by its size and hash."""
    try:
        body = json.loads(content)
    except ValueError:
        return {"unparsed_bytes": len(content)} if content else None
    image = body.get("image") if isinstance(body, dict) else None
    if isinstance(image, dict) and str(image.get("url")).startswith("data:"):
        media_type, _, encoded = image["url"].removeprefix("data:").partition(";base64,")
        digest = hashlib.sha256(encoded.encode()).hexdigest()
        body["image"] = {"media_type": media_type, "base64_bytes": len(encoded), "base64_sha256": digest}
    return body


def mp4(size: int) -> bytes:
    """Return `size` bytes (at least 32) in the boxes of an MP4 file without a picture."""
    head = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp41")
    return head + struct.pack(">I4s", size - len(head), b"free") + bytes(size - len(head) - 8)
