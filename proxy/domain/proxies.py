"""A proxy that upstream traffic leaves through."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from proxy.domain.secret import Secret

SCHEMES = ("socks4", "socks4a", "socks5", "socks5h", "http", "https")
DEFAULT_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
HOST = re.compile(r"[0-9A-Za-z._:-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a proxy listens and how it is entered. `socks4` and `socks5` are given an IP address, resolved here;
    the others are given the name."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: Secret | None = None

    def masked(self) -> str:
        """Return the URL with the password hidden and the rest shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = ""
        if self.username is not None:
            login = self.username + (":•••" if self.password else "") + "@"
        return f"{self.scheme}://{login}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, without its secrets."""

    id: str
    name: str
    url: str  # masked
    enabled: bool = True
    removed: bool = False
    exit_address: str | None = None  # the address the world saw at the last test
    has_clearance: bool = False
    user_agent: str | None = None
    created_at: float = 0.0


class InvalidProxy(ValueError):
    """The text is no proxy URL; the message says what is wrong and never repeats the text."""


def parse(url: str) -> Address:
    """Read `scheme://[user[:password]@]host[:port]` (percent-encoded credentials).

    Raises `InvalidProxy`.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise InvalidProxy("is not a URL") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise InvalidProxy(f"must start with one of {', '.join(name + '://' for name in SCHEMES)}")
    if not parts.hostname or not HOST.fullmatch(parts.hostname):
        raise InvalidProxy("has no valid host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidProxy("has something after the port")
    if port == 0:
        raise InvalidProxy("has no valid port")
    return Address(
        scheme=scheme,
        host=parts.hostname,
        port=port or DEFAULT_PORTS[scheme],
        username=unquote(parts.username) if parts.username is not None else None,
        password=Secret(unquote(parts.password)) if parts.password else None,
    )
