"""Proxies. The whole URL and the clearance are stored sealed; the masked URL is for people."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from proxy.domain.proxies import Proxy
from proxy.storage import schema, tokens
from proxy.storage.changes import Act, mark, record
from proxy.storage.schema import proxies
from proxy.storage.seal import Place


@dataclass(frozen=True, slots=True)
class Stored:
    """A proxy with what is sealed of it."""

    proxy: Proxy
    sealed_url: bytes
    sealed_clearance: bytes | None


@dataclass(frozen=True, slots=True)
class NewProxy:
    stored: Stored
    act: Act


@dataclass(frozen=True, slots=True)
class ProxyUpdate:
    """New values for some columns of one proxy."""

    id: str
    values: dict[str, Any]
    act: Act


def url_place(proxy_id: str) -> Place:
    return Place("proxies", proxy_id, "url")


def clearance_place(proxy_id: str) -> Place:
    return Place("proxies", proxy_id, "clearance")


def create(connection: Connection, new: NewProxy) -> None:
    stored = new.stored
    proxy = stored.proxy
    row = {
        "id": proxy.id,
        "name": proxy.name,
        "url": proxy.url,
        "enabled": proxy.enabled,
        "created_at": proxy.created_at,
        "sealed_url": stored.sealed_url,
        "sealed_clearance": stored.sealed_clearance,
        "user_agent": proxy.user_agent,
    }
    connection.execute(insert(proxies).values(row))
    _note(connection, proxy.id, new.act)


def change(connection: Connection, new: ProxyUpdate) -> None:
    connection.execute(update(proxies).where(proxies.c.id == new.id).values(new.values))
    _note(connection, new.id, new.act)


def remove(connection: Connection, removal: ProxyUpdate) -> None:
    """Take a proxy out; tokens that were pinned to it are not any more."""
    pinned = tokens.pinned_to(connection, removal.id)
    connection.execute(update(schema.tokens).where(schema.tokens.c.proxy_id == removal.id).values(proxy_id=None))
    mark(connection, "token", pinned)
    change(connection, removal)


def find(connection: Connection, proxy_id: str) -> Proxy | None:
    query = select(proxies).where(proxies.c.id == proxy_id, proxies.c.removed_at.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else _proxy(row)


def page(connection: Connection, after: str | None, limit: int) -> list[Stored]:
    """Return proxies by age, oldest first, from behind the id `after`; removed ones are left out."""
    query = select(proxies).where(proxies.c.removed_at.is_(None)).order_by(proxies.c.id).limit(limit)
    if after is not None:
        query = query.where(proxies.c.id > after)
    return [_stored(row) for row in connection.execute(query)]


def load(connection: Connection, ids: Collection[str] | None = None) -> list[Stored]:
    """Return proxies (all of them, or those of `ids`), removed ones too."""
    query = select(proxies) if ids is None else select(proxies).where(proxies.c.id.in_(ids))
    return [_stored(row) for row in connection.execute(query)]


def _note(connection: Connection, proxy_id: str, act: Act) -> None:
    mark(connection, "proxy", [proxy_id])
    record(connection, act)


def _proxy(row: Row[Any]) -> Proxy:
    return Proxy(
        id=row.id,
        name=row.name,
        url=row.url,
        enabled=row.enabled,
        removed=row.removed_at is not None,
        exit_address=row.exit_address,
        has_clearance=row.sealed_clearance is not None,
        user_agent=row.user_agent,
        created_at=row.created_at,
    )


def _stored(row: Row[Any]) -> Stored:
    return Stored(_proxy(row), row.sealed_url, row.sealed_clearance)
