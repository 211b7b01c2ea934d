"""Proxies on loopback: Debian's own for SOCKS5 and HTTP, small ones for the other schemes and for every fault."""

import asyncio
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from tests.requirements import need_program

USER, PASSWORD = "alice", "s3cret word"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a small proxy does wrong. Of several, the first in this order."""

    hang_up: bool = False  # closes as soon as it has been greeted
    silent: bool = False  # never answers
    garbage: bytes | None = None  # answers this, and closes
    code: int | None = None  # answers with this code: SOCKS4, SOCKS5 or HTTP
    mute_tunnel: bool = False  # says that the way is open, then nothing
    forge: ssl.SSLContext | None = None  # speaks TLS itself, in the target's place
    two_writes: bool = False  # sends its answer in two packets


class SmallProxy:
    """A proxy for one scheme. `names` are those it resolves itself; `asked` says what it was asked to reach."""

    def __init__(
        self,
        scheme: str,
        *,
        names: Mapping[str, str] | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.scheme = scheme
        self.asked: list[tuple[str, int]] = []
        self._names = names or {}
        self._login = (username, password) if username else None
        self._tls = tls
        self._fault = fault or Fault()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        assert self._server
        port = self._server.sockets[0].getsockname()[1]
        name, password = self._login or (None, None)
        return Address(self.scheme, "127.0.0.1", port, name, Secret(password) if password else None)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the other side went, or the test is over
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault.hang_up or self._fault.silent or self._fault.garbage is not None:
            await reader.read(1)
            if self._fault.silent:
                await asyncio.Event().wait()
            writer.write(self._fault.garbage or b"")
            await writer.drain()
            return
        ask = {"socks4": self._socks4, "socks4a": self._socks4, "http": self._http, "https": self._http}
        target = await ask.get(self.scheme, self._socks5)(reader, writer)
        if target is None:
            return
        if self._fault.mute_tunnel:
            await asyncio.Event().wait()
        if self._fault.forge:
            await writer.start_tls(self._fault.forge)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            return
        await _relay(reader, writer, *target)

    async def _socks4(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        head = await reader.readexactly(8)
        user = (await reader.readuntil(b"\0"))[:-1].decode()
        host = socket.inet_ntoa(head[4:])
        if head[4:7] == b"\0\0\0":
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        code = self._fault.code or (93 if self._login and user != self._login[0] else 90)
        return await self._answer(writer, bytes([0, code]) + bytes(6), code == 90, (host, int.from_bytes(head[2:4])))

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        if self._login and 2 not in methods:
            writer.write(b"\x05\xff")
            return None
        writer.write(b"\x05\x02" if self._login else b"\x05\x00")
        if self._login and not await self._socks5_login(reader, writer):
            return None
        kind = (await reader.readexactly(4))[3]
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        raw = await reader.readexactly(length)
        host = raw.decode() if kind == 3 else socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, raw)
        code = self._fault.code or 0
        target = (host, int.from_bytes(await reader.readexactly(2)))
        return await self._answer(writer, bytes([5, code, 0, 1]) + bytes(6), code == 0, target)

    async def _socks5_login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        name = await reader.readexactly((await reader.readexactly(2))[1])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        right = (name.decode(), password.decode()) == self._login
        writer.write(b"\x01\x00" if right else b"\x01\x01")
        return right

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        host, _, port = line.split()[1].rpartition(":")
        login = ":".join(map(str, self._login)) if self._login else ""
        header = f"proxy-authorization: basic {b64encode(login.encode()).decode()}"
        right = not self._login or any(field.lower() == header.lower() for field in fields)
        code = self._fault.code or (200 if right else 407)
        answer = f"HTTP/1.1 {code} Whatever\r\nVia: small\r\nX-Filler: {'x' * 100}\r\n\r\n".encode()
        return await self._answer(writer, answer, code == 200, (host.strip("[]"), int(port)))

    async def _answer(
        self, writer: asyncio.StreamWriter, answer: bytes, opened: bool, target: tuple[str, int]
    ) -> tuple[str, int] | None:
        """Send the proxy's answer; return where the tunnel leads, if it does."""
        self.asked.append(target)
        half = len(answer) // 2 if self._fault.two_writes else len(answer)
        writer.write(answer[:half])
        await writer.drain()
        if self._fault.two_writes:
            await asyncio.sleep(0.05)  # so that they are two packets
            writer.write(answer[half:])
            await writer.drain()
        return (self._names.get(target[0], target[0]), target[1]) if opened else None


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    there_reader, there_writer = await asyncio.open_connection(host, port)
    try:
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
    finally:
        there_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()  # one side has ended: so does the other


@contextmanager
def microsocks() -> Iterator[Address]:
    """Run Debian's microsocks, which asks for USER and PASSWORD."""
    port = _free_port()
    command = [need_program("microsocks"), "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD]
    with _running(command, port):
        yield Address("socks5h", "127.0.0.1", port, USER, Secret(PASSWORD))


@contextmanager
def tinyproxy(folder: Path) -> Iterator[Address]:
    """Run Debian's tinyproxy, which asks for USER and a password without spaces, its configuration in `folder`."""
    port = _free_port()
    settings = folder / "tinyproxy.conf"
    settings.write_text(f"Port {port}\nListen 127.0.0.1\nMaxClients 50\nLogLevel Critical\nBasicAuth {USER} secret\n")
    with _running([need_program("tinyproxy"), "-d", "-c", str(settings)], port):
        yield Address("http", "127.0.0.1", port, USER, Secret("secret"))


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
