"""What is done regularly: changes of other processes followed, and what is past its time removed."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from proxy.services.catalog import Catalog
from proxy.storage import changes, files, jobs
from proxy.storage.database import Database
from proxy.storage.media import MediaStore
from proxy.storage.writer import each

log = structlog.get_logger(__name__)

FOLLOW = 0.25  # seconds between two looks at what others have changed
SWEEP = 60.0  # seconds between two sweeps
FILES = 500  # removed in one sweep, at most


class Housekeeping:
    def __init__(
        self,
        *,
        database: Database,
        media: MediaStore,
        catalog: Catalog,
        idempotency_window: float,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._media = media
        self._catalog = catalog
        self._idempotency_window = idempotency_window
        self._clock = clock

    async def follow_forever(self) -> None:
        await _regularly(FOLLOW, self._catalog.follow)

    async def sweep_forever(self) -> None:
        await _regularly(SWEEP, self.sweep)

    async def sweep(self) -> None:
        """Remove files past their retention, replay keys past their window, changes that everybody has seen."""
        now = self._clock()
        expired = await self._database.read(files.expired, now, FILES)
        for file_id in expired:
            await self._media.remove(file_id)
        if expired:
            await self._database.write(_FORGET_FILES, expired)
        await self._database.write(_FORGET_REPLAYS, now - self._idempotency_window)
        await self._database.write(_FORGET_CHANGES, None)


async def _regularly(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` again and again; what goes wrong is logged and tried at the next turn."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("housekeeping_failed", work=work.__name__)
        await asyncio.sleep(seconds)


_FORGET_FILES = each(files.forget)
_FORGET_REPLAYS = each(jobs.forget_replays)
_FORGET_CHANGES = each(changes.forget)
