"""Who comes back with the same order joins its job, as long as nobody has seen the result, and pays once."""

import asyncio
from pathlib import Path

import pytest

from proxy.storage import database
from tests.gateway import running
from tests.services.clients import ask, house, leave, only_job
from tests.services.gates import held, locked
from tests.upstream.xai_server import XaiServer


async def test_who_left_and_comes_back_joins_the_job(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key(requests_per_minute=1, concurrency=1)
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
        again = ask(gateway, key)
        await gateway.steps.until("polled", gateway.steps.passed["polled"] + 2)
        xai.finish()
        answer = await again
        assert answer.status == 200, "and a replay takes nothing from the allowance"
        assert answer.body["id"] == (await only_job(gateway))["id"]
        assert len(xai.calls("submit")) == 1


async def test_who_comes_back_after_the_end_has_the_result_that_nobody_saw(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
        xai.finish()
        await gateway.steps.until("finished")
        assert (await ask(gateway, key)).status == 200
        assert len(xai.calls("submit")) == 1


async def test_two_that_both_still_wait_are_two_jobs(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        clients = [ask(gateway, key), ask(gateway, key)]
        await xai.called("submit", 2)
        xai.finish()
        ids = {(await client).body["id"] for client in clients}
        assert ids == {job["id"] for job in await gateway.api.jobs()}
        assert len(ids) == 2


async def test_after_the_result_was_seen_the_same_order_is_a_new_one(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = await ask(gateway, key)
        await gateway.steps.until("answered")
        second = await ask(gateway, key)
        assert first.body["id"] != second.body["id"]


async def test_a_result_that_was_looked_up_was_seen(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
        xai.finish()
        job = await only_job(gateway)
        await gateway.api.ended(key, job["id"])
        await gateway.steps.until("answered")
        xai.seconds = 0.0
        assert (await ask(gateway, key)).body["id"] != job["id"]


async def test_who_was_told_to_wait_longer_comes_back_on_the_same_connection(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, server__wait=0.3) as gateway:
        key = await gateway.api.key()
        late = await ask(gateway, key)
        assert (late.status, late.code) == (504, "generation_timeout")
        job_id = late.body["error"]["job_id"]
        assert late.headers["Location"] == f"/v1/videos/{job_id}"
        assert late.headers["x-should-retry"] == "false"
        await xai.called("submit")
        assert (await gateway.api.video(key, job_id)).body["status"] == "running"
        xai.finish()
        while (again := await ask(gateway, key)).status == 504:
            assert again.body["error"]["job_id"] == job_id
        assert again.body["id"] == job_id
        assert len(xai.calls("submit")) == 1


async def test_who_comes_back_while_the_order_is_still_being_accepted_joins_it(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        with held(gateway.steps, "synced"):  # the picture is about to get its name
            first = ask(gateway, key)
            await gateway.steps.until("synced")
            await leave(first)
            again = ask(gateway, key)
            await asyncio.wait([again], timeout=0.1)
        assert (await again).status == 200
        assert len(await gateway.api.jobs()) == 1
        assert len(xai.calls("submit")) == 1


async def test_who_joined_an_order_that_is_refused_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 500)
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key(concurrency=1)
        with locked(tmp_path):
            first = ask(gateway, key)
            await gateway.steps.until("renamed")
            await leave(first)
            again = ask(gateway, key)
            answer = await again
        assert (answer.status, answer.code) == (503, "storage_busy")
        assert await gateway.api.jobs() == []
        assert not list((tmp_path / "media").glob("*/*")), "no picture stays of an order that was not accepted"
        assert (await ask(gateway, key)).status == 200


async def test_only_the_same_body_of_the_same_key_joins(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key, other_key = await gateway.api.key(), await gateway.api.key()
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
        clients = [ask(gateway, other_key), ask(gateway, key, "another prompt")]
        assert (await ask(gateway, key, prefer="respond-async")).status == 202
        await xai.called("submit", 4)
        xai.finish()
        await asyncio.gather(*clients)
        assert len(await gateway.api.jobs()) == 4


async def test_who_comes_back_too_late_orders_anew(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, jobs__dedupe_window=0.001) as gateway:
        key = await gateway.api.key()
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
        again = ask(gateway, key)
        await xai.called("submit", 2)
        xai.finish()
        assert (await again).status == 200
        assert len(await gateway.api.jobs()) == 2


async def test_a_client_that_a_restart_cut_off_joins(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = ask(gateway, key)
        await xai.called("submit")
        await leave(first)
    async with running(tmp_path, upstream__xai__base_url=xai.base_url) as gateway:
        again = ask(gateway, key)
        xai.finish()
        assert (await again).status == 200
        assert len(xai.calls("submit")) == 1
