"""A disk that takes nothing for a while: nothing is accepted, what runs is finished once there is room again."""

import asyncio
import resource
from pathlib import Path
from typing import Any

from tests.crash import books
from tests.crash.processes import Process, Processes
from tests.gateway import ADMIN_KEY, Answer, until
from tests.upstream.xai_script import mp4
from tests.upstream.xai_server import XaiServer


def limit(process: Process, size: int) -> None:
    """Let no file of the gateway grow beyond `size` bytes: as on a full disk, a write fails."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_disk_costs_no_job_and_no_money(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=None, result=mp4(1024 * 1024)) as xai:
        async with gateways.running(tmp_path, upstream__xai__base_url=xai.base_url) as process:
            await process.api.token("xai-1", concurrency=50)
            key = await process.api.key()
            ids = [await process.api.order(key, f"order {number}") for number in range(10)]
            await xai.called("poll", 10)
            limit(process, 1)
            refused = await asyncio.gather(*(process.api.generate(key, f"refused {number}") for number in range(5)))
            assert {(answer.status, answer.code) for answer in refused} == {(503, "storage_full")}
            key_made = await process.api.call("POST", "/admin/keys", ADMIN_KEY, {"name": "refused"})
            assert (key_made.status, key_made.code) == (503, "storage_full")
            xai.finish()
            await xai.called("result", 10)
            assert {(await process.api.video(key, job_id)).body["status"] for job_id in ids} == {"running"}
            limit(process, resource.RLIM_INFINITY)
            xai.seconds = 0.0
            assert (await until(lambda: accepted(process, key), within=30)).status == 200
            assert {(await process.api.ended(key, job_id, within=40))["status"] for job_id in ids} == {"completed"}
        assert len(xai.calls("submit")) == 11
        books.audit(tmp_path, xai)


async def accepted(process: Process, key: str) -> Any:
    answer: Answer = await process.api.generate(key, "accepted again")
    return answer if answer.status == 200 else None
