"""SIGTERM: no new work, what runs is finished or handed over, the process ends within its time."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from tests.crash import books
from tests.crash.processes import Process, Processes
from tests.gateway import Api, until
from tests.services.gates import Gate
from tests.upstream.xai_server import XaiServer

DRAIN = 9.0  # seconds; of these 5 are for the last answers and 3 for handing over


def at(xai: XaiServer, **options: Any) -> dict[str, Any]:
    return {"upstream__xai__base_url": xai.base_url, "server__drain": DRAIN} | options


async def furnish(api: Api, concurrency: int = 50) -> str:
    await api.token("xai-1", concurrency=concurrency)
    return await api.key()


async def is_draining(process: Process) -> bool:
    return (await process.api.call("GET", "/readyz", "")).status == 503


async def test_jobs_that_nobody_waits_for_are_handed_over_at_once(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=None) as xai:
        async with gateways.running(tmp_path, **at(xai)) as process:
            key = await furnish(process.api, concurrency=10)
            ids = [await process.api.order(key, f"order {number}") for number in range(20)]
            await xai.called("poll", 20)
            began = time.monotonic()
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
            assert time.monotonic() - began < DRAIN / 2
        left = books.read(tmp_path)
        assert {(job["state"], job["worker"]) for job in left.jobs.values()} == {("running", None), ("queued", None)}
        xai.seconds = 0.0
        xai.finish()
        async with gateways.running(tmp_path, **at(xai)) as process:
            assert {(await process.api.ended(key, job_id))["status"] for job_id in ids} == {"completed"}
        assert len(xai.calls("submit")) == 20
        books.audit(tmp_path, xai)


async def test_a_client_that_waits_still_gets_its_video(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=None) as xai:
        async with gateways.running(tmp_path, **at(xai, server__drain=30)) as process:
            key = await furnish(process.api)
            client = asyncio.ensure_future(process.api.generate(key))
            await xai.called("submit")
            began = time.monotonic()
            process.send(signal.SIGTERM)
            await until(lambda: is_draining(process))
            assert time.monotonic() - began < 1.0
            refused = await process.api.generate(key, "too late")
            assert (refused.status, refused.code) == (503, "draining")
            assert int(refused.headers["Retry-After"]) > 0
            xai.finish()
            answer = await client
            assert answer.status == 200
            assert await process.ended() == 0
            assert time.monotonic() - began < DRAIN
        assert len(xai.calls("submit")) == 1
        books.audit(tmp_path, xai)


async def test_a_client_whose_video_takes_too_long_is_told_where_it_will_be(
    tmp_path: Path, gateways: Processes
) -> None:
    async with XaiServer(seconds=None) as xai:
        async with gateways.running(tmp_path, **at(xai)) as process:
            key = await furnish(process.api, concurrency=1)
            clients = [asyncio.ensure_future(process.api.generate(key, f"order {number}")) for number in range(3)]
            await xai.called("poll")
            began = time.monotonic()
            process.send(signal.SIGTERM)
            answers = await asyncio.gather(*clients)
            assert await process.ended() == 0
            assert time.monotonic() - began < DRAIN
        assert {(answer.status, answer.code) for answer in answers} == {(504, "generation_timeout")}
        ids = [answer.body["error"]["job_id"] for answer in answers]
        assert [answer.headers["Location"] for answer in answers] == [f"/v1/videos/{job_id}" for job_id in ids]
        xai.seconds = 0.0
        xai.finish()
        async with gateways.running(tmp_path, **at(xai)) as process:
            again = [(await process.api.generate(key, f"order {number}")).body["id"] for number in range(3)]
            assert again == ids, "the same request joins the old job"
        assert len(xai.calls("submit")) == 3
        books.audit(tmp_path, xai)


async def test_a_submit_under_way_is_not_interrupted(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=None) as xai:
        gate = Gate()
        xai.script("submit", gate)
        async with gateways.running(tmp_path, **at(xai, server__drain=30)) as process:
            key = await furnish(process.api)
            job_id = await process.api.order(key)
            await xai.called("submit")
            process.send(signal.SIGTERM)
            await until(lambda: is_draining(process))
            gate.opened.set()
            assert await process.ended() == 0
        (job,) = books.read(tmp_path).jobs.values()
        assert (job["state"], job["upstream_id"]) == ("running", xai.calls("submit")[0].request_id)
        xai.finish()
        async with gateways.running(tmp_path, **at(xai)) as process:
            assert (await process.api.ended(key, job_id))["status"] == "completed"
        assert len(xai.calls("submit")) == 1
        books.audit(tmp_path, xai)
