"""Who waits for a job's end, and the word that wakes them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.domain.jobs import Job


class Wakeups:
    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[Job | None]]] = {}

    @contextmanager
    def waiter(self, job_id: str) -> Iterator[asyncio.Future[Job | None]]:
        """Give a future that `wake` resolves. Take it before looking at the row, or the word may be missed."""
        future: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        try:
            yield future
        finally:
            waiting = self._waiting[job_id]
            waiting.discard(future)
            if not waiting:
                del self._waiting[job_id]

    def wake(self, job_id: str, ended: Job | None = None) -> None:
        """Wake who waits for the job: with the ended job, or (None) to look for themselves."""
        for future in self._waiting.get(job_id, ()):
            if not future.done():
                future.set_result(ended)

    def awaited(self) -> list[str]:
        """Return the ids of the jobs that somebody waits for."""
        return list(self._waiting)
