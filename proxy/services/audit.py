"""Who did what, newest first."""

from proxy.storage import changes
from proxy.storage.changes import Act
from proxy.storage.database import Database


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, before: int | None, limit: int) -> list[tuple[int, Act]]:
        """Return `(seq, act)` from before the line `before`."""
        return await self._database.read(changes.audit_page, before, limit)
