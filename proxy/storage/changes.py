"""What changed in the tables that every process keeps in memory, and who changed it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, insert, select

from proxy.storage.schema import audit, changes

KEPT = 10_000  # changes remembered; a process that is further behind than that starts anew


@dataclass(frozen=True, slots=True)
class Act:
    """Something an operator (or a confirmed fact) did; `details` holds no secret."""

    at: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


def mark(connection: Connection, kind: str, ids: Iterable[str]) -> None:
    """Tell the processes that rows of `kind` are new."""
    rows = [{"kind": kind, "id": id_} for id_ in ids]
    if rows:
        connection.execute(insert(changes), rows)


def latest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one())


def since(connection: Connection, seq: int) -> list[tuple[int, str, str]]:
    """Return `(seq, kind, id)` of the changes after `seq`, oldest first."""
    query = select(changes.c.seq, changes.c.kind, changes.c.id).where(changes.c.seq > seq).order_by(changes.c.seq)
    return [(row.seq, row.kind, row.id) for row in connection.execute(query)]


def forget(connection: Connection, _argument: None = None) -> None:
    """Drop all but the last `KEPT`."""
    connection.execute(delete(changes).where(changes.c.seq <= latest(connection) - KEPT))


def record(connection: Connection, act: Act) -> None:
    """Add one line to the audit."""
    row = {"at": act.at, "actor": act.actor, "action": act.action, "subject": act.subject}
    connection.execute(insert(audit).values(row | {"details": orjson.dumps(act.details).decode()}))


def audit_page(connection: Connection, before: int | None, limit: int) -> list[tuple[int, Act]]:
    """Return the audit, newest first, from before the line `before`."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.seq < before)
    return [
        (row.seq, Act(row.at, row.actor, row.action, row.subject, orjson.loads(row.details)))
        for row in connection.execute(query)
    ]
