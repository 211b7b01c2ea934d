"""A web server that a client might name as the home of its image: it answers as its rules say, or misbehaves."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.bad_inputs import corpus
from tests.services.image_cases import picture

ADDRESS = "127.0.0.8"  # the one loopback address that the gateway under test may fetch from
GOOD = picture("PNG", (8, 8))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"

Rule = Mapping[str, Any]
"""`path`, and `status`, `headers`, `ct` (one Content-Type, several, or None), `body` or `gen`; or a `behaviour`."""


class Exchange:
    """One request to the host, and the connection its answer goes out on."""

    def __init__(self, target: str, rule: Rule, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.query = dict(parse_qsl(urlsplit(target).query))
        self.path = urlsplit(target).path
        self.rule = rule
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def repeat(self, data: bytes, pause: float = 0) -> None:
        """Send `data` again and again, until the client has enough."""
        while True:
            await self.send(data)
            await asyncio.sleep(pause)

    async def wait(self) -> None:
        """Say nothing until the client leaves."""
        await self.reader.read()

    def reset(self) -> None:
        """End the connection by RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def _countdown_redirect(to: Exchange) -> None:
    left = int(to.query.get("n", 0))
    further = f"{to.path}?{urlencode({**to.query, 'n': left - 1})}"
    location = further if left else str(to.rule.get("end", "/good.png"))
    await to.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode() + b"\r\n\r\n")


async def _silent(to: Exchange) -> None:
    await to.wait()


async def _drip(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    await to.repeat(b"\x89", 0.2)


async def _drip_head(to: Exchange) -> None:
    await to.repeat(b"H", 0.2)


async def _endless_head(to: Exchange) -> None:
    await to.send(b"HTTP/1.1 200 OK\r\n")
    await to.repeat(b"X-A: " + b"a" * 1000 + b"\r\n")


async def _interim(to: Exchange) -> None:
    await to.repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.01)


async def _reset(to: Exchange) -> None:
    to.reset()


async def _reset_midway(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Length: 1000\r\n\r\n" + GOOD[:40])
    to.reset()


async def _cut(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Length: 1000\r\n\r\n" + GOOD)


async def _cut_chunk(to: Exchange) -> None:
    await to.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"40\r\n" + GOOD)


async def _endless(to: Exchange) -> None:
    await to.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await to.repeat(b"10000\r\n" + bytes(0x10000) + b"\r\n")


async def _huge_length(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Length: 1000000000000\r\n\r\n")
    await to.wait()


async def _two_lengths(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)


async def _no_http(to: Exchange) -> None:
    await to.send(b"\x16\x03\x01\x02\x00" + bytes(512))


async def _old_http(to: Exchange) -> None:
    await to.send(GOOD)


async def _compressed(to: Exchange) -> None:
    await to.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD)


async def _split_answer(to: Exchange) -> None:
    """Answer twice to one request: the second answer must be nobody's."""
    await to.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nxx")


BEHAVIOURS: dict[str, Behaviour] = {
    "countdown_redirect": _countdown_redirect,
    "silent": _silent,
    "drip": _drip,
    "drip_head": _drip_head,
    "endless_head": _endless_head,
    "interim": _interim,
    "reset": _reset,
    "reset_midway": _reset_midway,
    "cut": _cut,
    "cut_chunk": _cut_chunk,
    "endless": _endless,
    "huge_length": _huge_length,
    "two_lengths": _two_lengths,
    "no_http": _no_http,
    "old_http": _old_http,
    "compressed": _compressed,
    "split_answer": _split_answer,
}


class ImageHost:
    """Answers on ADDRESS: port 80 in clear and 443 under a certificate that nobody vouches for; on other ports where
    those are not to be had."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.rules: list[Rule] = []
        self.port = 0
        self.secure_port = 0
        self._tls = tls
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        self.port = await self._listen(80, None)
        self.secure_port = await self._listen(443, self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> int:
        try:
            server = await asyncio.start_server(self._serve, ADDRESS, port, ssl=tls)
        except OSError:  # not permitted, or taken by another gateway under test
            server = await asyncio.start_server(self._serve, ADDRESS, 0, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ")[1].decode("latin-1")
            exchange = Exchange(target, self._rule(urlsplit(target).path), reader, writer)
            await BEHAVIOURS.get(str(exchange.rule.get("behaviour")), _as_the_rule_says)(exchange)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has had enough
        finally:
            writer.close()

    def _rule(self, path: str) -> Rule:
        for rule in self.rules:
            if rule["path"] == path:
                return rule
        good = path in ("/good.png", "/%67ood.png")
        return {"gen": {"kind": "png"}, "ct": "image/png"} if good else {"status": 404}


async def _as_the_rule_says(to: Exchange) -> None:
    body = _body(to.rule)
    types = to.rule.get("ct")
    lines = [f"HTTP/1.1 {to.rule.get('status', 200)} As told", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {each}" for each in (types if isinstance(types, list) else [types]) if each]
    lines += [f"{name}: {value}" for name, value in to.rule.get("headers", {}).items()]
    await to.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _body(rule: Rule) -> bytes:
    if "gen" not in rule:
        return str(rule.get("body", "")).encode()
    maker = corpus.generators()
    if rule["gen"] == {"kind": "png"} or maker is None:
        return GOOD
    made = maker.img(**rule["gen"])
    assert isinstance(made, bytes)
    return made
