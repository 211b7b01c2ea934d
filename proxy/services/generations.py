"""The client's side of a generation: an order becomes a job, and the job's end an answer."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import structlog

from proxy.domain.errors import (
    Draining,
    GenerationTimeout,
    IdempotencyMismatch,
    NoTokenAvailable,
    QueueFull,
    VideoNotFound,
)
from proxy.domain.ids import make_id
from proxy.domain.jobs import File, Job, JobState
from proxy.domain.keys import Key
from proxy.domain.limits import Standing
from proxy.domain.orders import Order
from proxy.services.awaited import AwaitedJobs
from proxy.services.images import ImageChecker, decode_data_uri
from proxy.services.worker import Worker
from proxy.services.workshop import Workshop
from proxy.storage import files, jobs
from proxy.upstream.driver import Image
from proxy.upstream.fetch import ImageFetcher

log = structlog.get_logger(__name__)

LOOK = 10.0  # seconds between two looks at the rows for an end whose wake-up was missed
DRAIN_RETRY = 10.0  # seconds, told to a client while the gateway stops


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    deadline: float  # seconds a job may take
    dedupe_window: float  # seconds
    max_wait: float  # seconds: with no slot sooner than that, an order is refused
    max_length: int  # jobs that may wait
    max_image: int  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One order as its client put it."""

    dialect: str
    job_prefix: str
    order: Order
    image_url: str
    body_hash: bytes
    idempotency_key: str | None
    synchronous: bool  # the client waits for the answer in the same request
    is_connected: Callable[[], bool]


