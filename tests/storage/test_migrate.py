"""Schema upgrades: from nothing, up and down, backed up, with the references kept whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

from proxy.storage import migrate
from proxy.storage.schema import metadata


def config(connection: Connection) -> Config:
    made = Config()
    made.set_main_option("script_location", str(migrate.scripts()))
    made.attributes["connection"] = connection
    return made


def test_the_migrations_make_the_schema_of_the_code(path: Path) -> None:
    with migrate.migrating_engine(path).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_upgrade_of_the_newest_schema_does_nothing(path: Path, tmp_path: Path) -> None:
    assert migrate.upgrade(path, tmp_path / "backups", 1.0) is None
    assert not (tmp_path / "backups").exists()


def test_down_to_nothing_and_up_again(path: Path, tmp_path: Path) -> None:
    with migrate.migrating_engine(path).connect() as connection, connection.begin():
        command.downgrade(config(connection), "base")
    assert migrate.upgrade(path, tmp_path / "backups", 1.0) is None  # nothing was there to back up
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(migrate.UnknownRevision, match="9999"):
        migrate.upgrade(path, tmp_path / "backups", 1.0)
    assert path.read_bytes() == before


def test_altering_a_parent_table_keeps_its_children(path: Path) -> None:
    """SQLite rebuilds the table; with foreign keys on, that would delete every key of the tenant."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO tenants (id, name, created_at) VALUES ('t', 'T', 0)")
        database.execute("INSERT INTO keys (id, tenant_id, name, created_at) VALUES ('k', 't', 'K', 0)")
        database.commit()
    with migrate.migrating_engine(path).connect() as connection, connection.begin():
        operations = Operations(MigrationContext.configure(connection, opts={"render_as_batch": True}))
        with operations.batch_alter_table("tenants", recreate="always") as batch:
            batch.alter_column("name", nullable=True)
        migrate.check_references(connection)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT id FROM keys").fetchall() == [("k",)]


def test_rows_that_refer_to_nothing_stop_a_migration(path: Path) -> None:
    with migrate.migrating_engine(path).connect() as connection, connection.begin():
        connection.exec_driver_sql("INSERT INTO keys (id, tenant_id, name, created_at) VALUES ('k', 'gone', 'K', 0)")
        with pytest.raises(migrate.BrokenReferences):
            migrate.check_references(connection)
        connection.rollback()


def test_a_backup_is_a_whole_database(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backups" / "copy.db"
    migrate.back_up(path, copy)
    assert copy.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
