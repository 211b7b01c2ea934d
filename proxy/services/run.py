"""One claimed job on its way: what it holds, and what is written of it.

What is written, and when, is what makes a crash harmless: an attempt is committed before its submit, the upstream's
id the moment it is known, and the end of the job is one transaction with its charge.
"""

import asyncio
from dataclasses import replace

import structlog

from proxy.domain.errors import StorageBusy, StorageFull
from proxy.domain.jobs import File, Job, JobState
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange
from proxy.services.workshop import Workshop
from proxy.state.leases import Lease, Settlement
from proxy.storage import jobs
from proxy.storage.writer import A, Operation, R
from proxy.upstream.driver import Access, Driver

log = structlog.get_logger(__name__)

WRITE_AGAIN = 1.0  # seconds before a write that the disk refused is tried again


class Run:
    """The state of one job in work. `ended`: it has ended for its client; only its slot is still held, until the
    upstream is done with it."""

    def __init__(self, shop: Workshop, job: Job) -> None:
        self.shop = shop
        self.job = job
        self.ended = job.state.is_final
        self.sending = False  # from an attempt's beginning to its books: nothing may interrupt that
        self.submitted_at: float | None = None  # None: by a predecessor, or not yet
        self.progress = 0
        self.task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._ending = asyncio.Lock()  # one end is written at a time: the first counts

    # The slot

    @property
    def lease(self) -> Lease:
        if self._lease is None:
            raise RuntimeError("the run holds no lease")
        return self._lease

    def hold(self, lease: Lease) -> None:
        self._lease = lease

    def adopt(self) -> None:
        """Take up the slot that a predecessor held for this job."""
        job, now = self.job, self.shop.clock()
        if job.token_id is not None:
            self._lease = self.shop.pool.adopt(job.token_id, job.proxy_id, job.order.upstream_model, now)

    def give_back(self) -> None:
        if self._lease is not None:
            self.shop.dispatcher.release(self._lease)
            self._lease = None

    async def move(self, host: str | None = None) -> None:
        """Go on through another proxy when this one is at fault."""
        moved = self.shop.pool.move(self.lease, self.shop.clock(), host=host)
        if moved.proxy_id != self.lease.proxy_id:
            self._lease = moved
            self.job = replace(self.job, proxy_id=moved.proxy_id)
            if not self.ended:
                await self.write(jobs.moved, (self.job.id, self.job.fence, moved.proxy_id))

    @property
    def driver(self) -> Driver:
        return self.shop.drivers[self.lease.driver]

    def access(self) -> Access:
        lease, catalog = self.lease, self.shop.catalog
        token = catalog.token(lease.token_id)
        base_url = None if token is None else token.base_url
        return Access(lease.token_id, catalog.secret_of(lease.token_id), base_url, lease.proxy_id)

    # What is written

    async def write(self, operation: Operation[A, R], argument: A) -> R:
        """Write, and again while the disk is full or the database held: what was paid for is not lost to that."""
        while True:
            try:
                return await self.shop.database.write(operation, argument)
            except (StorageFull, StorageBusy) as refused:
                log.warning("write_refused", job=self.job.id, cause=refused.code)
                await asyncio.sleep(WRITE_AGAIN)

    async def settle(self, verdict: Verdict | None, step: Step, began_at: float, host: str | None = None) -> Settlement:
        """Let the pool draw its conclusions from one exchange; None: it went well."""
        exchange = Exchange(
            step=step,
            work_id=self.job.id,
            caller=self.job.key_id,
            content=self.job.body_hash.hex(),
            began_at=began_at,
            attempt_id=self.job.attempt_id,
            alone=self.shop.catalog.has_one_key,
            host=host,
        )
        return await self.shop.settlements.settle(self.lease, verdict, exchange)

    def attempt_end(self, verdict: Verdict | None, settlement: Settlement | None = None) -> jobs.AttemptEnd:
        """Return how the present attempt ended; a lost submit notes what it may have cost."""
        attempt_id, now = self.job.attempt_id or "", self.shop.clock()
        if verdict is None:
            return jobs.AttemptEnd(attempt_id, now, Outcome.OK, Blame.NOBODY)
        blame = verdict.blame if settlement is None else settlement.blame
        possible_cost = self.shop.estimate(self.job) if verdict.outcome is Outcome.LOST else None
        return jobs.AttemptEnd(attempt_id, now, verdict.outcome, blame, verdict.evidence, possible_cost)

    async def detach(self, state: JobState, error: str) -> bool:
        """End the job for its client; the run goes on, to hold the slot until the upstream is done. Return False if
        the job had ended already."""
        async with self._ending:
            if self.ended:
                return False
            self.ended = True
            await self._finish(jobs.Finish(self.job, state, self.shop.clock(), error))
            return True

    async def end(
        self,
        state: JobState,
        error: str | None,
        *,
        end: jobs.AttemptEnd | None = None,
        file: File | None = None,
        cost: int | None = None,
        charged: bool = True,
    ) -> None:
        """Write the end of the job with its charge, in one transaction; of one that has ended before, what it cost us.

        With `charged` False the tenant pays nothing.
        """
        async with self._ending:
            job, now = self.job, self.shop.clock()
            charged = charged and not self.ended
            money = None if cost is None else jobs.Money(cost, self.shop.price(job).charge(cost) if charged else 0)
            if not self.ended:
                self.ended = True
                await self._finish(jobs.Finish(job, state, now, error, file, money, end))
                return
            if end is not None:
                await self.write(jobs.close, jobs.Closing(job, now, end, money))
            if file is not None:
                await self.shop.media.remove(file.id)

    async def _finish(self, finish: jobs.Finish) -> None:
        job = finish.job
        await self.write(jobs.finish, finish)
        self.shop.reached("finished")
        self.shop.metrics.job_ended(finish.state, finish.error)
        self.shop.limits.release(job.key_id, job.id)
        file_id = None if finish.file is None else finish.file.id
        ended = replace(job, state=finish.state, error=finish.error, file_id=file_id, finished_at=finish.now)
        self.shop.wakeups.wake(job.id, ended)
        seconds = round(finish.now - job.created_at, 3)
        log.info("job_ended", job=job.id, state=finish.state, error=finish.error, seconds=seconds)
