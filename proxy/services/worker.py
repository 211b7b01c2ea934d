"""The worker: claims due jobs in the order of the queue and sees each to its end."""

import asyncio
from collections.abc import Callable

import structlog

from proxy.domain.errors import StaleFence, StorageBusy, StorageFull
from proxy.domain.jobs import Job, JobState
from proxy.services.following import follow
from proxy.services.run import Run
from proxy.services.submission import resume_ambiguous, submit
from proxy.services.tasks import Tasks
from proxy.services.workshop import Workshop
from proxy.storage import jobs
from proxy.storage.writer import each

log = structlog.get_logger(__name__)

CLAIM = 500  # jobs in one claim, at most
RETRY = 1.0  # seconds before the queue is looked at again while the database refuses
LOOK = 15.0  # seconds between two looks at the queue that nobody asked for
DRAIN_STEP = 0.1  # seconds between two looks at what still runs
HANDOVER = 3.0  # seconds of the drain time kept for handing over


class Worker:
    def __init__(self, *, worker_id: str, workshop: Workshop, max_in_flight: int) -> None:
        self._id = worker_id
        self._shop = workshop
        self._max_in_flight = max_in_flight
        self._tasks = Tasks()
        self._runs: dict[str, Run] = {}
        self._due = asyncio.Event()
        self._draining = False

    async def start(self) -> None:
        """Take over what a predecessor left, then work."""
        freed = await self._shop.database.write(_TAKE_OVER, self._id)
        if freed:
            log.info("jobs_taken_over", jobs=freed)
        for job in await self._shop.database.read(jobs.held_after_end):
            self._begin(job)  # ended for its client; its slot is held until the upstream is done
        self._due.set()
        self._tasks.start(self._claim_forever(), "claims")

    def wake(self) -> None:
        """A job is due."""
        self._due.set()

    def progress(self, job_id: str) -> int:
        run = self._runs.get(job_id)
        return 0 if run is None else run.progress

    def running(self) -> int:
        return len(self._runs)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job of this worker; False when it has no such job. Its waiters are told at once; the token's slot
        is held until the upstream is done with what it has taken."""
        run = self._runs.get(job_id)
        if run is None or run.detached or run.task is None:
            return False
        run.cancelled = True
        if run.sending or run.job.upstream_id is not None:
            await run.detach(JobState.CANCELLED, "job_cancelled")
        else:
            run.task.cancel()
            await asyncio.wait([run.task])
        return True

    async def drain(self, seconds: float, is_awaited: Callable[[list[str]], bool]) -> None:
        """Claim no more; end within `seconds`. Jobs with somebody waiting may finish; the others are handed over, and
        no submit is interrupted."""
        self._draining = True
        self._due.set()
        loop = asyncio.get_running_loop()
        end = loop.time() + max(0.0, seconds - HANDOVER)
        while (left := end - loop.time()) > 0 and self._must_wait(is_awaited):
            await asyncio.wait(self._unfinished(), timeout=min(left, DRAIN_STEP))
        await self._tasks.close()
        await self._shop.database.write(_RELEASE, self._id)

    def _unfinished(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._runs.values() if run.task is not None]

    def _must_wait(self, is_awaited: Callable[[list[str]], bool]) -> bool:
        live = [job_id for job_id, run in self._runs.items() if not run.detached]
        return any(self._runs[job_id].sending for job_id in live) or is_awaited(live)

    async def _claim_forever(self) -> None:
        while not self._draining:
            self._due.clear()
            try:
                full = await self._claim()
            except (StorageBusy, StorageFull):
                await asyncio.sleep(RETRY)
                continue
            if not full:
                await _wait(self._due, LOOK)

    async def _claim(self) -> bool:
        """Claim what there is room for; return whether more may be due."""
        room = min(CLAIM, self._max_in_flight - len(self._runs))
        if room <= 0:
            return False
        claimed = await self._shop.database.write(jobs.claim, jobs.Claim(self._id, room))
        for job in claimed:
            self._begin(job)
        return len(claimed) == room

    def _begin(self, job: Job) -> None:
        run = Run(self._shop, job)
        self._runs[job.id] = run
        run.task = self._tasks.start(self._see_through(run), f"job {job.id}")

    async def _see_through(self, run: Run) -> None:
        """See a job to its end, whatever happens."""
        try:
            await _work(run)
        except asyncio.CancelledError:
            if not run.cancelled:
                raise  # handed over: the row says how far it has come
            await run.end(JobState.CANCELLED, "job_cancelled")
        except StaleFence:
            log.warning("job_lost_to_another_worker", job=run.job.id)
        except Exception:
            log.exception("job_crashed", job=run.job.id)
            await run.end(JobState.FAILED, "internal_server_error")
        finally:
            run.give_back()
            self._runs.pop(run.job.id, None)
            self._due.set()  # there is room for another


async def _work(run: Run) -> None:
    match run.job.state:
        case JobState.QUEUED:
            accepted = await submit(run)
        case JobState.SENDING:
            accepted = await resume_ambiguous(run)
        case _:
            run.adopt()
            accepted = True
    if accepted:
        await follow(run)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


_TAKE_OVER = each(jobs.take_over)
_RELEASE = each(jobs.release)
