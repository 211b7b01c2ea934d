"""A job past its deadline: it fails for its client, whatever the upstream and its gateway are at."""

from pathlib import Path
from typing import Any

import pytest

from proxy.services import following
from tests.crash import books
from tests.gateway import until
from tests.services.at_work import (
    again,
    ask,
    closed,
    house,
    in_flight,
    is_past,
    resume_everything,
    slots_are_free,
    warm_key,
)
from tests.upstream.xai_server import XaiServer


async def test_a_job_past_its_deadline_fails_and_holds_its_slot(tmp_path: Path, xai: XaiServer) -> None:
    looks: dict[str, Any] = {
        "upstream__xai__poll_min": 2.0,
        "upstream__xai__poll_max": 2.0,
    }  # the next one is due after the deadline
    async with house(tmp_path, xai, jobs__deadline=0.7, **looks) as gateway:
        key = await warm_key(gateway)
        job_id, client = await ask(gateway, key)
        answer = await client
        assert (answer.status, answer.code) == (504, "generation_timeout")
        job = await gateway.api.job(job_id)
        assert (job["state"], job["error"]) == ("failed", "generation_timeout")
        assert 0 <= job["finished_at"] - job["deadline"] < 1
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
    resume_everything(tmp_path)
    await until(lambda: is_past(deadline))
    async with again(tmp_path, xai) as gateway:
        (job,) = await gateway.api.jobs()
        assert (await gateway.api.ended(key, job["id"]))["error"]["code"] == "generation_timeout"
        assert xai.calls("submit") == []
        books.audit(tmp_path, xai)


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
