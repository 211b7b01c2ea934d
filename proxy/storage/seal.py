"""Secrets at rest: AES-256-GCM, bound to the row they belong to; and keyed hashes.

A sealed value is `key id (4 bytes) | nonce (12) | ciphertext and tag`. The associated data is table, row, column and
key id, so that a value moved to another row, or sealed by another key, does not open.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.domain.secret import Secret

KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12


class Unsealable(Exception):
    """A stored secret does not open: another master key sealed it, or it was tampered with."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which value of which row a secret is."""

    table: str
    row: str
    column: str

    def data(self, key_id: bytes) -> bytes:
        return "\0".join((self.table, self.row, self.column)).encode() + b"\0" + key_id


class Sealer:
    """Seals under the first master key, opens what any of them has sealed."""

    def __init__(self, master_keys: list[bytes], entropy: Callable[[int], bytes]) -> None:
        if not master_keys or any(len(key) != KEY_BYTES for key in master_keys):
            raise ValueError(f"a master key is {KEY_BYTES} bytes")
        self._entropy = entropy
        self._ciphers: Mapping[bytes, AESGCM] = {key_id(key): AESGCM(key) for key in master_keys}
        self.current = key_id(master_keys[0])

    def seal(self, value: str, place: Place) -> bytes:
        nonce = self._entropy(NONCE_BYTES)
        cipher = self._ciphers[self.current]
        return self.current + nonce + cipher.encrypt(nonce, value.encode(), place.data(self.current))

    def open(self, sealed: bytes, place: Place) -> Secret:
        """Raises `Unsealable`."""
        name, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise Unsealable(f"{place.table} {place.row}: sealed by the master key {name.hex()}, which is not given")
        try:
            return Secret(cipher.decrypt(nonce, sealed[KEY_ID_BYTES + NONCE_BYTES :], place.data(name)).decode())
        except InvalidTag:
            raise Unsealable(f"{place.table} {place.row}: does not open") from None

    def is_current(self, sealed: bytes) -> bool:
        return sealed[:KEY_ID_BYTES] == self.current


def key_id(master_key: bytes) -> bytes:
    return hashlib.sha256(b"grokpool master key id" + master_key).digest()[:KEY_ID_BYTES]


def encode_key(master_key: bytes) -> str:
    return base64.urlsafe_b64encode(master_key).decode()


def decode_keys(text: str) -> list[bytes]:
    """Read master keys (URL-safe base64 of 32 bytes, one a line or comma-separated), the current one first.

    Raises `ValueError`, without repeating the text.
    """
    try:
        keys = [base64.b64decode(word, altchars=b"-_", validate=True) for word in text.replace(",", "\n").split()]
    except ValueError:
        raise ValueError("a master key is 32 bytes in URL-safe base64") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise ValueError("a master key is 32 bytes in URL-safe base64")
    return keys


class Pepper:
    """The key of the hashes by which secrets are looked up. It is itself sealed, so that rotating the master key keeps
    every client's key valid."""

    def __init__(self, value: Secret) -> None:
        self._key = value.reveal().encode()

    def hash(self, purpose: str, secret: str) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + secret.encode(), "sha256")
