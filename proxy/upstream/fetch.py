"""Fetching an image that a client names, without being led into the gateway's own network.

The rules are in `domain.addresses`; this file sees to it that they hold for every connection: for each successive
answer of the DNS, each redirect, and through a proxy.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.domain.addresses import IPAddress, Network, Reach, Refused, Target, follow, read
from proxy.domain.errors import ImageTooLarge, InvalidImageUrl
from proxy.domain.proxies import Address
from proxy.upstream.exits import tls_context
from proxy.upstream.tunnel import Tunnel, TunnelFailed

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Look a name up: all its addresses, or OSError."""

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "grokpool"}
LOOKUPS = 16  # at a time, in threads of their own: a name whose server is silent holds one up for long
BUFFER = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What a fetch may reach and how long it may take, in seconds; a redirect's target counts into the same `total`."""

    max_bytes: int = 10 * 1024 * 1024
    ports: frozenset[int] = frozenset({80, 443})
    allow_networks: tuple[Network, ...] = ()  # beside public addresses
    own_addresses: frozenset[IPAddress] = frozenset()  # public ones of the gateway: never reached
    total: float = 20.0
    connect: float = 5.0
    read: float = 5.0
    lookup: float = 3.0
    max_redirects: int = 3
    per_host: int = 4  # connections at a time
    proxy: Address | None = None  # it is given checked addresses, never names


class ImageFetcher:
    """Fetches images. `resolve` stands in for the system's resolver, `ca_file` adds authorities."""

    def __init__(self, limits: FetchLimits, *, resolve: Resolve | None = None, ca_file: str | None = None) -> None:
        self._limits = limits
        self._reach = Reach(limits.allow_networks, limits.own_addresses)
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
        self._resolve = resolve or self._system
        self._context = tls_context(ca_file)
        self._direct: ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """Return the body at `url`. Raises `ImageTooLarge`, and `InvalidImageUrl` for every other failure."""
        try:
            async with asyncio.timeout(self._limits.total):
                return await self._follow(read(url, self._limits.ports))
        except (Refused, TunnelFailed) as error:
            raise InvalidImageUrl(str(error)) from None
        except (ClientError, OSError, EOFError, ValueError) as error:
            raise InvalidImageUrl(type(error).__name__) from None

    async def close(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._direct:
            await self._direct.close()

    async def _follow(self, target: Target) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            async with self._session(target) as session, self._get(session, target) as response:
                if response.status not in REDIRECTS:
                    return await self._content(response)
                target = follow(target, response.headers.get("Location", ""), self._limits.ports)
        raise Refused("too many redirects")

    @asynccontextmanager
    async def _get(self, session: ClientSession, target: Target) -> AsyncGenerator[ClientResponse, None]:
        url = URL(target.url, encoded=True)
        if (url.scheme, url.raw_host, url.port) != (target.scheme, target.host, target.port):
            raise Refused("two parsers disagree about the URL")
        async with session.get(url, allow_redirects=False) as response:
            yield response

    async def _content(self, response: ClientResponse) -> bytes:
        if response.status != 200:
            raise Refused(f"the answer is {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("the answer is compressed")
        limit = self._limits.max_bytes
        if (response.content_length or 0) > limit:
            raise ImageTooLarge(limit)
        content = bytearray()
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > limit:
                raise ImageTooLarge(limit)
        return bytes(content)

    @asynccontextmanager
    async def _session(self, target: Target) -> AsyncGenerator[ClientSession, None]:
        """Lend a session that reaches `target` at checked addresses alone."""
        if target.literal and self._reach.denies(target.host):
            raise Refused("the address is denied")
        if self._limits.proxy is None:
            self._direct = self._direct or self._open(self._connector())
            yield self._direct
            return
        addresses = [target.host] if target.literal else await self._checked(target.host)
        dial = min(addresses, key=lambda address: ":" in address)  # a proxy reaches IPv4 more often
        tunnel = Tunnel(self._limits.proxy, self._context, dial=dial, force_close=True)
        async with self._open(tunnel) as session:
            yield session

    def _open(self, connector: TCPConnector) -> ClientSession:
        limits = self._limits
        return ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            headers=HEADERS,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=BUFFER,
            timeout=ClientTimeout(
                total=limits.total, connect=limits.connect, sock_connect=limits.connect, sock_read=limits.read
            ),
        )

    def _connector(self) -> TCPConnector:
        return TCPConnector(
            ssl=self._context,
            resolver=_CheckedResolver(self._checked),
            socket_factory=self._socket,
            use_dns_cache=False,
            force_close=True,
            limit=0,
            limit_per_host=self._limits.per_host,
            happy_eyeballs_delay=None,
        )

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for a connection to `info`; the last look at the address, whoever found it."""
        family, kind, protocol, _, address = info
        if self._reach.denies(address[0]):
            raise Refused("the address is denied")
        return socket.socket(family, kind, protocol)

    async def _checked(self, name: str) -> Sequence[str]:
        """Return all addresses of `name`. Raises `Refused` if there are none, or a single one is denied."""
        try:
            async with asyncio.timeout(self._limits.lookup):
                addresses = await self._resolve(name)
        except OSError:
            raise Refused("the name does not resolve") from None
        if not addresses or any(map(self._reach.denies, addresses)):
            raise Refused("the name has no address, or one that is denied")
        return addresses

    async def _system(self, name: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, socket.getaddrinfo, name, None, 0, socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]


class _CheckedResolver(AbstractResolver):
    """Hands a connector the addresses that passed."""

    def __init__(self, checked: Resolve) -> None:
        self._checked = checked

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._checked(host)
        ]

    async def close(self) -> None:
        """Nothing is open."""
