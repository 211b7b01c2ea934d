"""The client's side: an order is accepted once, its client waits and is answered."""

import asyncio
from pathlib import Path

import pytest

from proxy.services import generations
from proxy.storage import database
from tests.gateway import running
from tests.services.clients import ask, house, leave, only_job
from tests.services.gates import Gate, held, locked
from tests.upstream.xai_script import Hang, Reply
from tests.upstream.xai_server import XaiServer

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


async def test_a_refused_order_leaves_its_idempotency_key_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 100)
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
    async with house(tmp_path, xai, upstream__xai__answer_timeout=0.3, policy__pair_soft=0) as gateway:
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
