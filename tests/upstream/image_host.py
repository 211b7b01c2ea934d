"""A web server for images on a loopback address of its own, and a resolver with scripted answers."""

import asyncio
import gzip
from collections.abc import Sequence
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.upstream.certificates import Authority

HOST = "127.0.0.8"  # the one loopback address that the fetcher's tests allow; 127.0.0.1 stands for the inside
PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


class ImageHost:
    """Answers on HOST, in clear and as `img.example` and `b.example` over TLS. It notes what it was asked for."""

    def __init__(self, trusted: Authority) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.peak = 0  # most requests at a time
        self._running = 0
        self.port = 0
        self.secure_port = 0
        self._context = trusted.context("img.example", "b.example")
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/to", self._to)
        app.router.add_get("/hops", self._hops)
        app.router.add_get("/chunked", self._chunked)
        app.router.add_get("/silent", self._silent)
        app.router.add_get("/gzip", self._gzip)
        app.router.add_get("/cut", self._cut)
        app.router.add_get("/refresh", self._refresh)
        app.router.add_get("/{any:.*}", self._image)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        await web.TCPSite(self._runner, HOST, 0, ssl_context=self._context).start()
        self.port, self.secure_port = (address[1] for address in self._runner.addresses)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.paths.append(request.raw_path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self._running += 1
        self.peak = max(self.peak, self._running)
        try:
            return await handler(request)
        finally:
            self._running -= 1

    async def _image(self, request: web.Request) -> web.StreamResponse:
        """`?status=` and `?size=` change what is answered."""
        body = bytes(int(request.query["size"])) if "size" in request.query else PNG
        headers = {"Content-Type": "image/png", "Set-Cookie": "a=1"}
        return web.Response(status=int(request.query.get("status", 200)), body=body, headers=headers)

    async def _to(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=int(request.query.get("status", 302)), headers={"Location": request.query["l"]})

    async def _hops(self, request: web.Request) -> web.StreamResponse:
        left = int(request.query["n"])
        return web.Response(status=302, headers={"Location": f"/hops?n={left - 1}" if left else "/a.png"})

    async def _chunked(self, request: web.Request) -> web.StreamResponse:
        """Send `?size=` bytes without saying so, `?piece=` at a time with a `?pause=` in seconds."""
        size, piece = int(request.query["size"]), int(request.query.get("piece", 65536))
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for sent in range(0, size, piece):
            await response.write(bytes(min(piece, size - sent)))
            await asyncio.sleep(float(request.query.get("pause", 0)))
        return response

    async def _silent(self, _request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async def _gzip(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(PNG), headers={"Content-Encoding": "gzip"})

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nxx")
        request.transport.close()
        return web.Response()

    async def _refresh(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="<meta http-equiv=refresh>", headers={"Refresh": "0;url=http://127.0.0.1/"})


class Names:
    """A resolver. `answers` has for each name a list, one entry per look-up, the last for good."""

    def __init__(self, answers: dict[str, list[Sequence[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answers = self.answers.get(name)
        if answers is None:
            raise OSError(f"no such name: {name}")
        return answers.pop(0) if len(answers) > 1 else answers[0]
