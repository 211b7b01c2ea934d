"""The worker: a job goes on whatever happens to its gateway, its claim or the database, and ends once."""

import asyncio
from pathlib import Path

import pytest

from proxy.services import run, worker
from proxy.storage import database as database_module
from tests.crash import books
from tests.gateway import Running, until
from tests.services.at_work import again, closed, house, in_flight, resume_everything, slots_are_free
from tests.services.gates import Gate, Refusal, locked
from tests.upstream.xai_script import Reply, Serve
from tests.upstream.xai_server import XaiServer

SLOW_DOWN = Reply(429, {"code": "resource-exhausted", "error": "too many requests"})


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
    resume_everything(tmp_path)
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
    """Refused by one token, it waits for the other; after the restart it goes there, and not to the first again."""
    async with house(tmp_path, xai, tokens=2) as gateway:
        key = await gateway.api.key()
        await gateway.api.order(key, "at work")
        await xai.called("submit")
        xai.script("submit", Reply(404, {"code": "not-found", "error": "The model does not exist."}))
        job_id = await gateway.api.order(key, "refused")
        await xai.called("submit", 2)
        await closed(gateway, job_id)
        first_token = (await gateway.api.job(job_id))["attempts"][0]["token"]
    with books.database(tmp_path) as connection:
        connection.execute("DELETE FROM cooldowns")
    async with again(tmp_path, xai) as gateway:
        await gateway.steps.until("polled")
        xai.finish()
        await xai.called("submit", 3)
        xai.finish()
        await gateway.api.ended(key, job_id)
        tokens = [attempt["token"] for attempt in (await gateway.api.job(job_id))["attempts"]]
        assert (tokens[0], len(set(tokens))) == (first_token, 2)


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
