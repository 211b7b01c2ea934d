"""The gateway's own secrets, sealed; and the rotation of the master key over everything sealed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Column, Connection, Table, insert, select, update

from proxy.domain.secret import Secret
from proxy.storage.changes import Act, record
from proxy.storage.schema import proxies, sealed, tokens
from proxy.storage.seal import Place, Sealer

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed values; `name` is what their associated data calls it."""

    table: Table
    column: Column[bytes]
    row: Column[str]
    name: str


SEALED_COLUMNS = (
    SealedColumn(sealed, sealed.c.value, sealed.c.name, "value"),
    SealedColumn(tokens, tokens.c.sealed_secret, tokens.c.id, "secret"),
    SealedColumn(proxies, proxies.c.sealed_url, proxies.c.id, "url"),
    SealedColumn(proxies, proxies.c.sealed_clearance, proxies.c.id, "clearance"),
)


@dataclass(frozen=True, slots=True)
class OwnSecret:
    """A secret the gateway makes for itself, once."""

    name: str
    sealer: Sealer
    entropy: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Everything is to be sealed under the current key of `sealer`."""

    sealer: Sealer
    act: Act


def own_secret(connection: Connection, wanted: OwnSecret) -> Secret:
    """Return the secret of that name, made at its first use. Raises `Unsealable`: the start-up self-test."""
    place = Place("sealed", wanted.name, "value")
    value = connection.execute(select(sealed.c.value).where(sealed.c.name == wanted.name)).scalar_one_or_none()
    if value is not None:
        return wanted.sealer.open(value, place)
    secret = wanted.entropy(SECRET_BYTES).hex()
    connection.execute(insert(sealed).values(name=wanted.name, value=wanted.sealer.seal(secret, place)))
    return Secret(secret)


def reseal(connection: Connection, sealer: Sealer) -> int:
    """Seal everything under the current master key; return how many values were sealed anew. Raises `Unsealable`."""
    return sum(_reseal_column(connection, sealer, column) for column in SEALED_COLUMNS)


def rotate(connection: Connection, rotation: Rotation) -> int:
    """Seal everything under the current master key, on an operator's word. Raises `Unsealable`."""
    resealed = reseal(connection, rotation.sealer)
    record(connection, replace(rotation.act, details=rotation.act.details | {"resealed": resealed}))
    return resealed


def _reseal_column(connection: Connection, sealer: Sealer, of: SealedColumn) -> int:
    query = select(of.row, of.column).where(of.column.is_not(None))
    stale = [(row, value) for row, value in connection.execute(query) if not sealer.is_current(value)]
    for row, value in stale:
        place = Place(of.table.name, row, of.name)
        anew = sealer.seal(sealer.open(value, place).reveal(), place)
        connection.execute(update(of.table).where(of.row == row).values({of.column: anew}))
    return len(stale)
