"""What the operator has paused: everything, a driver, or a model."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from proxy.storage.changes import Act, mark, record
from proxy.storage.schema import pauses


@dataclass(frozen=True, slots=True)
class Pause:
    kind: str  # all, driver, model
    id: str  # empty for all
    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class PauseChange:
    """Set a pause, or (`on` false) lift it."""

    pause: Pause
    on: bool
    act: Act


def change(connection: Connection, new: PauseChange) -> None:
    pause = new.pause
    connection.execute(delete(pauses).where(pauses.c.kind == pause.kind, pauses.c.id == pause.id))
    if new.on:
        row = {"kind": pause.kind, "id": pause.id, "since": pause.since, "reason": pause.reason}
        connection.execute(insert(pauses).values(row))
    mark(connection, "pause", [pause.kind])
    record(connection, new.act)


def load(connection: Connection) -> list[Pause]:
    return [Pause(row.kind, row.id, row.since, row.reason) for row in connection.execute(select(pauses))]
