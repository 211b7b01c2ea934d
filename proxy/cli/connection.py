"""How a command reaches the admin API: by the socket in the data folder, by URL, or by running its services itself."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import typer

from proxy.cli.command import Misused, Where
from proxy.cli.http_client import Connect, SocketConnection, Unreachable, over_tcp, send, short
from proxy.cli.secret_input import clean, read_secret

START_TIMEOUT = 15  # seconds for another process to open its socket, or to leave the folder
LOOK_AGAIN = 0.1
PAGE = 200  # rows asked for at a time
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Admin:
    """The admin API of one gateway; whether that `serves`, or only this command runs it."""

    def __init__(self, connect: Connect, key: str | None = None, *, serves: bool = True) -> None:
        self.serves = serves
        self.connect = connect
        self._key = key
        self.now = 0.0  # the gateway's clock at its last answer

    def get(self, path: str, **query: str | int | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path + (f"?{urlencode(given)}" if given else ""))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call("POST", path, body or {})

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def rows(self, path: str, limit: int | None = None, **query: str | None) -> dict[str, Any]:
        """Return the rows of a list, page after page, up to `limit`, and the cursor of what follows."""
        rows: list[Any] = []
        cursor: str | None = None
        while True:
            wanted = PAGE if limit is None else min(PAGE, limit - len(rows))
            page = self.get(path, limit=wanted, cursor=cursor, **query)
            rows += page["data"]
            cursor = page["next"]
            if cursor is None or (limit is not None and len(rows) >= limit):
                return {"data": rows, "next": cursor}

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Raises `Refused`, `Unreachable`."""
        answer = send(self.connect, method, path, key=self._key, body=body)
        self.now = answer.sent_at()
        return answer.json()


def item(kind: str, id_: str, *verb: str) -> str:
    """Return the path of one thing of the admin API, or of what is done to it."""
    return "/".join([f"/admin/{kind}", quote(id_, safe=""), *verb])


@contextmanager
def reach(where: Where, *, works: bool = False) -> Iterator[Admin]:
    """Give the admin API that `where` names. Where nobody runs on its data folder, this process does, meanwhile;
    on the jobs that wait there only if it `works`.

    Raises `Unreachable`, `Problem`.
    """
    if where.url is not None:
        yield remote(where.url, where.admin_key_file)
        return
    from proxy.cli.setup import read_settings
    from proxy.storage.folder import Folder

    settings = read_settings(where)
    path = Folder(settings.data_dir).socket
    if is_open(path):
        yield over_socket(path)
        return
    from proxy.cli.embedded import services
    from proxy.cli.setup import Busy

    until = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with services(settings, works=works):
                yield over_socket(path, serves=False)
                return
        except Busy as busy:  # it starts, or it stops
            if time.monotonic() > until:
                raise Unreachable(f"{busy}, and does not answer") from None
        if is_open(path):
            yield over_socket(path)
            return
        time.sleep(LOOK_AGAIN)


def over_socket(path: Path, *, serves: bool = True) -> Admin:
    return Admin(lambda: SocketConnection(path), serves=serves)


def is_open(path: Path) -> bool:
    """Tell whether a gateway listens on the socket. Raises `Unreachable` where this user may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(short(path))
        except PermissionError:
            raise Unreachable(f"{path.parent} belongs to another user: run this as that user, or use --url") from None
        except OSError:
            return False
        return True


def remote(url: str, admin_key_file: str | None) -> Admin:
    """Return the admin API at `url`. Raises `Misused`."""
    try:
        parts = urlsplit(url)
        connect = over_tcp(url)
    except ValueError:
        raise Misused("--url takes a URL like https://video.example.com") from None
    if parts.path not in ("", "/") or parts.query or parts.username is not None:
        raise Misused("--url takes a URL like https://video.example.com, and nothing around it")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        typer.echo("warning: the admin key travels unencrypted; use https://, or a tunnel", sys.stderr)
    return Admin(connect, admin_key(admin_key_file))


def admin_key(file: str | None) -> str:
    given = os.environ.get("GROKPOOL_ADMIN_KEY", "") if file is None else ""
    return clean("Admin key", given) if given else read_secret("Admin key", file, "--admin-key-file")
