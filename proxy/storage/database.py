"""One SQLite database: reads on aiosqlite, changes through the writer."""

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from proxy.storage.writer import A, Operation, R, Writer

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000
READERS = 4


class Database:
    """Storage functions take a `Connection` and are run by `read` or `write`:

    `await database.read(jobs.find, job_id)`, `await database.write(jobs.accept, acceptance)`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = writing_engine(path)
        self._writer = Writer(self._engine)
        self._readers = create_async_engine(
            f"sqlite+aiosqlite:///{path}", poolclass=AsyncAdaptedQueuePool, pool_size=READERS, max_overflow=0
        )
        event.listen(self._readers.sync_engine, "connect", _prepare_reader)
        self._watch: AsyncConnection = self._readers.connect()  # data_version is a connection's own view

    async def open(self) -> None:
        self._writer.start()
        await self._watch.start()

    async def close(self) -> None:
        await self._writer.close()
        await self._watch.close()
        await self._readers.dispose()
        self._engine.dispose()

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._readers.connect() as connection:
            return await connection.run_sync(query, *args, **kwargs)

    async def write(self, operation: Operation[A, R], argument: A) -> R:
        return await self._writer.write(operation, argument)

    async def version(self) -> int:
        """Return a number that moves whenever anybody, in this process or another, has committed a change."""
        result = await self._watch.exec_driver_sql("PRAGMA data_version")
        version = int(result.scalar_one())
        await self._watch.rollback()
        return version


def writing_engine(path: Path) -> Engine:
    """Return an engine whose transactions take the write lock at once and are power-loss safe."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", begin_immediate)
    return engine


def begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_writer(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    _run(
        connection,
        f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
    )
    # The driver's own transaction handling is off: SQLAlchemy's begin event says what a transaction is.
    connection.isolation_level = None


def _prepare_reader(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    _run(connection, f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA query_only=ON")


def _run(connection: DBAPIConnection, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(pragma)
    cursor.close()
