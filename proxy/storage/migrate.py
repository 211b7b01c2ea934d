"""Schema upgrades, in the program and on the command line alike.

They run on a connection of their own with foreign keys off: with them on, SQLite's batch alter of a parent table
deletes its children without a word. The references are checked before the commit.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from proxy.storage.database import begin_immediate


class BrokenReferences(Exception):
    """A migration left rows that refer to nothing; it was rolled back."""


class UnknownRevision(Exception):
    """The database was made by a newer version of the program."""


def scripts() -> Path:
    """Return the folder of the migrations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def upgrade(path: Path, backups: Path, now: float) -> Path | None:
    """Bring the database at `path` to the newest schema; return the backup made before, if one was needed.

    Raises `UnknownRevision` when the database is newer than the program.
    """
    engine = migrating_engine(path)
    with engine.connect() as connection, connection.begin():
        current = MigrationContext.configure(connection).get_current_revision()
    directory = ScriptDirectory(str(scripts()))
    if current == directory.get_current_head():
        return None
    if current is not None and current not in {script.revision for script in directory.walk_revisions()}:
        raise UnknownRevision(f"{path} has the schema {current}, which this version does not know")
    backup = None if current is None else backups / f"{int(now)}-{current}.db"
    if backup is not None:
        back_up(path, backup)
    with engine.connect() as connection, connection.begin():
        command.upgrade(_config(connection), "head")
        check_references(connection)
    engine.dispose()
    return backup


def migrating_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", begin_immediate)
    return engine


def check_references(connection: Connection) -> None:
    """Raises `BrokenReferences`."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise BrokenReferences(f"{len(broken)} rows refer to nothing, the first in {broken[0][0]}")


def back_up(source: Path, target: Path) -> None:
    """Copy a database while it is in use."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    target.chmod(0o600)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    return config


def _prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.close()
    connection.isolation_level = None
