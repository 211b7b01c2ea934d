"""The worker's side: a job goes on whatever happens to its client, its gateway or its claim, and ends once."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from proxy.services import following, run, worker
from proxy.storage import database as database_module
from tests.crash import books
from tests.gateway import IMAGE, Answer, Running, running, until
from tests.services.gates import Gate, locked
from tests.upstream.xai_script import Hang, Reply, Serve
from tests.upstream.xai_server import XaiServer

SLOW_DOWN = Reply(429, {"code": "resource-exhausted", "error": "too many requests"})


@pytest.fixture
async def xai() -> AsyncIterator[XaiServer]:
    """An upstream whose jobs take until the test says so."""
    async with XaiServer(seconds=None) as server:
        yield server


@asynccontextmanager
async def house(folder: Path, xai: XaiServer, *, tokens: int = 1, **options: Any) -> AsyncIterator[Running]:
    """A gateway with tokens of one slot each."""
    async with running(folder, upstream__xai__base_url=xai.base_url, **options) as gateway:
        for number in range(tokens):
            await gateway.api.token(f"xai-{number}", concurrency=1)
        yield gateway


def again(folder: Path, xai: XaiServer, **options: Any) -> Any:
    """A gateway on a folder that another has worked on."""
    return running(folder, upstream__xai__base_url=xai.base_url, **options)


async def in_flight(gateway: Running) -> int:
    return sum(token["in_flight"] for token in (await gateway.api.admin("GET", "/tokens"))["data"])


async def slots_are_free(gateway: Running) -> None:
    async def free() -> bool:
        return await in_flight(gateway) == 0

    await until(free)


async def closed(gateway: Running, job_id: str) -> Any:
    """Return a job once all of its attempts have ended."""

    async def look() -> Any:
        job = await gateway.api.job(job_id)
        return job if all(attempt["ended_at"] for attempt in job["attempts"]) else None

    return await until(look)


async def ask(gateway: Running, key: str, prompt: str = "a wave") -> tuple[str, "asyncio.Task[Answer]"]:
    """Let a client wait for a video; return the job's id and the client."""
    known = len(await gateway.api.jobs())
    client = asyncio.ensure_future(gateway.api.generate(key, prompt))

    async def accepted() -> Any:
        jobs = await gateway.api.jobs()
        return jobs[-1]["id"] if len(jobs) > known else None

    return str(await until(accepted)), client


# Cancelled


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


class Refusal(Gate):
    """Answers 429 once it is opened."""

    def __init__(self, opened: asyncio.Event) -> None:
        super().__init__(opened)

    async def carry_out(self, exchange: Any) -> Any:
        await self.opened.wait()
        return await SLOW_DOWN.carry_out(exchange)


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


async def shows(job_run: run.Run, name: str) -> bool:
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


# Too late


async def warm_key(gateway: Running) -> str:
    """Return a key once the decoder of pictures has started: its time is not the job's."""
    key = await gateway.api.key()
    refused = await gateway.api.generate(key, image_url=IMAGE[:-40] + "AAAA")
    assert refused.code == "invalid_image_url"
    return key


async def test_a_job_past_its_deadline_fails_and_holds_its_slot(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, jobs__deadline=0.7) as gateway:
        key = await warm_key(gateway)
        job_id, client = await ask(gateway, key)
        answer = await client
        assert (answer.status, answer.code) == (504, "generation_timeout")
        job = await gateway.api.job(job_id)
        assert (job["state"], job["error"]) == ("failed", "generation_timeout")
        assert 0 <= job["finished_at"] - job["deadline"] < 2
        assert await in_flight(gateway) == 1
        xai.finish()
        job = await closed(gateway, job_id)
        assert (job["state"], job["cost"], job["charge"]) == ("failed", 3_000_000_000, 0)
        await slots_are_free(gateway)
        books.audit(tmp_path, xai)


