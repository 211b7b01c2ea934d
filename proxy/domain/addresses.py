"""Which addresses a client may name: the shape of a URL, and the networks that are never reached."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urljoin

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048  # characters
MAX_HOST = 253
FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\<>\"^{}|`]|%(?:00|0[aAdD])")
SHAPE = re.compile(r"(https?)://([^/?#]+)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", re.ASCII)
LABEL = r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?"
# The last label begins with a letter: no spelling of a number passes for a name.
NAME = re.compile(rf"(?:{LABEL}\.)*[a-z](?:[0-9a-z-]{{0,61}}[0-9a-z])?", re.ASCII)
WRITTEN = "!#$%&'()*+,/:;=?@[]~"  # what `quote` leaves alone beside letters, digits and _.-

# IANA's special-purpose registries, and what clouds put beside them (168.63.129.16 is Azure's host).
DENIED_V4 = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.0.2.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("198.18.0.0/15"),
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv4Network("224.0.0.0/3"),
)
GLOBAL_V6 = IPv6Network("2000::/3")  # all else is denied: mapped, NAT64, link-local, unique local, multicast ...
DENIED_V6 = (
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
    IPv6Network("2620:4f:8000::/48"),
)


class Refused(ValueError):
    """The URL or the address is not one that a client may name; the message says why, for the log."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that has passed the gate. `url` is ASCII and without a fragment, `host` lower-case and without brackets."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def literal(self) -> bool:
        """Whether the host is an address, not a name."""
        return not NAME.fullmatch(self.host)


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be reached: the public internet, `allow` beside it, and never our `own` addresses."""

    allow: tuple[Network, ...] = ()
    own: frozenset[IPAddress] = frozenset()

    def denies(self, address: str) -> bool:
        """Return whether no connection to `address` may be made. A zone, or what is no address, is denied."""
        try:
            ip = ip_address(address)
        except ValueError:
            return True
        if "%" in address:
            return True
        if any(ip in network for network in self.allow):
            return False
        return ip in self.own or _special(ip)


def _special(ip: IPAddress) -> bool:
    if isinstance(ip, IPv4Address):
        return any(ip in network for network in DENIED_V4)
    return ip not in GLOBAL_V6 or any(ip in network for network in DENIED_V6)


def read(url: str, ports: Collection[int]) -> Target:
    """Read the URL of an image, strictly: where two parsers could disagree, it is refused.

    A name in another script becomes its IDNA form, a path in another script is percent-encoded; the result is then
    judged like any other. Raises `Refused`.
    """
    if len(url) > MAX_URL:
        raise Refused("the URL is too long")
    if FORBIDDEN.search(url):
        raise Refused("the URL has a character that none has")
    shape = SHAPE.fullmatch(url)
    if not shape:
        raise Refused("not an http or https URL")
    scheme, authority, rest = shape[1].lower(), shape[2], _encoded(shape[3])
    host, port = _place(authority, 443 if scheme == "https" else 80)
    if port not in ports:
        raise Refused("the port is not allowed")
    shown = f"[{host}]" if ":" in host else host
    ascii_url = f"{scheme}://{shown}:{port}{rest if rest.startswith('/') else '/' + rest}"
    if len(ascii_url) > MAX_URL or FORBIDDEN.search(ascii_url):
        raise Refused("the URL does not survive its encoding")
    return Target(ascii_url, scheme, host, port)


def follow(target: Target, location: str, ports: Collection[int]) -> Target:
    """Return where a redirect from `target` leads, judged like a URL of the client's. Raises `Refused`."""
    if FORBIDDEN.search(location):  # before the join, which drops some of them
        raise Refused("the redirect has a character that no URL has")
    try:
        joined = urljoin(target.url, location)
    except ValueError:
        raise Refused("the redirect leads to no URL") from None
    step = read(joined, ports)
    if target.scheme == "https" and step.scheme == "http":
        raise Refused("the redirect leads out of https")
    return step


def _encoded(rest: str) -> str:
    try:
        return quote(rest, safe=WRITTEN)
    except UnicodeEncodeError:
        raise Refused("the URL is not Unicode") from None


def _place(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority or "%" in authority:
        raise Refused("the URL has credentials or an encoded host")
    parts = AUTHORITY.fullmatch(authority)
    if not parts:
        raise Refused("the URL has no plain host and port")
    return _host(parts[1]), int(parts[2] or default_port)


def _host(text: str) -> str:
    """Return the host in its one canonical spelling; any other spelling of an address is refused, not repaired."""
    if text.startswith("["):
        return _canonical(text[1:-1].lower())
    name = _ascii(text).lower()
    if len(name) <= MAX_HOST and NAME.fullmatch(name):
        return name
    return _canonical(name)


def _canonical(text: str) -> str:
    try:
        spelling = str(ip_address(text))
    except ValueError:
        raise Refused("the host is neither a name nor an address") from None
    if spelling != text:
        raise Refused("the host is an address in a spelling that is not canonical")
    return text


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise Refused("the host has no ASCII form") from None
