"""The operator's side of the jobs: listed, shown with their attempts, cancelled."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.domain.errors import Conflict, NotFound, StaleFence
from proxy.domain.jobs import Attempt, Job, JobState
from proxy.services.worker import Worker
from proxy.state.limits import Limits
from proxy.state.wakeups import Wakeups
from proxy.storage import attempts, changes, jobs
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.jobs import Money
from proxy.storage.writer import each

TRIES = 5  # at a job that changes hands while it is cancelled


@dataclass(frozen=True, slots=True)
class ShownJob:
    """`progress` is in per cent; `money` is known once the upstream has been paid."""

    job: Job
    progress: int
    attempts: tuple[Attempt, ...] = ()
    money: Money | None = None


class Jobs:
    def __init__(
        self, *, database: Database, worker: Worker, limits: Limits, wakeups: Wakeups, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._worker = worker
        self._limits = limits
        self._wakeups = wakeups
        self._clock = clock

    async def page(
        self, before: str | None, limit: int, state: JobState | None = None, key_id: str | None = None
    ) -> list[ShownJob]:
        """Return jobs without their attempts, newest first."""
        page = await self._database.read(jobs.page, before, limit, state, key_id)
        return [ShownJob(job, self._progress(job)) for job in page]

    async def show(self, job_id: str) -> ShownJob:
        """Raises `NotFound`."""
        job = await self._find(job_id)
        made = await self._database.read(jobs.attempts_of, job_id)
        money = await self._database.read(attempts.money_of, job_id)
        return ShownJob(job, self._progress(job), tuple(made), money)

    async def cancel(self, actor: str, job_id: str) -> ShownJob:
        """End a job for its client, who is told at once. The slot of its token stays held until the upstream is done.

        Raises `NotFound`, `Conflict` for a job that has ended otherwise.
        """
        for _ in range(TRIES):
            if await self._worker.cancel(job_id):
                break
            job = await self._find(job_id)
            if job.state is JobState.CANCELLED:
                return await self.show(job_id)
            if job.state.is_final:
                raise Conflict(f"The job has {job.state} already.")
            if await self._end(job):
                break
        act = Act(self._clock(), actor, "job.cancel", job_id, {})
        await self._database.write(_RECORD, act)
        return await self.show(job_id)

    async def _end(self, job: Job) -> bool:
        """End a job that no worker here holds; False when one has claimed it meanwhile."""
        now = self._clock()
        try:
            await self._database.write(jobs.cancel, (job, now))
        except StaleFence:
            return False
        self._limits.release(job.key_id, job.id)
        ended = replace(job, state=JobState.CANCELLED, error="job_cancelled", finished_at=now)
        self._wakeups.wake(job.id, ended)
        return True

    async def _find(self, job_id: str) -> Job:
        job = await self._database.read(jobs.find, job_id)
        if job is None:
            raise NotFound
        return job

    def _progress(self, job: Job) -> int:
        return 100 if job.state is JobState.COMPLETED else self._worker.progress(job.id)


_RECORD = each(changes.record)