async def test_an_upstream_that_never_ends_gives_the_slot_back_in_the_end(
    tmp_path: Path, xai: XaiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HOLD", 0.3)
    async with house(tmp_path, xai, jobs__deadline=0.7) as gateway:
        key = await warm_key(gateway)
        job_id = await gateway.api.order(key)
        await gateway.steps.until("finished")
        job = await closed(gateway, job_id)
        await slots_are_free(gateway)
        (attempt,) = job["attempts"]
        assert (attempt["outcome"], attempt["possible_cost"] > 0) == ("lost", True)


async def test_a_job_that_finds_no_slot_in_its_time_is_not_sent(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, jobs__deadline=0.7) as gateway:
        key = await warm_key(gateway)
        ids = [await gateway.api.order(key, "at work"), await gateway.api.order(key, "waits")]
        ended = [await gateway.api.ended(key, job_id) for job_id in ids]
        assert {body["error"]["code"] for body in ended} == {"generation_timeout"}
        assert len(xai.calls("submit")) == 1


async def test_a_job_whose_time_ran_out_while_no_gateway_ran_is_not_sent(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, jobs__deadline=0.7) as gateway:
        key = await warm_key(gateway)
        await gateway.api.admin("POST", "/pause", {"kind": "all", "reason": "test"})
        deadline = (await gateway.api.job(await gateway.api.order(key)))["deadline"]
    with closing(sqlite3.connect(tmp_path / "grokpool.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM pauses")
    await until(lambda: is_past(deadline))
    async with again(tmp_path, xai) as gateway:
        (job,) = await gateway.api.jobs()
        assert (await gateway.api.ended(key, job["id"]))["error"]["code"] == "generation_timeout"
        assert xai.calls("submit") == []
        books.audit(tmp_path, xai)


async def is_past(moment: float) -> bool:
    return time.time() > moment  # noqa: TID251


async def test_a_video_that_was_done_while_no_gateway_ran_is_kept_though_it_is_late(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai, jobs__deadline=0.7) as gateway:
        key = await warm_key(gateway)
        deadline = (await gateway.api.job(await gateway.api.order(key)))["deadline"]
        await gateway.steps.until("submitted")
    xai.finish()
    await until(lambda: is_past(deadline))
    async with again(tmp_path, xai) as gateway:
        (job,) = await gateway.api.jobs()
        assert (await gateway.api.ended(key, job["id"]))["status"] == "completed"
        books.audit(tmp_path, xai)


# Another start, another worker


async def test_a_stopped_gateway_hands_its_jobs_to_the_next(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, tokens=3) as gateway:
        key = await gateway.api.key()
        ids = [await gateway.api.order(key, f"order {number}") for number in range(5)]
        await gateway.steps.until("submitted", 3)
    assert {job["worker"] for job in books.read(tmp_path).jobs.values()} == {None}
    async with again(tmp_path, xai) as gateway:
        await gateway.steps.until("polled", 3)
        assert await in_flight(gateway) == 3
        xai.seconds = 0.0
        xai.finish()
        assert {(await gateway.api.ended(key, job_id))["status"] for job_id in ids} == {"completed"}
        await slots_are_free(gateway)
        assert len(xai.calls("submit")) == 5
        assert max(xai.peaks.values()) == 1
        books.audit(tmp_path, xai)


async def test_a_running_job_has_its_slot_again_before_one_that_waits_takes_it(tmp_path: Path, xai: XaiServer) -> None:
    """The older job waits for a paused model, the younger runs; at the next start nothing is paused any more."""
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        await gateway.api.admin("POST", "/pause", {"kind": "model", "id": "grok-imagine-video", "reason": "test"})
        older = await gateway.api.order(key, "older")
        younger = await gateway.api.order(key, "younger", model="grok-imagine-video-1.5")
        await gateway.steps.until("submitted")
    with closing(sqlite3.connect(tmp_path / "grokpool.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM pauses")
    async with again(tmp_path, xai) as gateway:
        await gateway.steps.until("polled", 2)
        assert len(xai.calls("submit")) == 1
        xai.finish()
        await gateway.api.ended(key, younger)
        await xai.called("submit", 2)
        xai.finish()
        await gateway.api.ended(key, older)
        assert xai.peaks == {"xai-0": 1}


async def test_a_worker_whose_job_another_has_claimed_does_no_harm(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, tokens=3) as gateway:
        key = await gateway.api.key()
        ids = [await gateway.api.order(key, f"order {number}") for number in range(3)]
        await gateway.steps.until("submitted", 3)
        with books.database(tmp_path) as connection:
            connection.execute("UPDATE jobs SET fence = fence + 1, worker = 'another' WHERE id = ?", (ids[1],))
        xai.finish()
        for job_id in (ids[0], ids[2]):
            assert (await gateway.api.ended(key, job_id))["status"] == "completed"
        await slots_are_free(gateway)
        lost = books.read(tmp_path)
        assert (lost.jobs[ids[1]]["state"], lost.jobs[ids[1]]["worker"]) == ("running", "another")
        assert ids[1] not in lost.charges
    async with again(tmp_path, xai) as gateway:
        assert (await gateway.api.ended(key, ids[1]))["status"] == "completed"
        await slots_are_free(gateway)
        assert len(xai.calls("submit")) == 3
        books.audit(tmp_path, xai)


async def test_a_try_that_failed_before_a_restart_counts_after_it(tmp_path: Path, xai: XaiServer) -> None:
    """Throttled on one token, it waits for the other; after the restart it goes there, and not to the first again."""
    async with house(tmp_path, xai, tokens=2) as gateway:
        key = await gateway.api.key()
        await gateway.api.order(key, "at work")
        await xai.called("submit")
        xai.script("submit", SLOW_DOWN)
        job_id = await gateway.api.order(key, "throttled")
        await xai.called("submit", 2)
        await closed(gateway, job_id)
        first_token = (await gateway.api.job(job_id))["attempts"][0]["token"]
    with closing(sqlite3.connect(tmp_path / "grokpool.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM cooldowns")
    async with again(tmp_path, xai) as gateway:
        await gateway.steps.until("polled")
        xai.finish()
        await xai.called("submit", 3)
        xai.finish()
        await gateway.api.ended(key, job_id)
        tokens = [attempt["token"] for attempt in (await gateway.api.job(job_id))["attempts"]]
        assert (tokens[0], len(set(tokens))) == (first_token, 2)


# A disk and a database that take nothing for a while


async def test_running_jobs_outlive_a_database_that_is_held_by_another(
    tmp_path: Path, xai: XaiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(run, "WRITE_AGAIN", 0.05)
    monkeypatch.setattr(worker, "RETRY", 0.05)
    async with house(tmp_path, xai, tokens=4) as gateway:
        key = await gateway.api.key()
        gate = Gate()
        xai.script("submit", Serve(), Serve(), gate, SLOW_DOWN)
        ids = [await gateway.api.order(key, f"order {number}") for number in range(3)]
        await xai.called("submit", 3)
        await gateway.steps.until("submitted", 2)
        with locked(tmp_path):
            gate.opened.set()  # its id must be stored
            xai.finish()  # these must be ended
            refused = await gateway.api.generate(key, "refused")
            assert (refused.status, refused.code) == (503, "storage_busy")
            assert int(refused.headers["Retry-After"]) > 0
            assert (await gateway.api.video(key, ids[0])).body["status"] == "running"
        xai.finish()
        throttled = await gateway.api.order(key, "throttled, and the cooldown is kept")
        await gateway.steps.until("submitted", 4)
        xai.finish()
        for job_id in (*ids, throttled):
            assert (await gateway.api.ended(key, job_id))["status"] == "completed"
        await slots_are_free(gateway)
        assert len(xai.calls("submit")) == 5
        books.audit(tmp_path, xai)


async def test_a_cooldown_that_cannot_be_stored_costs_no_job_its_life(
    tmp_path: Path, xai: XaiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(run, "WRITE_AGAIN", 0.05)
    async with house(tmp_path, xai, tokens=2) as gateway:
        key, opened = await gateway.api.key(), asyncio.Event()
        xai.script("submit", Refusal(opened))
        job_id = await gateway.api.order(key)
        await xai.called("submit")
        with locked(tmp_path):
            opened.set()
            await xai.called("submit", 1)
            await until(lambda: is_cooling(gateway))
        await xai.called("submit", 2)
        xai.finish()
        assert (await gateway.api.ended(key, job_id))["status"] == "completed"


async def is_cooling(gateway: Running) -> bool:
    return any(token["status"] == "cooling" for token in (await gateway.api.admin("GET", "/tokens"))["data"])
