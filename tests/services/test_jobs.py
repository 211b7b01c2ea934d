"""The operator's side of the jobs, with a real worker where one is needed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from proxy.domain.errors import Conflict, NotFound, StaleFence
from proxy.domain.jobs import Attempt, Job, JobState
from proxy.domain.secret import Secret
from proxy.storage import jobs
from tests.services.house import OPERATOR, House, house, until
from tests.upstream.xai_script import Exchange, Reply, Serve
from tests.upstream.xai_server import XaiServer


@pytest.fixture
async def upstream() -> AsyncIterator[XaiServer]:
    async with XaiServer(seconds=None) as server:
        yield server


@pytest.fixture
async def here(tmp_path: Path, upstream: XaiServer) -> AsyncIterator[House]:
    async with house(tmp_path, base_url=upstream.base_url) as built:
        yield built


@pytest.fixture
async def key_id(here: House) -> str:
    return (await here.keys.create(OPERATOR, name="shop", limits={}))[0].key.id


@pytest.fixture
async def token_id(here: House) -> str:
    return (await here.tokens.add(OPERATOR, "xai", Secret("xai-1"), {"concurrency": 1})).token.id


async def end_of(here: House, job_id: str) -> Job:
    with here.shop.wakeups.waiter(job_id) as woken:
        job = await here.database.read(jobs.find, job_id)
        if job is not None and job.state.is_final:
            return job
        async with asyncio.timeout(10):
            ended = await woken
    assert ended is not None
    return ended


async def released(here: House, token_id: str) -> None:
    await until(lambda: not here.pool.token_view(token_id, here.clock()).in_flight)


async def test_a_queued_job_is_cancelled_where_no_worker_holds_it(here: House, key_id: str) -> None:
    job = await here.job(key_id)
    with here.shop.wakeups.waiter(job.id) as woken:
        shown = await here.jobs.cancel(OPERATOR, job.id)
        async with asyncio.timeout(5):
            told = await woken
    assert shown.job.state is JobState.CANCELLED
    assert shown.job.error == "job_cancelled"
    assert told is not None
    assert told.state is JobState.CANCELLED
    assert (await here.actions())[-1] == "job.cancel"


async def test_who_claimed_a_job_before_its_cancellation_can_write_no_more(here: House, key_id: str) -> None:
    await here.job(key_id)
    (claimed,) = await here.database.write(jobs.claim, jobs.Claim("wrk_another", 1))
    await here.jobs.cancel(OPERATOR, claimed.id)
    attempt = Attempt("try_1", claimed.id, 1, "tok_1", None, here.clock(), "idle longest")
    with pytest.raises(StaleFence):
        await here.database.write(jobs.begin, jobs.Beginning(attempt, claimed.fence))


async def test_a_job_that_changed_hands_is_not_ended_under_the_old_fence(here: House, key_id: str) -> None:
    stale = await here.job(key_id)
    await here.database.write(jobs.claim, jobs.Claim("wrk_another", 1))
    with pytest.raises(StaleFence):
        await here.database.write(jobs.cancel, (stale, here.clock()))


async def test_a_running_job_ends_for_its_client_at_once_and_for_its_slot_with_the_upstream(
    here: House, upstream: XaiServer, key_id: str, token_id: str
) -> None:
    job = await here.job(key_id)
    await here.worker.start()
    await upstream.called("poll")
    shown = await here.jobs.cancel(OPERATOR, job.id)
    assert shown.job.state is JobState.CANCELLED
    assert [attempt.ended_at for attempt in shown.attempts] == [None]
    assert (await end_of(here, job.id)).state is JobState.CANCELLED
    assert here.pool.token_view(token_id, here.clock()).in_flight == 1
    upstream.finish()
    await released(here, token_id)
    shown = await here.jobs.show(job.id)
    assert shown.job.state is JobState.CANCELLED
    assert shown.attempts[0].ended_at is not None
    assert len(upstream.calls("submit")) == 1


async def test_a_job_that_waits_for_a_slot_gives_its_place_up(
    here: House, upstream: XaiServer, key_id: str, token_id: str
) -> None:
    await here.job(key_id, "video-1")
    await here.worker.start()
    await upstream.called("poll")
    await here.job(key_id, "video-2")
    here.worker.wake()
    await until(lambda: here.dispatcher.waiting == 1)
    assert (await here.jobs.cancel(OPERATOR, "video-2")).job.state is JobState.CANCELLED
    assert here.dispatcher.waiting == 0
    assert len(upstream.calls("submit")) == 1


@dataclass(frozen=True, slots=True)
class Later:
    """Serve a call, or refuse it, once `go` is set."""

    go: asyncio.Event
    refuse: bool

    async def carry_out(self, exchange: Exchange) -> web.StreamResponse | None:
        await exchange.read()
        await self.go.wait()
        return await (Reply(503) if self.refuse else Serve()).carry_out(exchange)


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_job_cancelled_inside_its_submit_stays_cancelled_and_is_not_tried_again(
    here: House, upstream: XaiServer, key_id: str, token_id: str, refuse: bool
) -> None:
    go = asyncio.Event()
    upstream.script("submit", Later(go, refuse))
    job = await here.job(key_id)
    await here.worker.start()
    await upstream.called("submit")
    assert (await here.jobs.cancel(OPERATOR, job.id)).job.state is JobState.CANCELLED
    go.set()
    if not refuse:
        await upstream.called("poll")
        upstream.finish()
    await released(here, token_id)
    shown = await here.jobs.show(job.id)
    assert shown.job.state is JobState.CANCELLED
    assert shown.attempts[0].ended_at is not None
    assert len(upstream.calls("submit")) == 1


async def test_an_ended_job_is_not_cancelled_but_a_cancelled_one_may_be_again(
    here: House, upstream: XaiServer, key_id: str, token_id: str
) -> None:
    upstream.seconds = 0.0
    done = await here.job(key_id)
    await here.worker.start()
    assert (await end_of(here, done.id)).state is JobState.COMPLETED
    with pytest.raises(Conflict):
        await here.jobs.cancel(OPERATOR, done.id)
    with pytest.raises(NotFound):
        await here.jobs.cancel(OPERATOR, "video-nobody")


async def test_a_finished_job_is_shown_with_its_attempts_and_its_money(
    here: House, upstream: XaiServer, key_id: str, token_id: str
) -> None:
    upstream.seconds = 0.0
    job = await here.job(key_id)
    await here.worker.start()
    await end_of(here, job.id)
    shown = await here.jobs.show(job.id)
    assert shown.progress == 100
    assert [(attempt.number, attempt.token_id, attempt.outcome) for attempt in shown.attempts] == [(1, token_id, "ok")]
    assert shown.money is not None
    assert shown.money.cost > 0


async def test_pages_are_newest_first_by_state_and_key(here: House, key_id: str) -> None:
    other = (await here.keys.create(OPERATOR, name="other", limits={}))[0].key.id
    for number, owner in enumerate((key_id, other, key_id)):
        here.clock.advance(1.0)
        await here.job(owner, f"video-{number}")
    await here.jobs.cancel(OPERATOR, "video-0")
    assert [shown.job.id for shown in await here.jobs.page(None, 2)] == ["video-2", "video-1"]
    assert [shown.job.id for shown in await here.jobs.page("video-1", 2)] == ["video-0"]
    assert [shown.job.id for shown in await here.jobs.page(None, 9, JobState.QUEUED)] == ["video-2", "video-1"]
    assert [shown.job.id for shown in await here.jobs.page(None, 9, None, key_id)] == ["video-2", "video-0"]
