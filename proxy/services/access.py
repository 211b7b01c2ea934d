"""Who calls: a client by its key, an operator by the admin key."""

import hashlib
import hmac

from proxy.domain.keys import PREFIX, Key, is_well_formed
from proxy.services.catalog import Catalog
from proxy.storage.seal import Pepper

MAX_SECRET = 512  # characters


class Gatekeeper:
    def __init__(self, catalog: Catalog, pepper: Pepper, admin_key: str) -> None:
        self._catalog = catalog
        self._pepper = pepper
        self.admit_admin(admin_key)

    def caller(self, secret: str, now: float) -> Key | None:
        """Return the key that `secret` opens now; no database is asked."""
        if len(secret) > MAX_SECRET or (secret.startswith(PREFIX) and not is_well_formed(secret)):
            return None
        return self._catalog.key_of(self._pepper.hash("key", secret), now)

    def admit_admin(self, admin_key: str) -> None:
        """Let this admin key in, and no other any more."""
        self._admin = _digest(admin_key)

    def is_admin(self, secret: str) -> bool:
        return hmac.compare_digest(_digest(secret), self._admin)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
