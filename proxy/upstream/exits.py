"""A way out of the gateway: a proxy or none, with the session that is kept alive through it."""

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace

from aiohttp import (
    ClientSession,
    DummyCookieJar,
    TCPConnector,
    TraceConfig,
    TraceConnectionCreateEndParams,
    TraceConnectionReuseconnParams,
)

from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.tunnel import Tunnel

IDLE_CONNECTION = 15.0  # seconds; well below what servers allow, so that no request meets a connection being closed
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "grokpool"}
READ_BUFFER = 256 * 1024  # bytes


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the one context for all connections: verification on, the system's authorities and those of `ca_file`."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    return context


def dress(clearance: Secret | None, user_agent: str | None) -> dict[str, str]:
    """Return the headers of a proxy's clearance: the value of `cf_clearance`, or a whole cookie string."""
    headers = {}
    if clearance:
        value = clearance.reveal()
        headers["Cookie"] = value if "=" in value.rstrip("=") else f"cf_clearance={value}"
    if user_agent:
        headers["User-Agent"] = user_agent
    return headers


class Connected:
    """Whether a request has had a connection: from then on it may have been written."""

    yet = False


class Exit:
    """One way out. `headers` are its clearance's; no connection is made before the first use."""

    def __init__(self, address: Address | None, headers: Mapping[str, str], context: ssl.SSLContext) -> None:
        self._address = address
        self._headers = headers
        self._context = context
        self._session: ClientSession | None = None
        self._running = 0
        self._retired = False

    def dressed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers with the exit's own; its cookie joins one that is there."""
        dressed = {**headers, **self._headers}
        if "Cookie" in headers and "Cookie" in self._headers:
            dressed["Cookie"] = f"{headers['Cookie']}; {self._headers['Cookie']}"
        return dressed

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[ClientSession, None]:
        """Lend the session, for requests whose `trace_request_ctx` is a `Connected`.

        The last user of a retired exit closes it.
        """
        if self._session is None:
            self._session = ClientSession(
                connector=self._connector(),
                cookie_jar=DummyCookieJar(),
                headers=HEADERS,
                trust_env=False,
                trace_configs=[_witness()],
                read_bufsize=READ_BUFFER,
            )
        self._running += 1
        try:
            yield self._session
        finally:
            self._running -= 1
            if self._retired and not self._running:
                await self.close()

    async def retire(self) -> None:
        """Close the exit as soon as nothing runs through it."""
        self._retired = True
        if not self._running:
            await self.close()

    async def close(self) -> None:
        """Close the exit's connections, running exchanges included."""
        if self._session:
            await self._session.close()

    def _connector(self) -> TCPConnector:
        # No limit of its own: how many may run at a time is the pool's to say.
        if self._address:
            return Tunnel(self._address, self._context, limit=0, keepalive_timeout=IDLE_CONNECTION)
        return TCPConnector(ssl=self._context, limit=0, keepalive_timeout=IDLE_CONNECTION)


def _witness() -> TraceConfig:
    async def connected(
        _session: ClientSession,
        context: SimpleNamespace,
        _params: TraceConnectionCreateEndParams | TraceConnectionReuseconnParams,
    ) -> None:
        context.trace_request_ctx.yet = True

    trace = TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace
