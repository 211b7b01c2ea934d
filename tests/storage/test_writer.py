"""The one writer: groups, failures, cancellation, a database held by somebody else."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest
from sqlalchemy import Connection, insert, select

from proxy.domain.errors import StorageBusy
from proxy.storage import database as database_module
from proxy.storage.database import Database
from proxy.storage.schema import sealed
from proxy.storage.writer import each


def put(connection: Connection, name: str) -> str:
    connection.execute(insert(sealed).values(name=name, value=b""))
    return name


PUT = each(put)


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(sealed.c.name)).scalars())


async def test_changes_that_wait_together_are_committed_together(database: Database) -> None:
    batches: list[int] = []

    def counted(connection: Connection, arguments: Sequence[str]) -> Sequence[str]:
        batches.append(len(arguments))
        return [put(connection, name) for name in arguments]

    written = await asyncio.gather(*(database.write(counted, f"n{number}") for number in range(300)))
    assert written == [f"n{number}" for number in range(300)]
    assert sum(batches) == 300
    assert len(batches) < 150
    assert len(await database.read(names)) == 300


async def test_a_change_that_fails_in_a_group_fails_nobody_else(database: Database) -> None:
    await database.write(PUT, "taken")
    results = await asyncio.gather(
        *(database.write(PUT, name) for name in ("a", "taken", "b", "c")), return_exceptions=True
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
    assert await database.read(names) == {"taken", "a", "b", "c"}


async def test_who_stops_waiting_does_not_stop_the_write(database: Database) -> None:
    waiting = asyncio.ensure_future(database.write(PUT, "kept"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await database.write(PUT, "later")
    assert await database.read(names) == {"kept", "later"}


async def test_a_database_held_by_another_process_is_said_to_be_busy(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 50)
    short = Database(database.path)
    await short.open()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusy):
            await short.write(PUT, "refused")
        holder.execute("ROLLBACK")
    assert await short.write(PUT, "accepted") == "accepted"
    await short.close()


async def test_commits_survive_a_loss_of_power(database: Database) -> None:
    def pragmas(connection: Connection, _argument: None) -> tuple[int, str]:
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        return synchronous, connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()

    assert await database.write(each(pragmas), None) == (2, "wal")  # 2 is FULL


async def test_the_version_moves_when_another_process_commits(database: Database) -> None:
    before = await database.version()
    assert await database.version() == before
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("INSERT INTO sealed VALUES ('other', x'')")
        other.commit()
    assert await database.version() != before