class Generations:
    def __init__(
        self,
        *,
        shop: Workshop,
        worker: Worker,
        fetcher: ImageFetcher,
        checker: ImageChecker,
        options: GenerationOptions,
    ) -> None:
        self._shop = shop
        self._worker = worker
        self._fetcher = fetcher
        self._checker = checker
        self._options = options
        self._awaited = AwaitedJobs(options.dedupe_window)
        self._accepting: dict[tuple[str, str], tuple[bytes, asyncio.Future[Job]]] = {}
        self.draining = False

    async def start(self) -> None:
        """Rebuild what is live from the rows: windows, concurrency, and whose client was cut off by the restart."""
        now, read = self._shop.clock(), self._shop.database.read
        admitted = await read(jobs.admitted_since, now - 60.0)
        running = [(job.key_id, job.id) for job in await read(jobs.unfinished)]
        self._shop.limits.restore(admitted, running)
        for job in await read(jobs.unseen_since, now - self._options.dedupe_window):
            self._awaited.restore(job)

    async def submit(self, caller: Key, request: Request) -> Job:
        """Accept one order as a job; or return the job that this client's earlier, identical request made.

        Under an Idempotency-Key that is the job of the key (24 h, any state; twins join the one being accepted).
        Without one it is the unfinished or unseen job of a synchronous request whose client left before its answer.
        A replay costs no allowance; a refused order consumes none. Semantics of the header after Stripe and
        draft-ietf-httpapi-idempotency-key-header-07.

        Raises `Invalid`, `RateLimited`, `TooManyConcurrent`, `QueueFull`, `Overloaded`.
        """
        if request.idempotency_key is None:
            return await self._join(caller, request) or await self._accept(caller, request)
        place = (caller.tenant_id, request.idempotency_key)
        if place not in self._accepting:
            return await self._replay(caller, request) or await self._accept_once(caller, request)
        body_hash, accepting = self._accepting[place]
        if body_hash != request.body_hash:
            raise IdempotencyMismatch
        return self._joined(await asyncio.shield(accepting), request)

    async def wait(self, job: Job, seconds: float) -> Job:
        """Return the ended job, woken within milliseconds of its end.

        Raises `GenerationTimeout` when `seconds` have passed, or the gateway stops; the job goes on.
        """
        end = asyncio.get_running_loop().time() + seconds
        with self._awaited.waiting(job):
            while True:
                with self._shop.wakeups.waiter(job.id) as woken:
                    job = await self.find(job.id, job.tenant_id)
                    if job.state.is_final:
                        return job
                    remaining = end - asyncio.get_running_loop().time()
                    if remaining <= 0 or self.draining:
                        raise GenerationTimeout
                    await asyncio.wait([woken], timeout=remaining)
                    if woken.done() and (ended := woken.result()) is not None:
                        return ended

    async def find(self, job_id: str, tenant_id: str) -> Job:
        """Raises `VideoNotFound`, for an absent job and another tenant's alike."""
        job = self._worker.job(job_id) or await self._shop.database.read(jobs.find, job_id, tenant_id)
        if job is None or job.tenant_id != tenant_id:
            raise VideoNotFound
        return job

    async def file(self, file_id: str) -> File | None:
        return await self._shop.database.read(files.find, file_id)

    def progress(self, job: Job) -> int:
        """Return how far the job is, in per cent."""
        return 100 if job.state is JobState.COMPLETED else self._worker.progress(job.id)

    def standing(self, caller: Key) -> Standing | None:
        return self._shop.limits.standing(caller, self._shop.clock())

    async def seen(self, job: Job) -> None:
        """The client was given the result: a later identical request is a new order."""
        self._shop.reached("answered")
        self._awaited.drop(job)
        await self._shop.database.write(jobs.seen, (job.id, self._shop.clock()))

    async def wake_forever(self) -> None:
        """The safety net under the wake-ups: look for ends that nobody was told of."""
        while True:
            await asyncio.sleep(LOOK)
            awaited = set(self._shop.wakeups.awaited())
            try:
                ended = await self._shop.database.read(jobs.finished_since, self._shop.clock() - 2 * LOOK)
            except Exception:
                log.exception("ends_not_read")
                continue
            for job_id in awaited.intersection(ended):
                self._shop.wakeups.wake(job_id)

    def drain(self) -> None:
        """Accept no more."""
        self.draining = True

    def dismiss(self) -> None:
        """Send those who still wait away, with the id of their job."""
        for job_id in self._shop.wakeups.awaited():
            self._shop.wakeups.wake(job_id)

    def is_awaited(self, job_ids: list[str]) -> bool:
        """Tell whether somebody who is still there waits for one of these jobs."""
        awaited = set(job_ids).intersection(self._shop.wakeups.awaited())
        return not awaited <= self._awaited.left_alone()

    async def _join(self, caller: Key, request: Request) -> Job | None:
        """Return the job of an identical request whose client left before its answer."""
        if not request.synchronous:
            return None
        awaited = self._awaited.abandoned((caller.id, request.body_hash), self._shop.clock())
        if awaited is None:
            return None
        awaited.clients.append(request.is_connected)
        log.info("request_joined", job=awaited.job_id)
        await asyncio.shield(awaited.accepted)
        return await self.find(awaited.job_id, caller.tenant_id)

    async def _replay(self, caller: Key, request: Request) -> Job | None:
        """Return the job that was accepted under the Idempotency-Key. Raises `IdempotencyMismatch`."""
        key = request.idempotency_key or ""
        found = await self._shop.database.read(jobs.replay, caller.tenant_id, key)
        if found is None:
            return None
        job_id, earlier_hash = found
        if earlier_hash != request.body_hash:
            raise IdempotencyMismatch
        return self._joined(await self.find(job_id, caller.tenant_id), request)

    def _joined(self, job: Job, request: Request) -> Job:
        if request.synchronous:
            self._awaited.come_back(job, request.is_connected)
        return job

    async def _accept_once(self, caller: Key, request: Request) -> Job:
        """Accept under an Idempotency-Key, so that a twin that comes meanwhile joins."""
        place = (caller.tenant_id, request.idempotency_key or "")
        if place in self._accepting:  # a twin was quicker while the rows were looked at
            return await self.submit(caller, request)
        accepting: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._accepting[place] = (request.body_hash, accepting)
        try:
            job = await self._accept(caller, request)
        except BaseException as error:
            accepting.set_exception(error)
            accepting.exception()  # a twin may or may not be there to see it
            raise
        else:
            accepting.set_result(job)
            return job
        finally:
            del self._accepting[place]

    async def _accept(self, caller: Key, request: Request) -> Job:
        """Check the limits, get the image, and record the job in one transaction."""
        shop = self._shop
        now = shop.clock()
        job = self._new_job(caller, request, now)
        self._require_capacity(job)
        shop.media.require_room()
        shop.limits.admit(caller, job.id, now, self._slot_in(job))
        try:
            with self._awaited.accepting(job, request.is_connected) if request.synchronous else nullcontext():
                job = await self._record(job, request)
        except BaseException:
            shop.limits.release(caller.id, job.id)
            raise
        shop.reached("accepted")
        self._worker.wake()
        log.info("job_accepted", job=job.id, key=caller.id, model=job.order.model, prompt=job.order.prompt)
        return job

    async def _record(self, job: Job, request: Request) -> Job:
        """Get and keep the image, and commit the job with it."""
        image = await self._image(request.image_url)
        file = await self._keep(image, job)
        job = replace(job, input_file_id=file.id)
        acceptance = jobs.Acceptance(job, self._shop.estimate(job), file, request.idempotency_key)
        try:
            await self._shop.database.write(jobs.accept, acceptance)
        except Exception:
            await self._shop.media.remove(file.id)  # but not where the wait alone was cancelled: the write goes on
            raise
        return job

    def _new_job(self, caller: Key, request: Request, now: float) -> Job:
        return Job(
            id=make_id(request.job_prefix, now, self._shop.entropy(16)),
            dialect=request.dialect,
            tenant_id=caller.tenant_id,
            key_id=caller.id,
            state=JobState.QUEUED,
            order=request.order,
            body_hash=request.body_hash,
            created_at=now,
            deadline=now + self._options.deadline,
            queue_tag=now,
            synchronous=request.synchronous,
        )

    def _require_capacity(self, job: Job) -> None:
        """Refuse what could not be served soon. Raises `Draining`, `QueueFull`, `NoTokenAvailable`."""
        if self.draining:
            raise Draining(DRAIN_RETRY)
        outlook = self._shop.dispatcher.outlook(self._shop.want(job))
        if outlook is None or outlook > self._options.max_wait:
            raise NoTokenAvailable(self._options.max_wait if outlook is None else outlook)
        if self._shop.dispatcher.waiting >= self._options.max_length:
            raise QueueFull(self._options.max_length, self._slot_in(job))

    def _slot_in(self, job: Job) -> float:
        """Estimate when a generation ends: a tenth of how long they take, at least a second."""
        return max(1.0, (self._shop.learned(job).mean() or 10.0) / 10)

    async def _image(self, url: str) -> Image:
        """Raises `InvalidImageUrl`, `ImageTooLarge`."""
        data = url[:5].lower() == "data:"
        content = decode_data_uri(url, self._options.max_image) if data else await self._fetcher.fetch(url)
        return await self._checker.check(content)

    async def _keep(self, image: Image, job: Job) -> File:
        shop, now = self._shop, job.created_at
        file_id = make_id("file_", now, shop.entropy(16))
        kept = await shop.media.keep(file_id, image.content)
        expires_at = now + shop.retention
        return File(file_id, job.tenant_id, job.id, image.media_type, kept.size, kept.sha256, now, expires_at)
