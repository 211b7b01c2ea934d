"""Attempts of a job until the upstream accepts one."""

import asyncio
from dataclasses import replace

import structlog

from proxy.domain.ids import make_id
from proxy.domain.jobs import Attempt, JobState
from proxy.domain.outcomes import Blame, Outcome, Phase, Signal, Step, Trouble, UpstreamFailed, Verdict
from proxy.domain.retries import Retry, Tried, next_try
from proxy.services.dispatcher import NothingServes, Rank
from proxy.services.run import Run
from proxy.state.leases import Want
from proxy.storage import jobs
from proxy.upstream.driver import Image

log = structlog.get_logger(__name__)

WITHDRAWN = Verdict(Outcome.CANCELLED, Blame.NOBODY, "cancelled before anything was sent")
SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


async def submit(run: Run) -> bool:
    """Try until an attempt is accepted; False when the job ended without one."""
    tries = await _earlier_tries(run)
    want = _next(run, tries) if tries else None
    if want is not None and not want.again:
        await run.end(JobState.FAILED, want.error)
        return False
    while await _slot(run, want):
        want = await _try(run, tries)
        if want is None or not want.again:
            return want is None
        run.give_back()
        await asyncio.sleep(want.pause)
    return False


async def resume_ambiguous(run: Run) -> bool:
    """Go on with a job whose worker died inside the submit: whether the upstream took it is not known.

    It is not repeated, for it may have been paid; but once, where the setting `jobs.on_ambiguous` says so.
    Returns whether an attempt was accepted.
    """
    signal = Signal(Phase.AFTER, trouble=Trouble.RESET, detail="the gateway stopped inside the submit")
    end = run.attempt_end(run.shop.settlements.classify(signal, Step.SUBMIT))
    run.sending = True
    try:
        if run.ended or not _may_repeat(run, await _earlier_tries(run)):
            await run.end(JobState.FAILED, "submit_ambiguous", end=end)
            return False
        await run.write(jobs.failed, jobs.Failure(run.job.id, run.job.fence, end))
    finally:
        run.sending = False
    return await submit(run)


async def _slot(run: Run, retry: Retry | None) -> bool:
    """Wait for a slot; False, and the job ended, where there is none for it in its time."""
    error = await _lease(run, retry)
    if error is not None:
        await run.end(JobState.FAILED, error)
    return error is None


async def _lease(run: Run, retry: Retry | None) -> str | None:
    """Take a slot; or return the code of the failure that there is none for the job."""
    shop, job = run.shop, run.job
    want = shop.want(job) if retry is None else _narrowed(shop.want(job), retry)
    failure = "upstream_failed" if retry is None else retry.error
    left = job.deadline - shop.clock()
    if left <= 0:
        return "generation_timeout"  # it may have waited for a gateway to start
    if retry is not None and (shop.dispatcher.outlook(want) or 0.0) > left:
        return failure
    try:
        async with asyncio.timeout(left):
            run.hold(await shop.dispatcher.lease(want, Rank(job.priority, job.queue_tag)))
    except TimeoutError:
        return "generation_timeout"
    except NothingServes:
        return failure
    shop.reached("leased")
    return None


def _narrowed(want: Want, retry: Retry) -> Want:
    return replace(
        want,
        token_id=retry.token_id,
        preferred_token=retry.preferred_token,
        excluded_tokens=retry.excluded_tokens,
        excluded_proxies=retry.excluded_proxies,
        excluded_teams=retry.excluded_teams,
    )


async def _try(run: Run, tries: list[Tried]) -> Retry | None:
    """Make one attempt, add it to `tries` and write down how it ended; None: it was accepted."""
    image = await _image(run)
    run.sending = True
    try:
        attempt = await _begin(run, len(tries) + 1)
        if run.ended:
            await run.end(JobState.CANCELLED, None, end=run.attempt_end(WITHDRAWN))
            return Retry(False, "job_cancelled", WITHDRAWN.reason)
        upstream_id, signal = await _send(run, image)
        if upstream_id is not None:
            await _accepted(run, attempt, upstream_id)
        return None if signal is None else await _failed(run, attempt, signal, tries)
    finally:
        run.sending = False


