"""What is in the gateway under test before its first request: keys of two tenants, a token, a proxy; and the values of
the corpus's placeholders that follow from them."""

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Connection

from proxy.domain.keys import ENTROPY_BYTES, SCHEME_OWN, SHOWN, Key, KeyLimits, KeySecret, make_secret
from proxy.domain.proxies import Proxy
from proxy.domain.signing import Link, sign
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.domain.tokens import Token
from proxy.storage import keys, migrate, proxies, sealed, tokens
from proxy.storage.changes import Act
from proxy.storage.folder import Folder
from proxy.storage.seal import Pepper, Sealer

OTHER = "other"  # the second tenant
UPSTREAM_TOKEN = "xai-" + "QmFkSW5wdXRz" * 6
PROXY_PASSWORD = "pr0xy-Pa55-of-the-tests"
LONG_AGO = 1.0  # Unix seconds
FREE = KeyLimits(None, None)
TIGHT = KeyLimits(5, None)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the tests know of the gateway's secrets."""

    keys: dict[str, str]
    signing: bytes


class Furnishing:
    """Furnishes the data folder of a gateway that has not started yet."""

    def __init__(self, root: Path) -> None:
        self._folder = Folder(root)

    def furnish(self) -> Secrets:
        self._folder.take()
        try:
            self._sealer = Sealer(self._folder.master_keys(None, os.urandom), os.urandom)
            migrate.upgrade(self._folder.database, self._folder.backups, LONG_AGO)
            with migrate.migrating_engine(self._folder.database).connect() as connection, connection.begin():
                return self._fill(connection)
        finally:
            self._folder.release()

    def _fill(self, connection: Connection) -> Secrets:
        pepper, signing = (
            sealed.own_secret(connection, sealed.OwnSecret(name, self._sealer, os.urandom))
            for name in ("pepper", "signing")
        )
        self._pepper = Pepper(pepper)
        for tenant in (DEFAULT, OTHER):
            keys.ensure_tenant(connection, (Tenant(tenant, tenant), LONG_AGO))
        made = {
            "KEY_A": self._key(connection, "a", DEFAULT),
            "KEY_B": self._key(connection, "b", OTHER),
            "KEY_TIGHT_A": self._key(connection, "tight-a", DEFAULT, TIGHT),
            "KEY_TIGHT_A2": self._key(connection, "tight-a2", DEFAULT, TIGHT),
            "KEY_TIGHT_B": self._key(connection, "tight-b", OTHER, TIGHT),
            "KEY_EXPIRED": self._key(connection, "expired", DEFAULT, expires_at=LONG_AGO),
            "KEY_REVOKED": self._key(connection, "revoked", DEFAULT, revoked_at=LONG_AGO),
        }
        self._token(connection)
        self._proxy(connection)
        return Secrets(made, signing.reveal().encode())

    def _key(
        self,
        connection: Connection,
        name: str,
        tenant: str,
        limits: KeyLimits = FREE,
        *,
        expires_at: float | None = None,
        revoked_at: float | None = None,
    ) -> str:
        secret = make_secret(os.urandom(ENTROPY_BYTES))
        key = Key(f"key_{name}", tenant, name, limits, LONG_AGO, expires_at, revoked_at)
        kept = KeySecret(self._pepper.hash("key", secret), key.id, SCHEME_OWN, secret[:SHOWN], key.created_at)
        keys.create(connection, keys.NewKey(key, kept, self._act("key.create", key.id)))
        return secret

    def _token(self, connection: Connection) -> None:
        token = Token("tok_test", "test", "sandbox", concurrency=10, created_at=LONG_AGO)
        secret = self._sealer.seal(UPSTREAM_TOKEN, tokens.place(token.id))
        digest = self._pepper.hash("token", UPSTREAM_TOKEN)
        tokens.create(connection, tokens.NewToken(token, secret, digest, self._act("token.add", token.id)))

    def _proxy(self, connection: Connection) -> None:
        """The stand-in for the upstream never uses it: it is here to be shown."""
        proxy = Proxy("prx_test", "test", "socks5://user:•••@127.0.0.9:1080", created_at=LONG_AGO)
        url = self._sealer.seal(f"socks5://user:{PROXY_PASSWORD}@127.0.0.9:1080", proxies.url_place(proxy.id))
        stored = proxies.Stored(proxy, url, None)
        proxies.create(connection, proxies.NewProxy(stored, self._act("proxy.add", proxy.id)))

    def _act(self, action: str, subject: str) -> Act:
        return Act(LONG_AGO, "test", action, subject, {})


def variants_of_key(key: str) -> dict[str, str]:
    """Return the near misses of a key that the corpus tries."""
    return {
        "KEY_A_UPPER": key.upper(),
        "KEY_A_TRUNC": key[:-1],
        "KEY_A_PREFIX": key[:20],
        "KEY_A_HOMOGLYPH": key.replace("g", "ɡ", 1),
        "KEY_A_SHA256": hashlib.sha256(key.encode()).hexdigest(),
        "KEY_A_B64": base64.b64encode(key.encode()).decode(),
    }


def variants_of_link(url: str, tenant: str, signing: bytes) -> dict[str, str]:
    """Return the near misses of a signed link that the corpus tries."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    file_id, expires, signature = Path(parts.path).stem, int(query["exp"]), query["sig"]

    def link(expires: int, signature: str) -> str:
        return f"{parts.path}?exp={expires}&kid={query['kid']}&sig={signature}"

    past = expires - 2 * 86_400
    return {
        "FILE_A_PATH": link(expires, signature),
        "FILE_A_PATH_UNSIGNED": parts.path,
        "SIGNED_A": link(expires, signature),
        "SIGNED_A_TRUNC": link(expires, signature[:1]),
        "SIGNED_A_FLIPPED": link(expires, signature[:-1] + ("A" if signature[-1] != "A" else "B")),
        "SIGNED_A_EXP_BUMPED": link(expires + 1, signature),
        "SIGNED_A_EXPIRED": link(past, sign(signing, Link(file_id, tenant, past))),
        "SIGNED_A_EMPTYKEY": link(expires, sign(b"", Link(file_id, tenant, expires))),
    }
