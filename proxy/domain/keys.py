"""A client's API key: what it looks like, what it may do."""

import re
import zlib
from dataclasses import dataclass

PREFIX = "gp_"
BODY = 32  # base-62 digits: 190 bits
CHECKSUM = 6
SHOWN = 12  # characters of a secret that may be displayed
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENTROPY_BYTES = 32
SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{BODY + CHECKSUM}}}", re.ASCII)

SCHEME_OWN = "gp1"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may take. `None` is no limit."""

    requests_per_minute: int | None = 60
    concurrency: int | None = 10


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    tenant_id: str
    name: str
    limits: KeyLimits
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class KeySecret:
    """One secret of a key, as kept: a keyed hash, the scheme it was made by, and the part that may be shown."""

    hash: bytes
    key_id: str
    scheme: str
    shown: str
    created_at: float
    expires_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at


def make_secret(entropy: bytes) -> str:
    """Return a new key's secret: `gp_`, 32 base-62 digits of `entropy` (32 random bytes), 6 digits of CRC-32.

    The checksum lets a scanner, and this gateway, tell a real key from a mistyped one without a look-up
    (GitHub's token format).
    """
    body = _base62(int.from_bytes(entropy), BODY)
    return PREFIX + body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Tell whether `secret` has our scheme's shape and its checksum holds."""
    if SHAPE.fullmatch(secret) is None:
        return False
    body = secret[len(PREFIX) : -CHECKSUM]
    return secret[-CHECKSUM:] == _checksum(body)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))
