"""The client's side: who waits is answered once, who comes back pays once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.services import generations
from tests.gateway import Answer, Running, running
from tests.services.gates import Gate, held, locked
from tests.upstream.xai_script import Hang, Reply
from tests.upstream.xai_server import XaiServer

Waiting = asyncio.Task[Answer]


@asynccontextmanager
async def house(folder: Path, xai: XaiServer, *, concurrency: int = 50, **options: Any) -> AsyncIterator[Running]:
    """A gateway with one token of the stand-in."""
    async with running(folder, upstream__xai__base_url=xai.base_url, **options) as gateway:
        await gateway.api.token("xai-1", concurrency=concurrency)
        yield gateway


@pytest.fixture
async def xai() -> AsyncIterator[XaiServer]:
    """An upstream whose jobs take until the test says so."""
    async with XaiServer(seconds=None) as server:
        yield server


def ask(gateway: Running, key: str, prompt: str = "a wave", **headers: str) -> Waiting:
    return asyncio.ensure_future(
        gateway.api.generate(key, prompt, {name.replace("_", "-"): value for name, value in headers.items()})
    )


async def leave(*clients: Waiting) -> None:
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)


async def only_job(gateway: Running) -> dict[str, Any]:
    (job,) = await gateway.api.jobs()
    return dict(job)


# Who comes back


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


async def test_who_joined_an_order_that_is_refused_is_refused_too(tmp_path: Path) -> None:
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


# Idempotency-Key


async def test_twenty_twins_are_one_job(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key(requests_per_minute=1, concurrency=1)
        twins = [ask(gateway, key, idempotency_key="once") for _ in range(20)]
        await xai.called("submit")
        await gateway.steps.until("polled", 2)
        xai.finish()
        answers = await asyncio.gather(*twins)
        assert {(answer.status, answer.body["id"]) for answer in answers} == {(200, (await only_job(gateway))["id"])}
        later = await ask(gateway, key, idempotency_key="once")
        assert later.body["id"] == answers[0].body["id"], "seen or not"
        assert len(xai.calls("submit")) == 1


async def test_another_body_under_the_same_idempotency_key_is_refused(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        with held(gateway.steps, "synced"):
            first = ask(gateway, key, "one", idempotency_key="once", prefer="respond-async")
            await gateway.steps.until("synced")
            during = await ask(gateway, key, "other", idempotency_key="once")
        assert (await first).status == 202
        after = await ask(gateway, key, "other", idempotency_key="once")
        assert {(answer.status, answer.code) for answer in (during, after)} == {(422, "idempotency_mismatch")}
        assert (await only_job(gateway))["id"] == (await first).body["id"]


async def test_an_idempotency_key_outlives_a_restart(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        first = await ask(gateway, key, idempotency_key="once", prefer="respond-async")
    async with running(tmp_path, upstream__xai__base_url=xai.base_url) as gateway:
        again = await ask(gateway, key, idempotency_key="once", prefer="respond-async")
        assert again.body["id"] == first.body["id"]
        assert (await ask(gateway, key, "other", idempotency_key="once")).status == 422


async def test_a_refused_order_leaves_its_idempotency_key_free(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        with locked(tmp_path):
            twins = [ask(gateway, key, idempotency_key="once") for _ in range(3)]
            refused = await asyncio.gather(*twins)
        assert {(answer.status, answer.code) for answer in refused} == {(503, "storage_busy")}
        assert (await ask(gateway, key, idempotency_key="once")).status == 200
        assert len(xai.calls("submit")) == 1


async def test_another_idempotency_key_is_another_job(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        answers = [await ask(gateway, key, idempotency_key=name) for name in ("one", "two")]
        assert len({answer.body["id"] for answer in answers}) == 2


# The wait


async def test_a_client_that_leaves_stops_nothing(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        clients = [ask(gateway, key, f"order {number}") for number in range(30)]
        await xai.called("submit", 30)
        await leave(*clients)
        xai.finish()
        for job in await gateway.api.jobs():
            body = await gateway.api.ended(key, job["id"])
            assert body["status"] == "completed"
            assert await gateway.api.download(body["video_url"]) == xai.result
        assert len(xai.calls("submit")) == 30


async def test_an_end_that_nobody_was_told_of_is_found(
    tmp_path: Path, xai: XaiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "LOOK", 0.05)
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        client = ask(gateway, key)
        await xai.called("submit")
        monkeypatch.setattr(gateway.gateway._wakeups, "wake", lambda *_: None)
        xai.finish()
        await gateway.steps.until("finished")
        monkeypatch.undo()
        assert (await asyncio.wait_for(client, 15)).status == 200


async def test_a_pool_that_serves_nothing_refuses_before_it_accepts(tmp_path: Path, xai: XaiServer) -> None:
    async with running(tmp_path, upstream__xai__base_url=xai.base_url) as gateway:
        key = await gateway.api.key(requests_per_minute=1)
        refused = await ask(gateway, key)
        assert (refused.status, refused.code) == (503, "no_token_available")
        assert int(refused.headers["Retry-After"]) > 0
        assert await gateway.api.jobs() == []
        await gateway.api.token("xai-1")
        xai.seconds = 0.0
        assert (await ask(gateway, key)).status == 200, "a refused order takes nothing from the allowance"


async def test_a_full_queue_refuses(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai, concurrency=1, queue__max_length=2) as gateway:
        key = await gateway.api.key()
        await gateway.api.order(key, "at work")
        await xai.called("submit")
        for number in range(2):
            await gateway.api.order(key, f"waits {number}")
            await gateway.steps.until("claimed", number + 2)
        refused = await ask(gateway, key, "one too many")
        assert (refused.status, refused.code) == (429, "queue_full")
        assert len(await gateway.api.jobs()) == 3


async def test_limits_are_rebuilt_after_a_restart(tmp_path: Path, xai: XaiServer) -> None:
    async with house(tmp_path, xai) as gateway:
        busy = await gateway.api.key(concurrency=1)
        hasty = await gateway.api.key(requests_per_minute=1)
        ids = [await gateway.api.order(busy), await gateway.api.order(hasty)]
        await xai.called("submit", 2)
    async with running(tmp_path, upstream__xai__base_url=xai.base_url) as gateway:
        answers = [await ask(gateway, busy, "second"), await ask(gateway, hasty, "second")]
        assert [answer.code for answer in answers] == ["too_many_concurrent", "rate_limited"]
        xai.finish()
        assert (await gateway.api.ended(busy, ids[0]))["status"] == "completed"
        assert (await ask(gateway, busy, "third", prefer="respond-async")).status == 202


async def test_the_answer_says_what_the_upstream_said_and_never_invites_to_pay_twice(
    tmp_path: Path, xai: XaiServer
) -> None:
    async with house(tmp_path, xai, upstream__xai__answer_timeout=0.3) as gateway:
        key = await gateway.api.key()
        xai.script("submit", Hang(accepted=True))
        lost = await ask(gateway, key, "lost")
        assert (lost.status, lost.code, lost.headers["x-should-retry"]) == (502, "submit_ambiguous", "false")
        xai.script("submit", Reply(400, {"code": "invalid-argument", "error": "no such thing"}))
        rejected = await ask(gateway, key, "rejected")
        assert (rejected.status, rejected.code, rejected.headers["x-should-retry"]) == (
            400,
            "upstream_rejected",
            "false",
        )


async def test_a_job_that_is_held_up_at_the_upstream_is_shown_as_running(tmp_path: Path, xai: XaiServer) -> None:
    gate = Gate()
    async with house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        xai.script("submit", gate)
        job_id = await gateway.api.order(key)
        await xai.called("submit")
        assert (await gateway.api.video(key, job_id)).body["status"] == "running"
        gate.opened.set()
        await gateway.steps.until("submitted")
        xai.finish()
        assert (await gateway.api.ended(key, job_id))["status"] == "completed"
