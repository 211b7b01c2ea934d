"""The operator's side of the keys: made, shown, changed, rotated, revoked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy.domain.errors import Conflict, InvalidParameter, NotFound
from proxy.domain.ids import make_id
from proxy.domain.keys import ENTROPY_BYTES, SCHEME_OWN, SHOWN, Key, KeyLimits, KeySecret, make_secret
from proxy.domain.secret import Secret
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.services.catalog import Catalog
from proxy.storage import keys
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.seal import Pepper
from proxy.storage.writer import each


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key with what may be shown of the secrets that open it."""

    key: Key
    secrets: tuple[KeySecret, ...]


class Keys:
    """`defaults` are the limits of a key that is made without any."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        pepper: Pepper,
        defaults: KeyLimits,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._pepper = pepper
        self._defaults = defaults
        self._clock = clock
        self._entropy = entropy

    async def create(
        self,
        actor: str,
        *,
        name: str,
        tenant_id: str = DEFAULT,
        limits: Mapping[str, int | None],
        expires_at: float | None = None,
    ) -> tuple[ShownKey, Secret]:
        """Make a key; return it with its secret, which is told this once. Limits that are not given are the defaults.
        The first key of a tenant makes the tenant.

        Raises `InvalidParameter`.
        """
        now = self._clock()
        _require_future(expires_at, now)
        await self._database.write(_ENSURE_TENANT, (Tenant(tenant_id, tenant_id), now))
        allowed = replace(self._defaults, **limits)
        key = Key(make_id("key_", now, self._entropy(16)), tenant_id, name, allowed, now, expires_at)
        kept, secret = self._new_secret(key.id, now)
        details = {"name": name, "tenant": tenant_id, "shown": kept.shown}
        await self._database.write(_CREATE, keys.NewKey(key, kept, Act(now, actor, "key.create", key.id, details)))
        await self._catalog.follow()
        return ShownKey(key, (kept,)), secret

    async def page(self, after: str | None, limit: int) -> list[ShownKey]:
        page = await self._database.read(keys.page, after, limit)
        secrets = {key.id: kept for key, kept in await self._database.read(keys.load, [key.id for key in page])}
        return [self._shown(key, secrets.get(key.id, [])) for key in page]

    async def show(self, key_id: str) -> ShownKey:
        """Raises `NotFound`."""
        key = await self._database.read(keys.find, key_id)
        if key is None:
            raise NotFound
        return self._shown(key, await self._database.read(keys.secrets_of, key_id))

    async def update(self, actor: str, key_id: str, values: Mapping[str, Any]) -> ShownKey:
        """Give a key another `name`, `requests_per_minute`, `concurrency` or `expires_at` (None: without).

        Raises `NotFound`, `InvalidParameter`.
        """
        await self.show(key_id)
        _require_future(values.get("expires_at"), self._clock())
        return await self._change(actor, "key.update", key_id, dict(values), dict(values))

    async def rotate(self, actor: str, key_id: str, grace: float) -> tuple[ShownKey, Secret]:
        """Give a key a new secret; the older ones end in `grace` seconds. What the key has taken stays counted.

        Raises `NotFound`, `Conflict` for a revoked key.
        """
        if (await self.show(key_id)).key.revoked_at is not None:
            raise Conflict("The key is revoked: make a new one.")
        now = self._clock()
        kept, secret = self._new_secret(key_id, now)
        act = Act(now, actor, "key.rotate", key_id, {"grace": grace, "shown": kept.shown})
        await self._database.write(_ADD_SECRET, keys.NewSecret(kept, now + grace, act))
        await self._catalog.follow()
        return await self.show(key_id), secret

    async def revoke(self, actor: str, key_id: str) -> ShownKey:
        """End a key now, with all of its secrets. Raises `NotFound`."""
        shown = await self.show(key_id)
        if shown.key.revoked_at is not None:
            return shown
        return await self._change(actor, "key.revoke", key_id, {"revoked_at": self._clock()}, {})

    async def _change(
        self, actor: str, action: str, key_id: str, values: dict[str, Any], details: dict[str, Any]
    ) -> ShownKey:
        act = Act(self._clock(), actor, action, key_id, details)
        await self._database.write(_CHANGE, keys.KeyUpdate(key_id, values, act))
        await self._catalog.follow()
        return await self.show(key_id)

    def _new_secret(self, key_id: str, now: float) -> tuple[KeySecret, Secret]:
        secret = make_secret(self._entropy(ENTROPY_BYTES))
        return KeySecret(self._pepper.hash("key", secret), key_id, SCHEME_OWN, secret[:SHOWN], now), Secret(secret)

    def _shown(self, key: Key, secrets: list[KeySecret]) -> ShownKey:
        now = self._clock()
        return ShownKey(key, tuple(secret for secret in secrets if secret.is_valid(now)))


def _require_future(expires_at: float | None, now: float) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidParameter("expires_at", "is in the past")


_ENSURE_TENANT = each(keys.ensure_tenant)
_CREATE = each(keys.create)
_CHANGE = each(keys.change)
_ADD_SECRET = each(keys.add_secret)