async def _begin(run: Run, number: int) -> Attempt:
    """Commit the attempt, before anything is sent: no crash can hide it then."""
    shop, job, lease = run.shop, run.job, run.lease
    now = shop.clock()
    attempt = Attempt(
        id=make_id("try_", now, shop.entropy(16)),
        work_id=job.id,
        number=number,
        token_id=lease.token_id,
        proxy_id=lease.proxy_id,
        started_at=now,
        why=lease.why,
    )
    await run.write(jobs.begin, jobs.Beginning(attempt, job.fence))
    run.job = replace(job, attempt_id=attempt.id, token_id=lease.token_id, proxy_id=lease.proxy_id)
    shop.reached("sending")
    return attempt


async def _send(run: Run, image: Image | None) -> tuple[str | None, Signal | None]:
    """Submit; return the upstream's id, or the signal of what went wrong."""
    try:
        return await run.driver.submit(run.job.order, image, run.access()), None
    except UpstreamFailed as failure:
        return None, failure.signal
    except Exception:
        log.exception("driver_crashed", job=run.job.id, driver=run.lease.driver)
        return None, Signal(Phase.AFTER, trouble=Trouble.MALFORMED, detail="the driver crashed")


async def _accepted(run: Run, attempt: Attempt, upstream_id: str) -> None:
    """Store the upstream's id, at once."""
    run.shop.reached("submit_answered")
    job = run.job
    await run.write(jobs.submitted, jobs.Submission(job.id, job.fence, attempt.id, upstream_id))
    run.job = replace(job, state=JobState.RUNNING, upstream_id=upstream_id)
    run.submitted_at = run.shop.clock()
    run.shop.reached("submitted")
    await run.settle(None, Step.SUBMIT, attempt.started_at)
    log.info("submitted", job=job.id, attempt=attempt.id, token=attempt.token_id, proxy=attempt.proxy_id)


async def _failed(run: Run, attempt: Attempt, signal: Signal, tries: list[Tried]) -> Retry:
    """Settle an attempt that was not accepted, and send the job back to the queue or end it."""
    verdict = run.shop.settlements.classify(signal, Step.SUBMIT)
    settlement = await run.settle(verdict, Step.SUBMIT, attempt.started_at)
    tries.append(_tried(run, verdict.outcome, settlement.retry, verdict.cost))
    end, want = run.attempt_end(verdict, settlement), _next(run, tries)
    if run.ended or not want.again:
        await run.end(JobState.FAILED, want.error, end=end, cost=verdict.cost)
        return replace(want, again=False)
    await run.write(jobs.failed, jobs.Failure(run.job.id, run.job.fence, end))
    return want


async def _image(run: Run) -> Image | None:
    if run.job.input_file_id is None:
        return None
    content = await run.shop.media.read(run.job.input_file_id)
    return Image(next(kind for start, kind in SIGNATURES.items() if content.startswith(start)), content)


def _next(run: Run, tries: list[Tried]) -> Retry:
    shop = run.shop
    retry = next_try(tries, shop.pool.proxies(), shop.jitter(), shop.settlements.policy)
    # A throttled token rests anyway; where there is no other, the order waits for it.
    throttled = {tried.token_id for tried in tries if tried.outcome is Outcome.THROTTLED}
    retry = replace(retry, excluded_tokens=retry.excluded_tokens - throttled)
    repeat = tries[-1].outcome is Outcome.LOST and _may_repeat(run, tries[:-1])
    return replace(retry, again=True) if repeat else retry


def _may_repeat(run: Run, earlier: list[Tried]) -> bool:
    """Tell whether an order whose submit was lost is sent again: once, where the setting says so."""
    return run.shop.on_ambiguous == "resubmit_once" and all(tried.outcome is not Outcome.LOST for tried in earlier)


def _tried(run: Run, outcome: Outcome, retry: bool, cost: int | None) -> Tried:
    lease = run.lease
    return Tried(lease.token_id, lease.proxy_id, lease.team, outcome, retry, cost)


async def _earlier_tries(run: Run) -> list[Tried]:
    """Rebuild what was tried before a restart: it counts against the caps."""
    if run.job.attempt_id is None:
        return []
    return [
        Tried(attempt.token_id, attempt.proxy_id, None, Outcome(attempt.outcome))
        for attempt in await run.shop.database.read(jobs.attempts_of, run.job.id)
        if attempt.outcome is not None
    ]
