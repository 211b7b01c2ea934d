"""A submitted job and its result: looked at, fetched, kept, and charged if there is a video to be had."""

from pathlib import Path
from typing import Any

import pytest

from proxy.services import following
from tests.crash import books
from tests.gateway import Running
from tests.services.at_work import closed, house, slots_are_free
from tests.upstream.xai_script import Raw, Reply, Reset
from tests.upstream.xai_server import XaiServer

COST = 3_000_000_000  # ticks, of the stand-in's videos of 6 seconds


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FETCH_AGAIN", 0.01)


async def ended(gateway: Running, key: str) -> Any:
    """Return the job of one order, once it has ended and all is noted."""
    answer = await gateway.api.generate(key)
    job_id = answer.headers["Location"].removeprefix("/v1/videos/")
    await slots_are_free(gateway)
    return await closed(gateway, job_id)


async def test_looks_that_go_wrong_end_no_job(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        xai.script("poll", Reply(502, "<html>"), Reset("early"), Raw(b"nonsense\r\n\r\n"), Reply(200, "{"))
        job = await ended(gateway, key)
        assert (job["state"], job["cost"], job["charge"]) == ("completed", COST, COST)
        assert (len(xai.calls("submit")), len(job["attempts"])) == (1, 1)


async def test_a_result_that_breaks_off_is_fetched_again_and_kept_whole(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 4096\r\n\r\n"
        xai.script("result", Raw(head + xai.result[:2000]), Reply(500), Reset("early"))
        job = await ended(gateway, key)
        assert (job["state"], len(xai.calls("result"))) == ("completed", 4)
        books.audit(tmp_path, xai)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Reply(404), "upstream_failed"),
        (Reply(200, "<html>", {"Content-Type": "text/html"}), "upstream_bad_response"),
        (Reply(200, b"no video at all", {"Content-Type": "video/mp4"}), "upstream_bad_response"),
    ],
)
async def test_a_tenant_pays_for_no_video_that_could_not_be_fetched(tmp_path: Path, step: Reply, code: str) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        xai.always("result", step)
        job = await ended(gateway, key)
        assert (job["state"], job["error"]) == ("failed", code)
        assert (job["cost"], job["charge"]) == (COST, 0)
        assert len(xai.calls("submit")) == 1, "what has been paid for is not ordered again"
        books.audit(tmp_path, xai)


async def test_a_moderated_video_is_charged_as_the_upstream_bills_it(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        moderated = {
            "status": "done",
            "video": {"respect_moderation": False},
            "usage": {"cost_in_usd_ticks": COST},
        }
        xai.script("poll", Reply(200, moderated))
        job = await ended(gateway, key)
        assert (job["error"], job["cost"], job["charge"]) == ("content_moderated", COST, COST)


async def test_a_job_that_the_upstream_fails_for_nothing_costs_nothing(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai) as gateway:
        key = await gateway.api.key()
        xai.always("poll", Reply(200, {"status": "failed", "error": {"code": "internal", "message": "sorry"}}))
        job = await ended(gateway, key)
        assert (job["error"], job["cost"], job["charge"]) == ("upstream_failed", None, None)
        books.audit(tmp_path, xai)
