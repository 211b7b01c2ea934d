"""Exchanges with upstreams, direct or through a proxy: one kept-alive session per way out."""

import errno
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientResponseError,
    ClientTimeout,
)
from yarl import URL

from proxy.domain.outcomes import Phase, Signal, Trouble, UpstreamFailed
from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.exits import Connected, Exit, dress, tls_context
from proxy.upstream.tunnel import TunnelFailed

MIB = 1024 * 1024
EVIDENCE = 64 * 1024  # bytes of a body that a signal keeps
VIDEO_TYPES = ("video/", "application/octet-stream", "binary/octet-stream")
NOTHING: Mapping[str, str] = MappingProxyType({})
UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # in a header's value
RESETS = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds."""

    connect: float = 15.0  # to the proxy, through it, TLS included
    answer: float = 120.0  # one whole exchange
    idle: float = 30.0  # between two pieces of a download
    download: float = 180.0  # one whole download


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, or as much of its body as was wanted (`truncated`)."""

    status: int
    headers: Mapping[str, str]  # lower-case names; of repeated ones the last
    body: bytes
    truncated: bool = False

    def signal(self, trouble: Trouble | None = None, detail: str = "") -> Signal:
        return Signal(Phase.ANSWERED, self.status, self.headers, self.body[:EVIDENCE], trouble, detail)


def place(host: str) -> str:
    """Return `host:port` of a setting's `host[:port]`; the port is 443 where none stands."""
    return place_of(URL(f"https://{host}"))


def place_of(url: URL) -> str:
    return f"{url.raw_host}:{url.port}"


class Transport:
    """All ways out. Certificates are always verified, redirects never followed, a POST never sent twice.

    `clearance_hosts` (`host[:port]`) are the upstreams that see a proxy's clearance cookie and User-Agent.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        clearance_hosts: Collection[str] = (),
        timeouts: Timeouts | None = None,
    ) -> None:
        self._context = tls_context(ca_file)
        self._clearance_places = frozenset(map(place, clearance_hosts))
        self._timeouts = timeouts or Timeouts()
        self._exits: dict[str | None, Exit] = {None: Exit(None, {}, self._context)}

    async def put_proxy(
        self, proxy_id: str, address: Address, clearance: Secret | None = None, user_agent: str | None = None
    ) -> None:
        """Add a proxy, or replace it: exchanges that run through the old one finish there."""
        old = self._exits.get(proxy_id)
        self._exits[proxy_id] = Exit(address, dress(clearance, user_agent), self._context)
        if old:
            await old.retire()

    async def drop_proxy(self, proxy_id: str) -> None:
        """Forget a proxy; exchanges that run through it finish."""
        if old := self._exits.pop(proxy_id, None):
            await old.retire()

    async def close(self) -> None:
        """Close every connection, at once."""
        exits = list(self._exits.values())
        self._exits.clear()
        for way in exits:
            await way.close()

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        proxy_id: str | None,
        headers: Mapping[str, str] = NOTHING,
        body: bytes | None = None,
        timeout: float | None = None,
        max_bytes: int = MIB,
    ) -> Answer:
        """Send one request and read its answer, of any status, up to `max_bytes`.

        Raises `UpstreamFailed` for anything short of a status with its body. A refusal (not 2xx) whose body breaks off
        is an answer all the same: its status is a fact.
        """
        times = ClientTimeout(total=timeout or self._timeouts.answer, **self._connecting())
        async with self._open((method, url), proxy_id, headers, body, times) as response:
            content, truncated = await _read(response, max_bytes)
            return Answer(response.status, _headers(response), content, truncated)

    @asynccontextmanager
    async def download(
        self,
        url: str,
        *,
        proxy_id: str | None,
        headers: Mapping[str, str] = NOTHING,
        media_types: Collection[str] = VIDEO_TYPES,
        max_bytes: int = 200 * MIB,
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Open `url` and hand out its bytes as they come. `media_types` are the beginnings of those accepted.

        Raises `UpstreamFailed`, as does the iterator: a status other than 200, another type, more than `max_bytes`,
        a pause or a whole that takes too long, an early end.
        """
        times = ClientTimeout(total=self._timeouts.download, sock_read=self._timeouts.idle, **self._connecting())
        async with self._open(("GET", url), proxy_id, headers, None, times) as response:
            if response.status != 200:
                content, truncated = await _read(response, EVIDENCE)
                raise UpstreamFailed(Answer(response.status, _headers(response), content, truncated).signal())
            if not response.headers.get("Content-Type", "").lower().startswith(tuple(media_types)):
                raise UpstreamFailed(_unusable(response, "the result is of another media type"))
            async with aclosing(_pieces(response, max_bytes)) as pieces:
                yield pieces

    def _connecting(self) -> dict[str, float]:
        return {"connect": self._timeouts.connect, "sock_connect": self._timeouts.connect}

    @asynccontextmanager
    async def _open(
        self,
        request: tuple[str, str],
        proxy_id: str | None,
        headers: Mapping[str, str],
        body: bytes | None,
        times: ClientTimeout,
    ) -> AsyncGenerator[ClientResponse, None]:
        way = self._exits.get(proxy_id)
        if way is None:
            raise _unsent(Trouble.CONNECT, "the proxy is not here any more")
        method, url = request[0], URL(request[1], encoded=True)
        if place_of(url) in self._clearance_places:
            headers = way.dressed(headers)
        if any(map(UNSENDABLE.search, headers.values())):
            raise _unsent(Trouble.MALFORMED, "a header has a control character")
        connected = Connected()
        async with way.session() as session:
            with _translated(connected):
                response = await session.request(
                    method,
                    url,
                    headers=headers,
                    data=None if body is None else BytesIO(body),  # written piece by piece, whatever its size
                    allow_redirects=False,
                    timeout=times,
                    trace_request_ctx=connected,
                )
            async with response:
                yield response


