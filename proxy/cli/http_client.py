"""HTTP as the commands need it: one request, one connection, over TCP or over the socket in a data folder."""

import http.client
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from proxy.cli.command import Problem

ANSWER_TIMEOUT = 180  # seconds; the test of a token waits for its upstream
LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107

Connect = Callable[[], http.client.HTTPConnection]


class Refused(Problem):
    """The gateway said no; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Problem):
    exit_code = 3


class SocketConnection(http.client.HTTPConnection):
    """HTTP over the socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(short(self._path))


def short(path: Path) -> str:
    """Return `path` in a spelling that fits the address of a socket."""
    text = str(path.absolute())
    return text if len(os.fsencode(text)) <= LONGEST_SOCKET_PATH else os.path.relpath(path)


def over_tcp(url: str) -> Connect:
    """Return what connects to the server of `url`. Raises `ValueError`."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if host is None or parts.scheme not in ("http", "https"):
        raise ValueError(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return lambda: kind(host, port, timeout=ANSWER_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    content: bytes

    def json(self) -> Any:
        """Return the body; None for an empty one.

        Raises `Refused` for an error of the gateway, `Unreachable` for what is no answer of one.
        """
        try:
            body = orjson.loads(self.content) if self.content else None
        except orjson.JSONDecodeError:
            raise Unreachable(f"what answers there is no grokpool (HTTP {self.status})") from None
        if self.status < 300:
            return body
        if self.status == 401:
            raise Refused(self.status, "the gateway does not know this key")
        match body:
            case {"error": {"message": str(message)}}:
                raise Refused(self.status, message)
            case _:
                raise Unreachable(f"what answers there is no grokpool (HTTP {self.status})")

    def sent_at(self) -> float:
        """Return the server's clock, in whole seconds."""
        date = self.headers.get("Date")
        return 0.0 if date is None else parsedate_to_datetime(date).timestamp()


def send(
    connect: Connect, method: str, path: str, *, key: str | None, body: object = None, prefer: str | None = None
) -> Answer:
    """Make one request, with `body` as JSON. Raises `Unreachable`."""
    headers = {"Accept-Language": "en"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    if prefer is not None:
        headers["Prefer"] = prefer
    connection = connect()
    try:
        connection.request(method, path, None if body is None else orjson.dumps(body), headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the gateway does not answer: {error}") from None
    finally:
        connection.close()
