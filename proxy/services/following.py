"""A submitted job until the upstream is done with it, and its result until it is kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from proxy.domain.classify import conclude
from proxy.domain.errors import StorageFull
from proxy.domain.jobs import File, JobState
from proxy.domain.outcomes import Outcome, Step, UpstreamFailed, Verdict
from proxy.domain.polling import next_look
from proxy.services.run import Run
from proxy.upstream.driver import Done, Ended, Running

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 30.0  # seconds between two looks while they go wrong
FETCH_TRIES = 5
FETCH_AGAIN = 2.0  # seconds before the second try, doubled for each further one
GRACE = 10.0  # seconds after the submit in which "not found" may mean "not known yet"
HOLD = 900.0  # seconds past its deadline that a job's slot is held for an upstream that never says it is done
FTYP = slice(4, 8)  # where an MP4 says that it is one (ISO/IEC 14496-12)
JOB_ERRORS = {
    Outcome.MODERATED: "content_moderated",
    Outcome.REJECTED: "upstream_rejected",
    Outcome.NO_RESULT: "no_video_url",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A look went wrong; `retry_after` is in seconds."""

    retry_after: float


class NoVideo(Exception):
    """What the upstream handed out as a video is none."""


async def follow(run: Run) -> None:
    """Look at a submitted job until the upstream is done with it, and end it."""
    shop = run.shop
    is_left = run.submitted_at is None  # by a predecessor: looked at now, before it may be found overdue
    started = run.submitted_at or run.job.created_at
    pause = 0.0 if is_left else _pause(run, 0.0)
    troubles = 0
    while True:
        await asyncio.sleep(_until_deadline(run, pause))
        if not is_left and await _is_overdue(run):
            return
        is_left = False
        elapsed = shop.clock() - started
        look = await _look(run)
        shop.reached("polled")
        if await _conclude(run, look, elapsed):
            return
        pause = _pause(run, elapsed)
        troubles = troubles + 1 if isinstance(look, Trouble) else 0
        if isinstance(look, Trouble):
            pause = max(look.retry_after, min(pause * 2**troubles, LONGEST_PAUSE))


def _pause(run: Run, elapsed: float) -> float:
    return next_look(elapsed, run.progress, run.shop.learned(run.job).shortest(), run.shop.pace)


def _until_deadline(run: Run, pause: float) -> float:
    """Return the pause, cut short by the deadline where that comes first."""
    left = run.job.deadline - run.shop.clock()
    return min(pause, left) if left > 0 else pause


async def _conclude(run: Run, look: Running | Done | Ended | Verdict | Trouble, elapsed: float) -> bool:
    """End the job if the look showed its end; return whether it did."""
    match look:
        case Running():
            run.progress = max(run.progress, min(look.progress or 0, 99))
            return False
        case Done():
            await _deliver(run, look)
        case Ended() if look.outcome is not Outcome.GONE or elapsed > GRACE:
            await _upstream_ended(run, conclude(look.outcome, look.cost, look.detail))
        case Verdict():
            await _upstream_ended(run, look)
        case Ended() | Trouble():
            return False
    return True


async def _look(run: Run) -> Running | Done | Ended | Verdict | Trouble:
    """Poll once. A verdict ends the job; a trouble says nothing about it."""
    began_at = run.shop.clock()
    try:
        async with run.shop.pollers:
            return await run.driver.poll(run.job.upstream_id or "", run.access())
    except UpstreamFailed as failure:
        verdict = run.shop.settlements.classify(failure.signal, Step.POLL)
    except Exception:
        log.exception("driver_crashed", job=run.job.id, driver=run.lease.driver)
        return Trouble(0.0)
    if verdict.ends_job:
        return verdict
    await run.settle(verdict, Step.POLL, began_at)
    await run.move()
    return Trouble(verdict.retry_after or 0.0)


async def _is_overdue(run: Run) -> bool:
    """End the job for its client at its deadline; return whether its slot was held long enough after that, too."""
    now, deadline = run.shop.clock(), run.job.deadline
    if now >= deadline:
        await run.detach(JobState.FAILED, "generation_timeout")
    if now < deadline + HOLD:
        return False
    verdict = conclude(Outcome.LOST, None, "the upstream never said that it was done")
    await run.end(JobState.FAILED, "generation_timeout", end=run.attempt_end(verdict))
    return True


async def _upstream_ended(run: Run, verdict: Verdict) -> None:
    """The upstream finished the job without a video."""
    settlement = await run.settle(verdict, Step.POLL, run.shop.clock())
    error = JOB_ERRORS.get(verdict.outcome, "upstream_failed")
    await run.end(JobState.FAILED, error, end=run.attempt_end(verdict, settlement), cost=verdict.cost)


async def _deliver(run: Run, done: Done) -> None:
    """Keep the finished video and end the job with it."""
    if run.submitted_at is not None:
        run.shop.learned(run.job).learn(run.shop.clock() - run.submitted_at)
    cost = run.shop.estimate(run.job) if done.cost is None else done.cost
    file, error = (None, None) if run.ended else await _fetch(run, done)
    state = JobState.FAILED if file is None else JobState.COMPLETED
    await run.end(state, error, end=run.attempt_end(None), file=file, cost=cost, charged=file is not None)


async def _fetch(run: Run, done: Done) -> tuple[File | None, str | None]:
    """Fetch the result, by another proxy if need be; return its file, or the code of what went wrong.

    A full disk uses up no try: what was paid for is kept once there is room, until the job's deadline. The file is
    named after the attempt: what a crash left of it, whole but unknown, is replaced and not kept twice.
    """
    file_id = "file_" + (run.job.attempt_id or "").removeprefix("try_")
    tries, pause = 0, FETCH_AGAIN
    while True:
        try:
            file, error = await _fetch_once(run, done, file_id)
        except StorageFull:
            file, error = None, "internal_server_error"
            tries = tries if run.shop.clock() < run.job.deadline else FETCH_TRIES
        else:
            tries += 1
        if file is not None or tries >= FETCH_TRIES:
            return file, error
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _fetch_once(run: Run, done: Done, file_id: str) -> tuple[File | None, str | None]:
    shop, host = run.shop, urlsplit(done.url).hostname
    began_at = shop.clock()
    try:
        async with run.driver.fetch(done, run.access()) as chunks:
            kept = await shop.media.keep_stream(file_id, _video(chunks, shop.reached))
    except NoVideo:
        return None, "upstream_bad_response"
    except UpstreamFailed as failure:
        verdict = shop.settlements.classify(failure.signal, Step.FETCH)
        await run.settle(verdict, Step.FETCH, began_at, host)
        await run.move(host)
        return None, "upstream_bad_response" if verdict.outcome is Outcome.GARBLED else "upstream_failed"
    shop.reached("kept")
    now = shop.clock()
    owner = run.job.tenant_id
    return File(file_id, owner, run.job.id, "video/mp4", kept.size, kept.sha256, now, now + shop.retention), None


async def _video(chunks: AsyncIterator[bytes], reached: Callable[[str], None]) -> AsyncIterator[bytes]:
    """Pass the bytes of an MP4 on. Raises `NoVideo`."""
    held, is_video = b"", False
    async for chunk in chunks:
        held += chunk
        if not is_video and len(held) >= FTYP.stop:
            is_video = held[FTYP] == b"ftyp"
            if not is_video:
                raise NoVideo
        if is_video:
            yield held
            held = b""
            reached("downloading")
    if not is_video:
        raise NoVideo
