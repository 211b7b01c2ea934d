"""The rows of kept files."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from proxy.domain.jobs import File
from proxy.storage.schema import files


def find(connection: Connection, file_id: str) -> File | None:
    row = connection.execute(select(files).where(files.c.id == file_id)).one_or_none()
    return None if row is None else File(**row._asdict())


def expired(connection: Connection, now: float, limit: int) -> list[str]:
    """Return ids of files whose retention has ended."""
    query = select(files.c.id).where(files.c.expires_at <= now).order_by(files.c.expires_at).limit(limit)
    return list(connection.execute(query).scalars())


def forget(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(delete(files).where(files.c.id.in_(ids)))
