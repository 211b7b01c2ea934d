"""The worker: claims due jobs in the order of the queue and sees each to its end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

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
        await self._claim(running=True)  # these take their slots before anybody new can
        self._due.set()
        self._tasks.start(self._claim_forever(), "claims")

    def wake(self) -> None:
        """A job is due."""
        self._due.set()

    def job(self, job_id: str) -> Job | None:
        """Return a job in work as it stands, without a look at its row; None where it is not in work, or ending."""
        run = self._runs.get(job_id)
        if run is None or run.ended:
            return None
        is_sending = run.sending and run.job.upstream_id is None
        return replace(run.job, state=JobState.SENDING) if is_sending else run.job

    def progress(self, job_id: str) -> int:
        run = self._runs.get(job_id)
        return 0 if run is None else run.progress

    def running(self) -> int:
        return len(self._runs)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job of this worker; False when it has no such job. Its waiters are told at once; the token's slot
        is held until the upstream is done with what it has taken."""
        run = self._runs.get(job_id)
        if run is None or run.task is None or not await run.detach(JobState.CANCELLED, "job_cancelled"):
            return False
        if not run.sending and run.job.upstream_id is None:
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
        with suppress(StorageBusy, StorageFull):  # the next start takes them over all the same
            await self._shop.database.write(_RELEASE, self._id)

    def _unfinished(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._runs.values() if run.task is not None]

    def _must_wait(self, is_awaited: Callable[[list[str]], bool]) -> bool:
        live = [job_id for job_id, run in self._runs.items() if not run.ended]
        return any(run.sending for run in self._runs.values()) or is_awaited(live)

    async def _claim_forever(self) -> None:
        while not self._draining:
            self._due.clear()
            try:
                full = await self._claim()
            except Exception as refused:
                log.warning("claim_failed", cause=str(refused))
                await asyncio.sleep(RETRY)
                continue
            if not full:
                await _wait(self._due, LOOK)

    async def _claim(self, *, running: bool = False) -> bool:
        """Claim what there is room for, `running` ones alone or any; return whether more may be due."""
        room = self._max_in_flight - len(self._runs)
        room = room if running else min(CLAIM, room)
        if room <= 0:
            return False
        claimed = await self._shop.database.write(jobs.claim, jobs.Claim(self._id, room, running))
        if claimed:
            self._shop.reached("claimed")
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
        case _ if run.job.upstream_id is None:
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