async def _read(response: ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """Read up to `max_bytes`; return them, and whether there was more or the rest did not come."""
    content = bytearray()
    try:
        with _translated(None, response):
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > max_bytes:
                    return bytes(content[:max_bytes]), True
    except UpstreamFailed:
        if 200 <= response.status < 300:
            raise
        return bytes(content), True
    return bytes(content), False


async def _pieces(response: ClientResponse, max_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    pieces = response.content.iter_chunked(4 * EVIDENCE)
    while True:
        with _translated(None, response):
            piece = await anext(pieces, b"")
        if not piece:
            return
        size += len(piece)
        if size > max_bytes:
            raise UpstreamFailed(_unusable(response, f"the result is larger than {max_bytes} bytes"))
        yield piece


def _unsent(trouble: Trouble, detail: str) -> UpstreamFailed:
    return UpstreamFailed(Signal(Phase.BEFORE, trouble=trouble, detail=detail))


def _headers(response: ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _unusable(response: ClientResponse, detail: str) -> Signal:
    return Signal(Phase.ANSWERED, response.status, _headers(response), trouble=Trouble.MALFORMED, detail=detail)


@contextmanager
def _translated(connected: Connected | None, response: ClientResponse | None = None) -> Iterator[None]:
    """Turn every failure of the network into `UpstreamFailed`; the cause is not chained, it may hold a signed URL."""
    try:
        yield
    except TunnelFailed as error:
        raise UpstreamFailed(Signal(Phase.BEFORE, trouble=error.trouble, detail=error.detail)) from None
    except (ClientError, OSError, EOFError, ValueError) as error:
        phase = Phase.BEFORE if connected and not connected.yet else Phase.AFTER
        status, headers = (response.status, _headers(response)) if response else (None, NOTHING)
        raise UpstreamFailed(Signal(phase, status, headers, b"", _trouble(error), _detail(error))) from None


def _trouble(error: BaseException) -> Trouble:
    if any(isinstance(link, ssl.SSLError) for link in _chain(error)):
        return Trouble.TLS
    if isinstance(error, TimeoutError):
        return Trouble.TIMEOUT
    if isinstance(error, ClientPayloadError | ClientResponseError | ValueError):
        return Trouble.MALFORMED
    if isinstance(error, ClientConnectorError) and error.errno not in RESETS:
        return Trouble.CONNECT
    return Trouble.RESET


def _detail(error: BaseException) -> str:
    """Return the error's kind and the system's word for it: nothing that came over the wire, no URL."""
    words = (getattr(link, name, None) for link in _chain(error) for name in ("verify_message", "reason", "strerror"))
    word = next((word for word in words if isinstance(word, str)), None)
    return f"{type(error).__name__}: {word}" if word else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__
