"""Signed, expiring links to kept files, so that a browser needs no key."""

import base64
import hmac
import re
from dataclasses import dataclass

SEPARATOR = "|"
MAX_LIFETIME = 86_400.0  # seconds: no link is valid for longer
EXPIRY = re.compile(r"[0-9]{1,12}", re.ASCII)
KEY_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Link:
    """What a signature stands for."""

    file_id: str
    tenant_id: str
    expires: int  # Unix seconds


def sign(key: bytes, link: Link) -> str:
    """Return the signature of a link: HMAC-SHA256 over version, file, tenant and expiry, in URL-safe base64."""
    text = SEPARATOR.join(("v1", link.file_id, link.tenant_id, str(link.expires)))
    return _text(hmac.digest(key, text.encode(), "sha256"))


def key_id(key: bytes) -> str:
    """Return the name of a signing key that a link carries."""
    return _text(hmac.digest(key, b"key id", "sha256")[:KEY_ID_BYTES])


def read_expiry(text: str) -> int | None:
    """Read the expiry that a link claims; None where it is no number."""
    return int(text) if EXPIRY.fullmatch(text) else None


def is_signed(key: bytes, link: Link, signature: str, now: float) -> bool:
    """Tell whether the link was signed by `key`, is still valid, and not for longer than any link may be."""
    if not now < link.expires <= now + MAX_LIFETIME:
        return False
    return hmac.compare_digest(sign(key, link).encode(), signature.encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
