"""Cooldowns that survive a restart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects.sqlite import insert

from proxy.domain.cooldowns import Cooldown, Subject, SubjectKind
from proxy.storage.changes import Act, record
from proxy.storage.schema import cooldowns

_STATE = ("until", "since", "strikes", "cause", "evidence", "attempt_id")


@dataclass(frozen=True, slots=True)
class Clearing:
    """An operator ends these rests before their time."""

    subjects: tuple[Subject, ...]
    act: Act


def put(connection: Connection, batch: Sequence[tuple[Cooldown, ...]]) -> Sequence[None]:
    """Keep cooldowns, each in the place of the one its subject had."""
    rows = {cooldown.subject: _row(cooldown) for each in batch for cooldown in each}
    statement = insert(cooldowns)
    key = [cooldowns.c.subject_kind, cooldowns.c.subject_id, cooldowns.c.scope]
    newest = {name: statement.excluded[name] for name in _STATE}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=newest), list(rows.values()))
    return [None] * len(batch)


def load(connection: Connection) -> list[Cooldown]:
    return [_cooldown(row) for row in connection.execute(select(cooldowns))]


def forget(connection: Connection, subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        connection.execute(
            delete(cooldowns).where(
                cooldowns.c.subject_kind == subject.kind,
                cooldowns.c.subject_id == subject.id,
                cooldowns.c.scope == subject.scope,
            )
        )


def clear(connection: Connection, clearing: Clearing) -> None:
    """Forget cooldowns on an operator's word."""
    forget(connection, clearing.subjects)
    record(connection, clearing.act)


def _row(cooldown: Cooldown) -> dict[str, Any]:
    subject = cooldown.subject
    state = {name: getattr(cooldown, name) for name in _STATE}
    return {"subject_kind": subject.kind, "subject_id": subject.id, "scope": subject.scope} | state


def _cooldown(row: Row[Any]) -> Cooldown:
    subject = Subject(SubjectKind(row.subject_kind), row.subject_id, row.scope)
    return Cooldown(subject, row.until, row.since, row.strikes, row.cause, row.evidence, row.attempt_id)
