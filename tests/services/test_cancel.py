"""A cancelled job: its client is told at once, its slot is held until the upstream is done, nobody pays."""

import asyncio
import time
from pathlib import Path

from proxy.services.run import Run
from tests.crash import books
from tests.gateway import Answer, until
from tests.services.at_work import again, ask, closed, house, in_flight, slots_are_free
from tests.services.gates import Gate, Refusal, locked
from tests.upstream.xai_script import Hang
from tests.upstream.xai_server import XaiServer


async def test_a_running_job_that_is_cancelled_holds_its_slot_until_the_upstream_is_done(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key(concurrency=1)
        job_id, client = await ask(gateway, key)
        await gateway.steps.until("polled")
        began = time.monotonic()
        cancelled, answer = await asyncio.gather(gateway.api.cancel(job_id), client)
        assert (cancelled.status, cancelled.body["state"]) == (200, "cancelled")
        assert (answer.status, answer.code, time.monotonic() - began < 2) == (409, "job_cancelled", True)
        other = await gateway.api.order(key, "another")  # the key's own place is free again, the token's slot is not
        polls = len(xai.calls("poll"))
        await xai.called("poll", polls + 2)
        assert (await in_flight(gateway), len(xai.calls("submit"))) == (1, 1)
        xai.finish()
        job = await closed(gateway, job_id)
        assert (job["state"], job["cost"], job["charge"]) == ("cancelled", 3_000_000_000, 0)
        assert (job["file"], job["attempts"][0]["outcome"]) == (None, "ok")
        assert xai.calls("result") == []
        await xai.called("submit", 2)
        xai.finish()
        await gateway.api.ended(key, other)
        await slots_are_free(gateway)
        books.audit(tmp_path, xai)


async def test_a_cancelled_job_that_waits_is_never_sent(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = await gateway.api.order(key, "at work")
        await xai.called("submit")
        job_id, client = await ask(gateway, key, "waits")
        assert (await gateway.api.cancel(job_id)).status == 200
        assert (await client).code == "job_cancelled"
        assert (await gateway.api.cancel(job_id)).status == 200, "twice is harmless"
        xai.finish()
        await gateway.api.ended(key, first)
        await slots_are_free(gateway)
        assert len(xai.calls("submit")) == 1
        assert (await gateway.api.job(job_id))["attempts"] == []
        books.audit(tmp_path, xai)


async def test_a_job_that_is_not_claimed_yet_can_be_cancelled(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, jobs__max_in_flight=1) as gateway:
        key = await gateway.api.key(concurrency=2)
        first = await gateway.api.order(key, "at work")
        await xai.called("submit")
        job_id, client = await ask(gateway, key, "waits")
        assert (await gateway.api.cancel(job_id)).status == 200
        assert (await client).code == "job_cancelled"
        third = await gateway.api.order(key, "has the place that came free")
        xai.finish()
        await gateway.api.ended(key, first)
        await xai.called("submit", 2)
        xai.finish()
        await gateway.api.ended(key, third)
        books.audit(tmp_path, xai)


async def test_a_job_cancelled_during_its_submit_is_told_at_once_and_paid_by_nobody(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai) as gateway:
        key, gate = await gateway.api.key(), Gate()
        xai.script("submit", gate)
        job_id, client = await ask(gateway, key)
        await xai.called("submit")
        assert (await gateway.api.cancel(job_id)).status == 200
        assert (await client).code == "job_cancelled"
        gate.opened.set()
        await gateway.steps.until("submitted")
        assert (await gateway.api.job(job_id))["state"] == "cancelled"
        assert await in_flight(gateway) == 1
        xai.finish()
        job = await closed(gateway, job_id)
        assert (job["state"], job["cost"], job["charge"]) == ("cancelled", 3_000_000_000, 0)
        await slots_are_free(gateway)
        books.audit(tmp_path, xai)


async def test_a_job_cancelled_during_a_submit_that_is_refused_is_not_tried_again(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai, tokens=2) as gateway:
        key, opened = await gateway.api.key(), asyncio.Event()
        xai.script("submit", Refusal(opened))
        job_id, client = await ask(gateway, key)
        await xai.called("submit")
        assert (await gateway.api.cancel(job_id)).status == 200
        assert (await client).code == "job_cancelled"
        opened.set()
        job = await closed(gateway, job_id)
        assert [attempt["outcome"] for attempt in job["attempts"]] == ["throttled"]
        await slots_are_free(gateway)
        assert len(xai.calls("submit")) == 1
        books.audit(tmp_path, xai)


async def test_a_job_cancelled_before_its_request_is_written_is_not_sent(tmp_path: Path, xai: XaiServer) -> None:
    """The attempt is about to be committed while another process holds the database."""
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        lock = locked(tmp_path)
        gateway.steps.at("leased", lock.__enter__)
        job_id = await gateway.api.order(key)
        await gateway.steps.until("leased")
        (job_run,) = gateway.gateway._worker._runs.values()
        await until(lambda: shows(job_run, "sending"))
        cancelling = asyncio.ensure_future(gateway.api.cancel(job_id))
        await until(lambda: shows(job_run, "ended"))
        lock.__exit__(None, None, None)
        assert (await cancelling).status == 200
        job = await closed(gateway, job_id)
        assert (job["state"], [attempt["outcome"] for attempt in job["attempts"]]) == ("cancelled", ["cancelled"])
        await slots_are_free(gateway)
        assert xai.calls("submit") == []


async def shows(job_run: Run, name: str) -> bool:
    return bool(getattr(job_run, name))


async def test_of_two_that_cancel_at_once_both_succeed(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key(concurrency=2)
        await gateway.api.order(key, "at work")
        await xai.called("submit")
        job_id, client = await ask(gateway, key, "waits")
        answers = await asyncio.gather(*(gateway.api.cancel(job_id) for _ in range(5)))
        assert {answer.status for answer in answers} == {200}
        assert (await asyncio.wait_for(client, 5)).code == "job_cancelled"
        await gateway.api.order(key, "has the place that came free")


async def test_a_finished_job_cannot_be_cancelled_and_a_cancelled_one_not_finish(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai, tokens=2) as gateway:
        key = await gateway.api.key()
        kept, _ = await ask(gateway, key, "kept")
        late: list[asyncio.Future[Answer]] = []
        gateway.steps.at("kept", lambda: late.append(asyncio.ensure_future(gateway.api.cancel(kept))))
        await xai.called("submit")
        xai.finish()
        assert (await gateway.api.ended(key, kept))["status"] == "completed"
        assert (await late[0]).status == 409
        gate = Gate()
        xai.script("result", gate)
        dropped, client = await ask(gateway, key, "dropped")
        await xai.called("submit", 2)
        xai.finish()
        await xai.called("result", 2)
        assert (await gateway.api.cancel(dropped)).status == 200
        assert (await client).code == "job_cancelled"
        gate.opened.set()
        job = await closed(gateway, dropped)
        assert (job["state"], job["file"], job["charge"]) == ("cancelled", None, 0)
        await slots_are_free(gateway)
        books.audit(tmp_path, xai)


async def test_a_gateway_killed_inside_the_submit_of_a_cancelled_job_notes_what_it_may_have_cost(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai, server__drain=1) as gateway:
        key = await gateway.api.key()
        xai.script("submit", Hang(accepted=True))
        job_id, client = await ask(gateway, key)
        await xai.called("submit")
        assert (await gateway.api.cancel(job_id)).status == 200
        await client
    async with again(tmp_path, xai, jobs__on_ambiguous="resubmit_once") as gateway:
        job = await closed(gateway, job_id)
        assert (job["state"], job["charge"]) == ("cancelled", None)
        (attempt,) = job["attempts"]
        assert (attempt["outcome"], attempt["possible_cost"] > 0) == ("lost", True)
        assert len(xai.calls("submit")) == 1
        books.audit(tmp_path, xai)
