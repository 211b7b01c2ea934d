"""Connections through a proxy: the six schemes, and what a proxy's refusal means."""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp_socks import ProxyConnector
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio.v2 import Proxy

from proxy.domain.outcomes import Trouble
from proxy.domain.proxies import Address

# The scheme decides who resolves the target's name: with socks4 and socks5 it is done here.
KINDS = {
    "socks4": (ProxyType.SOCKS4, False),
    "socks4a": (ProxyType.SOCKS4, True),
    "socks5": (ProxyType.SOCKS5, False),
    "socks5h": (ProxyType.SOCKS5, True),
    "http": (ProxyType.HTTP, True),
    "https": (ProxyType.HTTP, True),
}
SOCKS5_UNREACHABLE = (3, 4, 5)  # RFC 1928, section 6: network, host, connection refused
SOCKS4_IDENT = (92, 93)  # 0x5c, 0x5d: the user could not be confirmed
CONNECT_TROUBLES = {407: Trouble.PROXY_AUTH, 502: Trouble.PROXY_TARGET, 504: Trouble.PROXY_TARGET}
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class TunnelFailed(Exception):
    """The way through the proxy did not come about, so nothing of the request was written. `detail` has no secrets."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble = trouble
        self.detail = detail


class Tunnel(ProxyConnector):
    """A connector whose every connection leaves through one proxy.

    TLS is spoken with the target, by its name, inside the tunnel. `dial` is what the proxy is told instead of that
    name: an address that was resolved and checked here. Failures are `TunnelFailed`, never aiohttp's.
    """

    def __init__(self, address: Address, context: ssl.SSLContext, *, dial: str | None = None, **options: Any) -> None:
        super().__init__(address.host, address.port, KINDS[address.scheme][0], ssl=context, **options)
        self._address = address
        self._context = context
        self._dial = dial

    async def _connect_via_proxy(
        self, host: str, port: int, ssl: ssl.SSLContext | None = None, timeout: float | None = None
    ) -> tuple[Any, ResponseHandler]:
        with _failures("the proxy"):
            async with asyncio.timeout(timeout):
                writer = await self._enter(self._dial or host, port)
        if ssl is not None:
            await _start_tls(writer, ssl, host, timeout)
        protocol = _Handler(self._loop, writer)
        writer.transport.set_protocol(protocol)
        protocol.connection_made(writer.transport)
        return writer.transport, protocol

    async def _enter(self, host: str, port: int) -> asyncio.StreamWriter:
        """Return the stream to `host` that the proxy has opened."""
        address = self._address
        kind, remote = KINDS[address.scheme]
        password = address.password.reveal() if address.password else ""
        if kind is ProxyType.HTTP:
            return await self._connect(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", password)
        socks = Proxy(kind, address.host, address.port, address.username, password, rdns=remote)
        try:
            return (await socks.connect(host, port, timeout=None)).writer
        except ProxyError as error:
            raise TunnelFailed(_refusal(kind, error), f"SOCKS: {error}") from None

    async def _connect(self, authority: str, password: str) -> asyncio.StreamWriter:
        """Speak CONNECT (RFC 9110, section 9.3.6). python-socks takes the first packet for the whole answer."""
        address = self._address
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if address.username is not None:
            if ":" in address.username:
                raise ValueError("RFC 7617 has no colon in a name")
            login = b64encode(f"{address.username}:{password}".encode()).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {login}")
        tls = self._context if address.scheme == "https" else None
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
            await _opened(reader)
        except BaseException:
            writer.transport.abort()
            raise
        return writer


async def _opened(reader: asyncio.StreamReader) -> None:
    """Read the head of an answer to CONNECT. Raises `TunnelFailed` if it is no 2xx, EOFError if there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        head = b""
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise
        head = error.partial
    line = STATUS_LINE.match(head)
    status = int(line[1]) if line else 0
    if not 200 <= status < 300:
        trouble = CONNECT_TROUBLES.get(status, Trouble.PROXY_REFUSED)
        raise TunnelFailed(trouble, f"the proxy answered CONNECT with {status or 'no HTTP'}")


async def _start_tls(writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str, timeout: float | None) -> None:
    try:
        with _failures("the target, through the proxy"):
            async with asyncio.timeout(timeout):
                await writer.start_tls(context, server_hostname=name)
    except BaseException:
        writer.transport.abort()
        raise


@contextmanager
def _failures(peer: str) -> Iterator[None]:
    """Turn every failure on the way into `TunnelFailed`; `peer` is whom we spoke with."""
    try:
        yield
    except (TimeoutError, ProxyTimeoutError):
        raise TunnelFailed(Trouble.TIMEOUT, f"{peer} did not answer in time") from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason
        raise TunnelFailed(Trouble.TLS, f"TLS with {peer}: {reason}") from None
    except TypeError:  # CPython 3.11 stumbles when TLS within TLS fails: SSLProtocol._abort() takes no cause
        raise TunnelFailed(Trouble.TLS, f"TLS with {peer}") from None
    except (EOFError, ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
        raise TunnelFailed(Trouble.RESET, f"{peer} hung up") from None
    except (OSError, ProxyConnectionError) as error:  # the proxy is not there, or a name does not resolve here
        raise TunnelFailed(Trouble.CONNECT, f"{peer} cannot be reached: {error.errno}") from None
    except ValueError:  # SOCKS takes ASCII of up to 255 characters
        raise TunnelFailed(Trouble.PROXY_AUTH, "the proxy's credentials cannot be sent to it") from None


def _refusal(kind: ProxyType, error: ProxyError) -> Trouble:
    if kind is ProxyType.SOCKS4:
        return Trouble.PROXY_AUTH if error.error_code in SOCKS4_IDENT else Trouble.PROXY_REFUSED
    if error.error_code in SOCKS5_UNREACHABLE:
        return Trouble.PROXY_TARGET
    # Of all errors only those of the authentication have no code and this word.
    unknown = error.error_code is None and "authentication" in str(error).lower()
    return Trouble.PROXY_AUTH if unknown else Trouble.PROXY_REFUSED


class _Handler(ResponseHandler):
    """Keeps the stream writer, whose destructor closes the transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        super().__init__(loop)
        self._writer = writer
