"""The one writer of a SQLite database: a thread that commits in groups."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from proxy.domain.errors import StorageBusy, StorageFull

A = TypeVar("A")
R = TypeVar("R")

Operation = Callable[[Connection, Sequence[A]], Sequence[R]]
"""One kind of change, applied to a batch of arguments; returns one result for each, in order.

It is run again, argument by argument, when the group it was in fails: it must have no effect beside the connection.
"""

GROUP = 512  # changes in one commit, at most
RETRY_AFTER = 5.0  # seconds, told to a client while the database cannot be written


@dataclass(slots=True)
class Unit(Generic[A, R]):
    operation: Operation[A, R]
    argument: A
    future: asyncio.Future[R]


class Writer:
    """Runs changes in one thread on one connection; whatever waits is committed together.

    One power-loss safe commit (`synchronous=FULL`) then serves many jobs. A unit that fails in a group is retried
    alone, so that it fails nobody else; cancelling who waits never cancels the write.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._units: queue.SimpleQueue[Unit[Any, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._units.put(None)
        await asyncio.to_thread(self._thread.join)

    async def write(self, operation: Operation[A, R], argument: A) -> R:
        """Commit one change and return its result once it is on the disk.

        Raises what the operation raises, `StorageFull` when the disk is, `StorageBusy` when another process held the
        database for longer than the busy time-out.
        """
        unit = Unit(operation, argument, self._loop.create_future())
        self._units.put(unit)
        return await asyncio.shield(unit.future)

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while (unit := self._units.get()) is not None:
                group, stop = self._gather(unit)
                self._commit(connection, group)
                if stop:
                    return

    def _gather(self, first: Unit[Any, Any]) -> tuple[list[Unit[Any, Any]], bool]:
        group = [first]
        while len(group) < GROUP:
            try:
                unit = self._units.get_nowait()
            except queue.Empty:
                break
            if unit is None:
                return group, True
            group.append(unit)
        return group, False

    def _commit(self, connection: Connection, group: list[Unit[Any, Any]]) -> None:
        try:
            answers: list[tuple[Unit[Any, Any], object]] = list(_apply(connection, group))
        except Exception as error:
            if len(group) > 1 and not isinstance(error, OperationalError):
                for unit in group:
                    self._commit(connection, [unit])
                return
            failure = _translated(error)
            answers = [(unit, failure) for unit in group]
        self._loop.call_soon_threadsafe(_deliver, answers)


def each(change: Callable[[Connection, A], R]) -> Operation[A, R]:
    """Make an operation of a change that gains nothing from batches."""

    def operation(connection: Connection, arguments: Sequence[A]) -> Sequence[R]:
        return [change(connection, argument) for argument in arguments]

    return operation


def _apply(connection: Connection, group: list[Unit[Any, Any]]) -> list[tuple[Unit[Any, Any], object]]:
    """Run the group in one transaction. Its units wait at the same time, so that their order is free: each operation
    takes all of its arguments at once."""
    batches: dict[Operation[Any, Any], list[Unit[Any, Any]]] = {}
    for unit in group:
        batches.setdefault(unit.operation, []).append(unit)
    answers: list[tuple[Unit[Any, Any], object]] = []
    with connection.begin():
        for operation, units in batches.items():
            answers += zip(units, operation(connection, [unit.argument for unit in units]), strict=True)
    return answers


def _translated(error: Exception) -> Exception:
    if isinstance(error, OperationalError) and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return StorageFull(RETRY_AFTER)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StorageBusy(RETRY_AFTER)
    return error


def _deliver(answers: list[tuple[Unit[Any, Any], object]]) -> None:
    for unit, answer in answers:
        if unit.future.done():
            continue
        if isinstance(answer, Exception):
            unit.future.set_exception(answer)
        else:
            unit.future.set_result(answer)
