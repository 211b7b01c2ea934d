"""Reading request bodies: bounded in size, in speed, and in what all of them together hold in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import hdrs, web

from proxy.domain.errors import (
    BodyMemoryFull,
    BodyTooLarge,
    BodyTooSlow,
    InvalidJson,
    UnsupportedMediaType,
)
from proxy.web.context import OPTIONS, WebOptions

MAX_DEPTH = 64  # of JSON
RETRY_AFTER = 2.0  # seconds, told to a client while the bodies' memory is taken


class BodyMemory:
    """The bytes of all request bodies in memory, bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Raises `BodyMemoryFull`."""
        if self.held + size > self._limit:
            raise BodyMemoryFull(RETRY_AFTER)
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


BODIES = web.AppKey("BODIES", BodyMemory)


@asynccontextmanager
async def body_of(request: web.Request) -> AsyncIterator[bytes]:
    """Give the request's body; its memory is accounted for until the block ends.

    Raises `UnsupportedMediaType` for an encoded body, `BodyTooLarge`, `BodyTooSlow`, `BodyMemoryFull`.
    """
    options, memory = request.app[OPTIONS], request.app[BODIES]
    if any(encoding.lower() != "identity" for encoding in request.headers.getall(hdrs.CONTENT_ENCODING, [])):
        raise UnsupportedMediaType
    if request.content_length is not None and request.content_length > options.max_body:
        raise BodyTooLarge(options.max_body)
    chunks: list[bytes] = []
    held = 0
    try:
        async for chunk in _chunks(request, options):
            memory.take(len(chunk))
            held += len(chunk)
            if held > options.max_body:
                raise BodyTooLarge(options.max_body)
            chunks.append(chunk)
        body = b"".join(chunks)
        chunks.clear()
        yield body
    finally:
        memory.give_back(held)


async def _chunks(request: web.Request, options: WebOptions) -> AsyncIterator[bytes]:
    """Yield the body as it comes. After a grace it must have come at the given rate. Raises `BodyTooSlow`."""
    clock = asyncio.get_running_loop().time
    began, received = clock(), 0
    while True:
        due = began + options.body_grace + received / options.body_rate
        try:
            async with asyncio.timeout_at(due):
                chunk = await request.content.readany()
        except TimeoutError:
            raise BodyTooSlow from None
        if not chunk:
            return
        received += len(chunk)
        yield chunk


def json_object(body: bytes) -> Any:
    """Read JSON (RFC 8259) strictly: UTF-8, no NaN, no lone surrogates, nested at most 64 deep; of duplicate names the
    last counts. Raises `InvalidJson`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidJson from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise InvalidJson
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    """Tell whether `value` nests deeper than `limit`, level by level: no recursion to run out of."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [item for item in each.values() if isinstance(item, dict | list)]
            elif isinstance(each, list):
                inner += [item for item in each if isinstance(item, dict | list)]
        if not inner:
            return False
        level = inner
    return True
