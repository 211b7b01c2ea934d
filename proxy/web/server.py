"""The HTTP server under the application: what aiohttp answers before any handler, and how many connections it takes."""

import secrets
import socket
import struct
from asyncio import BaseTransport
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from aiohttp import HttpVersion11, hdrs, http_parser, web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

BACKLOG = 1024  # connections that wait to be taken
REQUEST_ID_BYTES = 16
CONTINUE = "100-continue"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Protocol(RequestHandler):
    """One connection. What is no HTTP gets the envelope and an id, is echoed nowhere, and ends the connection."""

    __slots__ = ()

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        server = self._manager
        if isinstance(server, GatewayServer) and len(server.connections) > server.max_connections:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log_exception("Error handling request", exc_info=exc)
        return refusal(status)


def refusal(status: int) -> web.Response:
    """Return the answer to a request that reached no handler. Its connection ends with it."""
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        error = {"message": "无效的HTTP请求", "type": "validation_error", "code": "bad_request"}
    else:
        error = {"message": "服务器内部错误", "type": "internal_error", "code": "internal_server_error"}
    headers = {"x-request-id": "req_" + secrets.token_hex(REQUEST_ID_BYTES), hdrs.CONNECTION: "close"}
    body = orjson.dumps({"error": error})
    response = web.Response(body=body, status=status, headers=headers, content_type="application/json")
    response.force_close()
    return response


def strict(handle: Handler) -> Handler:
    """Refuse what aiohttp would let pass, or answer by repeating it."""

    async def checked(request: web.BaseRequest) -> web.StreamResponse:
        if request.version < HttpVersion11 and hdrs.TRANSFER_ENCODING in request.headers:
            return refusal(HTTPStatus.BAD_REQUEST)  # where it ends is not agreed upon (RFC 9112, section 6.1)
        if request.headers.get(hdrs.EXPECT, CONTINUE).lower() != CONTINUE:
            return refusal(HTTPStatus.EXPECTATION_FAILED)
        return await handle(request)

    return checked


def reset(request: web.BaseRequest) -> None:
    """End a request's connection at once, with what the kernel still holds for a client that does not take it."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


class GatewayServer(Server):
    max_connections: int

    def __call__(self) -> RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on a `GatewayServer`."""

    def __init__(self, app: web.Application, *, max_connections: int, **options: Any) -> None:
        # Bodies are read as they come: an encoded one is refused, so no bomb is ever unpacked.
        super().__init__(app, access_log=None, handle_signals=False, auto_decompress=False, **options)
        self._max_connections = max_connections

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        handler = strict(made.request_handler)
        server = GatewayServer(handler, request_factory=made.request_factory, **self._kwargs)
        server.max_connections = self._max_connections
        return server


def bind(host: str, port: int) -> socket.socket:
    """Take a port; 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


async def listen(runner: web.AppRunner, door: Path, listener: socket.socket | None) -> None:
    """Listen on the socket file `door`, which only its owner may open, and on `listener`."""
    remove(door)
    await web.UnixSite(runner, str(door)).start()
    protect(door)
    if listener is not None:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()


def remove(door: Path) -> None:
    door.unlink(missing_ok=True)


def protect(door: Path) -> None:
    """Let only the owner in. Until here the folder around it has kept the others out."""
    door.chmod(0o600)


def require_c_parser() -> None:
    """Raises `RuntimeError` where aiohttp runs without its C parser: slower, and lenient in other ways."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp's C extension is missing on this machine; install a wheel of it")
