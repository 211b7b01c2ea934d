"""The HTTP server under the application: what aiohttp answers before any handler, and how many connections it takes."""

import secrets
from asyncio import BaseTransport
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import hdrs, http_parser, web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

REQUEST_ID_BYTES = 16


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
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = {"message": "无效的HTTP请求", "type": "validation_error", "code": "bad_request"}
        else:
            error = {"message": "服务器内部错误", "type": "internal_error", "code": "internal_server_error"}
            self.log_exception("Error handling request", exc_info=exc)
        headers = {"x-request-id": "req_" + secrets.token_hex(REQUEST_ID_BYTES), hdrs.CONNECTION: "close"}
        response = web.Response(
            body=orjson.dumps({"error": error}), status=status, headers=headers, content_type="application/json"
        )
        response.force_close()
        return response


class GatewayServer(Server):
    max_connections: int

    def __call__(self) -> RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on a `GatewayServer`."""

    def __init__(self, app: web.Application, *, max_connections: int, **options: Any) -> None:
        super().__init__(app, access_log=None, handle_signals=False, **options)
        self._max_connections = max_connections

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        server = GatewayServer(made.request_handler, request_factory=made.request_factory, **self._kwargs)
        server.max_connections = self._max_connections
        return server


def require_c_parser() -> None:
    """Raises `RuntimeError` where aiohttp runs without its C parser: slower, and lenient in other ways."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp's C extension is missing on this machine; install a wheel of it")
