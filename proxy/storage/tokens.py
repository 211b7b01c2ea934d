"""Tokens. Their secrets are stored sealed and found by a keyed hash."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from proxy.domain.errors import Conflict
from proxy.domain.tokens import Token, TokenState
from proxy.storage.changes import Act, mark, record
from proxy.storage.schema import tokens
from proxy.storage.seal import Place


@dataclass(frozen=True, slots=True)
class NewToken:
    token: Token
    sealed_secret: bytes
    secret_hash: bytes
    act: Act


@dataclass(frozen=True, slots=True)
class TokenUpdate:
    """New values for some columns of one token."""

    id: str
    values: dict[str, Any]
    act: Act


def place(token_id: str) -> Place:
    return Place("tokens", token_id, "secret")


def create(connection: Connection, new: NewToken) -> None:
    secret = {"sealed_secret": new.sealed_secret, "secret_hash": new.secret_hash}
    connection.execute(insert(tokens).values(_row(new.token) | secret))
    _note(connection, new.token.id, new.act)


def change(connection: Connection, new: TokenUpdate) -> None:
    connection.execute(update(tokens).where(tokens.c.id == new.id).values(new.values))
    _note(connection, new.id, new.act)


def add(connection: Connection, new: NewToken) -> None:
    """Create a token, unless another has its secret. Raises `Conflict`, which names that one."""
    _require_new(connection, new.token.id, new.secret_hash)
    create(connection, new)


def alter(connection: Connection, new: TokenUpdate) -> None:
    """Change a token, its secret too unless another has it. Raises `Conflict`, which names that one."""
    if "secret_hash" in new.values:
        _require_new(connection, new.id, new.values["secret_hash"])
    change(connection, new)


def columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of fields of a `Token` as those of its columns."""
    row = dict(values)
    if row.get("models") is not None:
        row["models"] = orjson.dumps(row["models"]).decode()
    return row


def find(connection: Connection, token_id: str) -> Token | None:
    query = select(tokens).where(tokens.c.id == token_id, tokens.c.state != TokenState.REMOVED)
    row = connection.execute(query).one_or_none()
    return None if row is None else _token(row)


def find_by_hash(connection: Connection, secret_hash: bytes) -> Token | None:
    query = select(tokens).where(tokens.c.secret_hash == secret_hash, tokens.c.state != TokenState.REMOVED)
    row = connection.execute(query).first()
    return None if row is None else _token(row)


def page(connection: Connection, after: str | None, limit: int) -> list[Token]:
    """Return tokens by age, oldest first, from behind the id `after`; removed ones are left out."""
    query = select(tokens).where(tokens.c.state != TokenState.REMOVED).order_by(tokens.c.id).limit(limit)
    if after is not None:
        query = query.where(tokens.c.id > after)
    return [_token(row) for row in connection.execute(query)]


def load(connection: Connection, ids: Collection[str] | None = None) -> list[tuple[Token, bytes]]:
    """Return tokens (all of them, or those of `ids`, removed ones too) with their sealed secrets."""
    query = select(tokens) if ids is None else select(tokens).where(tokens.c.id.in_(ids))
    return [(_token(row), row.sealed_secret) for row in connection.execute(query)]


def pinned_to(connection: Connection, proxy_id: str) -> list[str]:
    """Return the ids of the tokens that the operator has pinned to a proxy."""
    query = select(tokens.c.id).where(tokens.c.proxy_id == proxy_id, tokens.c.state != TokenState.REMOVED)
    return list(connection.execute(query.order_by(tokens.c.id)).scalars())


def _require_new(connection: Connection, token_id: str, secret_hash: bytes) -> None:
    twin = find_by_hash(connection, secret_hash)
    if twin is not None and twin.id != token_id:
        raise Conflict(f"The token {twin.id} has this secret.")


def _note(connection: Connection, token_id: str, act: Act) -> None:
    mark(connection, "token", [token_id])
    record(connection, act)


def _row(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "driver": token.driver,
        "state": token.state,
        "tier": token.tier,
        "team": token.team,
        "base_url": token.base_url,
        "models": None if token.models is None else orjson.dumps(token.models).decode(),
        "concurrency": token.concurrency,
        "proxy_id": token.proxy_id,
        "disabled_cause": token.disabled_cause,
        "created_at": token.created_at,
    }


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        driver=row.driver,
        state=TokenState(row.state),
        concurrency=row.concurrency,
        tier=row.tier,
        team=row.team,
        base_url=row.base_url,
        proxy_id=row.proxy_id,
        models=None if row.models is None else tuple(orjson.loads(row.models)),
        disabled_cause=row.disabled_cause,
        created_at=row.created_at,
    )
