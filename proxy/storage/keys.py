"""Keys, and the hashes of their secrets."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from proxy.domain.keys import Key, KeyLimits, KeySecret
from proxy.domain.tenants import Tenant
from proxy.storage.changes import Act, mark, record
from proxy.storage.schema import key_secrets, keys, tenants


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret for a key; the older ones of the same key end at `older_end` (a rotation's grace period)."""

    secret: KeySecret
    older_end: float | None
    act: Act


@dataclass(frozen=True, slots=True)
class NewKey:
    key: Key
    secret: KeySecret
    act: Act


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """New values for some columns of one key."""

    id: str
    values: dict[str, Any]
    act: Act


def create(connection: Connection, new: NewKey) -> None:
    connection.execute(insert(keys).values(_key_row(new.key)))
    connection.execute(insert(key_secrets).values(_secret_row(new.secret)))
    _note(connection, new.key.id, new.act)


def change(connection: Connection, new: KeyUpdate) -> None:
    connection.execute(update(keys).where(keys.c.id == new.id).values(new.values))
    _note(connection, new.id, new.act)


def add_secret(connection: Connection, new: NewSecret) -> None:
    key_id, end = new.secret.key_id, new.older_end
    older = (key_secrets.c.key_id == key_id) & (key_secrets.c.expires_at.is_(None) | (key_secrets.c.expires_at > end))
    connection.execute(update(key_secrets).where(older).values(expires_at=end))
    connection.execute(insert(key_secrets).values(_secret_row(new.secret)))
    _note(connection, key_id, new.act)


def find(connection: Connection, key_id: str) -> Key | None:
    row = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    return None if row is None else _key(row)


def page(connection: Connection, after: str | None, limit: int) -> list[Key]:
    """Return keys by age, oldest first, from behind the id `after`."""
    query = select(keys).order_by(keys.c.id).limit(limit)
    if after is not None:
        query = query.where(keys.c.id > after)
    return [_key(row) for row in connection.execute(query)]


def load(connection: Connection, ids: Collection[str] | None = None) -> list[tuple[Key, list[KeySecret]]]:
    """Return keys (all of them, or those of `ids`) with their secrets' hashes."""
    query, secrets = select(keys), select(key_secrets)
    if ids is not None:
        query, secrets = query.where(keys.c.id.in_(ids)), secrets.where(key_secrets.c.key_id.in_(ids))
    by_key: dict[str, list[KeySecret]] = {}
    for row in connection.execute(secrets):
        by_key.setdefault(row.key_id, []).append(_secret(row))
    return [(_key(row), by_key.get(row.id, [])) for row in connection.execute(query)]


def secrets_of(connection: Connection, key_id: str) -> list[KeySecret]:
    query = select(key_secrets).where(key_secrets.c.key_id == key_id).order_by(key_secrets.c.created_at)
    return [_secret(row) for row in connection.execute(query)]


def count_valid(connection: Connection, now: float) -> int:
    """Return how many keys are neither revoked nor expired."""
    lasting = keys.c.expires_at.is_(None) | (keys.c.expires_at > now)
    query = select(func.count()).select_from(keys).where(keys.c.revoked_at.is_(None), lasting)
    return int(connection.execute(query).scalar_one())


def tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    row = connection.execute(select(tenants).where(tenants.c.id == tenant_id)).one_or_none()
    return None if row is None else Tenant(row.id, row.name, row.weight)


def ensure_tenant(connection: Connection, new: tuple[Tenant, float]) -> None:
    """Create a tenant that is not there yet, at that moment."""
    subject, now = new
    if tenant(connection, subject.id) is None:
        row = {"id": subject.id, "name": subject.name, "weight": subject.weight, "created_at": now}
        connection.execute(insert(tenants).values(row))


def _note(connection: Connection, key_id: str, act: Act) -> None:
    mark(connection, "key", [key_id])
    record(connection, act)


def _key_row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "requests_per_minute": key.limits.requests_per_minute,
        "concurrency": key.limits.concurrency,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        limits=KeyLimits(row.requests_per_minute, row.concurrency),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _secret_row(secret: KeySecret) -> dict[str, Any]:
    return {
        "hash": secret.hash,
        "key_id": secret.key_id,
        "scheme": secret.scheme,
        "shown": secret.shown,
        "created_at": secret.created_at,
        "expires_at": secret.expires_at,
    }


def _secret(row: Row[Any]) -> KeySecret:
    return KeySecret(row.hash, row.key_id, row.scheme, row.shown, row.created_at, row.expires_at)
