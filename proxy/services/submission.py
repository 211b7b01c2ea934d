"""Attempts of a job until the upstream accepts one."""

import asyncio
from dataclasses import replace

import structlog

from proxy.domain.ids import make_id
from proxy.domain.jobs import Attempt, JobState
from proxy.domain.outcomes import Outcome, Phase, Signal, Step, Trouble, UpstreamFailed
from proxy.domain.retries import Retry, Tried, next_try
from proxy.services.dispatcher import NothingServes, Rank
from proxy.services.run import Run
from proxy.storage import jobs
from proxy.upstream.driver import Image

log = structlog.get_logger(__name__)

SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


async def submit(run: Run) -> bool:
    """Try until an attempt is accepted; False when the job ended without one."""
    tries = await _earlier_tries(run)
    want = _next(run, tries) if tries else None
    while await _slot(run, want):
        attempt, signal = await _attempt(run, len(tries) + 1)
        if signal is None:
            return True
        verdict = run.shop.settlements.classify(signal, Step.SUBMIT)
        settlement = await run.settle(verdict, Step.SUBMIT, attempt.started_at)
        tries.append(_tried(run, verdict.outcome, settlement.retry, verdict.cost))
        end = run.attempt_end(verdict, settlement)
        want = _next(run, tries)
        if not want.again:
            await run.end(JobState.FAILED, want.error, end=end, cost=verdict.cost)
            return False
        await run.write(jobs.failed, jobs.Failure(run.job.id, run.job.fence, end))
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
    if run.shop.on_ambiguous == "resubmit_once" and not await _earlier_tries(run):
        await run.write(jobs.failed, jobs.Failure(run.job.id, run.job.fence, end))
        return await submit(run)
    await run.end(JobState.FAILED, "submit_ambiguous", end=end)
    return False


async def _slot(run: Run, retry: Retry | None) -> bool:
    """Wait for a slot; False (and the job ended) when there will be none, or its deadline passed first."""
    shop, job = run.shop, run.job
    want = shop.want(job)
    if retry is not None:
        want = replace(
            want,
            token_id=retry.token_id,
            preferred_token=retry.preferred_token,
            excluded_tokens=retry.excluded_tokens,
            excluded_proxies=retry.excluded_proxies,
            excluded_teams=retry.excluded_teams,
        )
    try:
        async with asyncio.timeout(max(0.0, job.deadline - shop.clock())):
            run.hold(await shop.dispatcher.lease(want, Rank(job.priority, job.queue_tag)))
    except TimeoutError:
        await run.end(JobState.FAILED, "generation_timeout")
        return False
    except NothingServes:
        await run.end(JobState.FAILED, "upstream_failed" if retry is None else retry.error)
        return False
    shop.reached("leased")
    return True


async def _attempt(run: Run, number: int) -> tuple[Attempt, Signal | None]:
    """Make one attempt: committed as `sending` before the submit, the upstream's id stored right after it."""
    shop, job, lease = run.shop, run.job, run.lease
    image = await _image(run)
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
    run.sending = True
    try:
        await run.write(jobs.begin, jobs.Beginning(attempt, job.fence))
        shop.reached("sending")
        run.job = replace(job, attempt_id=attempt.id, token_id=lease.token_id, proxy_id=lease.proxy_id)
        upstream_id, signal = await _send(run, image)
        if upstream_id is not None:
            await _accepted(run, attempt, upstream_id)
        return attempt, signal
    finally:
        run.sending = False


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
    run.shop.reached("submit_answered")
    job = run.job
    await run.write(jobs.submitted, jobs.Submission(job.id, job.fence, attempt.id, upstream_id))
    run.job = replace(job, state=JobState.RUNNING, upstream_id=upstream_id)
    run.submitted_at = run.shop.clock()
    run.shop.reached("submitted")
    await run.settle(None, Step.SUBMIT, attempt.started_at)
    log.info("submitted", job=job.id, attempt=attempt.id, token=attempt.token_id, proxy=attempt.proxy_id)


async def _image(run: Run) -> Image | None:
    if run.job.input_file_id is None:
        return None
    content = await run.shop.media.read(run.job.input_file_id)
    return Image(next(kind for start, kind in SIGNATURES.items() if content.startswith(start)), content)


def _next(run: Run, tries: list[Tried]) -> Retry:
    shop = run.shop
    retry = next_try(tries, shop.pool.proxies(), shop.jitter(), shop.settlements.policy)
    repeat = retry.error == "submit_ambiguous" and shop.on_ambiguous == "resubmit_once" and len(tries) == 1
    return replace(retry, again=True) if repeat else retry


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
