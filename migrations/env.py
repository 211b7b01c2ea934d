"""How alembic runs the migrations: on the connection the program hands in, or by itself from the command line.

`alembic upgrade head` upgrades the data folder that the settings name; `alembic -x data_dir=FOLDER …` another one.
"""

import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection

from proxy.config import load
from proxy.storage.migrate import check_references, migrating_engine
from proxy.storage.schema import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def run_alone() -> None:
    given = context.get_x_argument(as_dictionary=True).get("data_dir")
    folder = Path(given) if given else Path(load(None, {}, os.environ).data_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with migrating_engine(folder / "grokpool.db").connect() as connection, connection.begin():
        run(connection)
        check_references(connection)


def run_offline() -> None:
    """`alembic upgrade head --sql`: print the statements, for the database `-x dialect=NAME` names."""
    dialect = context.get_x_argument(as_dictionary=True).get("dialect", "sqlite")
    context.configure(dialect_name=dialect, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if context.is_offline_mode():
    run_offline()
elif handed_in is None:
    run_alone()
else:
    run(handed_in)
