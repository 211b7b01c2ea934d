import gzip
import json
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256

import pytest

from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Outcome, Phase, Signal, Trouble, UpstreamFailed
from proxy.domain.secret import Secret
from proxy.upstream.driver import Access, Done, Driver, Ended, Image, Running, Verified
from proxy.upstream.transport import Transport
from proxy.upstream.xai import XaiDriver
from tests.upstream.xai_script import Drip, Raw, Reply, Reset, mp4
from tests.upstream.xai_server import XaiServer

KEY = "xai-very-secret"
ORDER = Order(Kind.VIDEO, "grok-imagine-0.9", "grok-imagine-video", "a boat", 6, "480p")


@pytest.fixture
def driver(transport: Transport, plain: XaiServer) -> Driver:
    return XaiDriver(transport, base_url=plain.base_url)


def access(token: str = KEY, base_url: str | None = None) -> Access:
    return Access("t", Secret(token), base_url, None)


async def submit_failure(driver: Driver) -> Signal:
    with pytest.raises(UpstreamFailed) as caught:
        await driver.submit(ORDER, None, access())
    return caught.value.signal


async def poll_failure(driver: Driver) -> Signal:
    with pytest.raises(UpstreamFailed) as caught:
        await driver.poll("job-1", access())
    return caught.value.signal


async def fetched(driver: Driver, url: str, way: Access | None = None) -> bytes:
    async with driver.fetch(Done(url), way or access()) as pieces:
        return b"".join([piece async for piece in pieces])


class TestSubmit:
    async def test_sends_what_the_order_says_and_returns_the_id(self, driver: Driver, plain: XaiServer) -> None:
        order = replace(ORDER, aspect_ratio="16:9", user="tenant-1", extra={"generate_audio": False, "seed": 2**70})
        content = bytes(range(256)) * 2000
        request_id = await driver.submit(order, Image("image/png", content), access())
        (call,) = plain.ledger
        encoded = b64encode(content)
        assert request_id == call.request_id
        assert call.headers["authorization"] == f"Bearer {KEY}"
        assert call.headers["content-type"] == "application/json"
        assert call.body == {
            "model": "grok-imagine-video",
            "prompt": "a boat",
            "duration": 6,
            "resolution": "480p",
            "aspect_ratio": "16:9",
            "user": "tenant-1",
            "generate_audio": False,
            "seed": 2**70,
            "image": {
                "media_type": "image/png",
                "base64_bytes": len(encoded),
                "base64_sha256": sha256(encoded).hexdigest(),
            },
        }

    async def test_leaves_out_what_the_order_leaves_open(self, driver: Driver, plain: XaiServer) -> None:
        await driver.submit(ORDER, None, access())
        assert set(plain.ledger[0].body) == {"model", "prompt", "duration", "resolution"}

    async def test_a_passed_on_field_does_not_replace_one_of_the_order(self, driver: Driver, plain: XaiServer) -> None:
        await driver.submit(replace(ORDER, extra={"duration": 15, "model": "dear"}), None, access())
        assert (plain.ledger[0].body["duration"], plain.ledger[0].body["model"]) == (6, "grok-imagine-video")

    async def test_a_tokens_own_base_url_wins(self, driver: Driver, plain: XaiServer) -> None:
        async with XaiServer() as other:
            await driver.submit(ORDER, None, access(base_url=other.base_url + "/"))
            assert len(other.ledger) == 1
        assert not plain.ledger

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503, 302])
    async def test_a_refusal_is_a_signal_with_the_evidence(self, driver: Driver, plain: XaiServer, status: int) -> None:
        plain.script("submit", Reply(status, {"code": "c", "error": "e" * 100_000}, {"Retry-After": "9"}))
        failed = await submit_failure(driver)
        assert (failed.phase, failed.status, failed.trouble) == (Phase.ANSWERED, status, None)
        assert failed.headers["retry-after"] == "9"
        assert len(failed.body) == 64 * 1024
        assert KEY not in repr(failed)

    @pytest.mark.parametrize(
        "body",
        [
            "", "<html>hello</html>", "null", "[]", "12", '"id"', "{", "{}", '{"request_id": NaN}', "\xff",
            "[" * 100_000,
            '{"request_id": ""}', '{"request_id": null}', '{"request_id": 7}', '{"request_id": ["a"]}',
            '{"request_id": "../api-key"}', '{"request_id": "a/b"}', '{"request_id": ".."}', '{"request_id": "a?b"}',
            '{"request_id": "a b"}', '{"request_id": "%s"}' % ("x" * 300), '{"request_id": "é"}',
            '{"request_id": "a", "x": "%s"}' % ("x" * 10_000_000), '{"request_id": "a"}' + " " * 2_000_000,
        ],
        ids=lambda body: repr(body[:25]),
    )  # fmt: skip
    @pytest.mark.parametrize("content_type", ["application/json", "text/html"])
    async def test_a_200_without_a_usable_id_is_malformed(
        self, driver: Driver, plain: XaiServer, body: str, content_type: str
    ) -> None:
        plain.script("submit", Reply(200, body.encode("latin1"), {"Content-Type": content_type}))
        failed = await submit_failure(driver)
        assert (failed.phase, failed.status, failed.trouble) == (Phase.ANSWERED, 200, Trouble.MALFORMED)
        assert len(plain.ledger) == 1

    async def test_an_answer_that_got_lost_was_sent_once(self, driver: Driver, plain: XaiServer) -> None:
        plain.script("submit", Reset("accepted"))
        failed = await submit_failure(driver)
        assert (failed.phase, failed.trouble) == (Phase.AFTER, Trouble.RESET)
        assert len(plain.jobs) == 1

    async def test_gzip_is_read_where_it_comes_unasked(self, driver: Driver, plain: XaiServer) -> None:
        body = gzip.compress(b'{"request_id": "job-1"}')
        plain.script("submit", Reply(200, body, {"Content-Encoding": "gzip"}))
        assert await driver.submit(ORDER, None, access()) == "job-1"


class TestPoll:
    async def test_from_running_to_done(self, driver: Driver, plain: XaiServer) -> None:
        plain.seconds = None
        request_id = await driver.submit(ORDER, None, access())
        assert isinstance(await driver.poll(request_id, access()), Running)
        plain.finish(request_id)
        done = await driver.poll(request_id, access())
        assert done == Done(f"{plain.origin}/media/{request_id}.mp4", 6.0, 3_000_000_000)

    @pytest.mark.parametrize(
        ("status", "body", "progress"),
        [
            (202, "", None),
            (202, '{"status": "pending", "progress": 42}', 42),
            (202, "<html>", None),
            (202, '{"progress": "42"}', None),
            (202, '{"progress": true}', None),
            (202, '{"progress": 1e300}', 100),
            (202, '{"progress": -1}', None),
            (200, '{"status": "pending", "progress": 7}', 7),
            (200, '{"status": "queued in a word of 2028"}', None),
        ],
    )
    async def test_running(
        self, driver: Driver, plain: XaiServer, status: int, body: str, progress: int | None
    ) -> None:
        plain.script("poll", Reply(status, body))
        assert await driver.poll("job-1", access()) == Running(progress)

    @pytest.mark.parametrize(
        ("status", "body", "ended"),
        [
            (200, {"status": "done", "video": {"url": "", "respect_moderation": False}}, (Outcome.MODERATED, None)),
            (200, {"status": "done", "video": {"url": "https://vidgen.x.ai/a", "respect_moderation": False}},
             (Outcome.MODERATED, None)),
            (200, {"status": "done", "usage": {"cost_in_usd_ticks": 5}}, (Outcome.NO_RESULT, 5)),
            (200, {"status": "done", "video": None}, (Outcome.NO_RESULT, None)),
            (200, {"status": "done", "video": {"url": 7}}, (Outcome.NO_RESULT, None)),
            (200, {"status": "done", "video": []}, (Outcome.NO_RESULT, None)),
            (200, {"status": "failed", "error": {"code": "internal_error", "message": "m"}}, (Outcome.FAILED, None)),
            (200, {"status": "failed"}, (Outcome.FAILED, None)),
            (200, {"status": "failed", "error": "rejected by content moderation", "usage": {"cost_in_usd_ticks": 2.5}},
             (Outcome.MODERATED, None)),
            (200, {"status": "expired"}, (Outcome.GONE, None)),
            (400, {"code": "imagine:content-moderated", "error": "no", "usage": {"cost_in_usd_ticks": 2_500_000_000}},
             (Outcome.MODERATED, 2_500_000_000)),
            (400, {"code": "Client specified an invalid argument",
                   "error": "Generated video rejected by content moderation."}, (Outcome.MODERATED, None)),
            (400, {"code": "invalid-argument", "error": "Duration 15s exceeds the maximum"}, (Outcome.FAILED, None)),
            (400, {"error": {"message": "bad", "code": 7}}, (Outcome.FAILED, None)),
            (422, {"error": "unprocessable"}, (Outcome.FAILED, None)),
            (404, {"code": "not-found", "error": "Some requested entity was not found"}, (Outcome.GONE, None)),
        ],
    )  # fmt: skip
    async def test_the_ends_without_a_video(
        self, driver: Driver, plain: XaiServer, status: int, body: object, ended: tuple[Outcome, int | None]
    ) -> None:
        plain.script("poll", Reply(status, body))
        look = await driver.poll("job-1", access())
        assert isinstance(look, Ended)
        assert (look.outcome, look.cost) == ended

    async def test_a_url_without_a_status_is_a_result(self, driver: Driver, plain: XaiServer) -> None:
        plain.script("poll", Reply(200, {"video": {"url": "https://vidgen.x.ai/a.mp4", "duration": "6"}}))
        assert await driver.poll("job-1", access()) == Done("https://vidgen.x.ai/a.mp4")

    @pytest.mark.parametrize("ticks", ['"5"', "-1", "5.5", "true", "null", "1e30", "99999999999999999999"])
    async def test_a_cost_that_is_none_is_left_out(self, driver: Driver, plain: XaiServer, ticks: str) -> None:
        body = '{"status": "done", "video": {"url": "https://vidgen.x.ai/a"}, "usage": {"cost_in_usd_ticks": %s}}'
        plain.script("poll", Reply(200, body % ticks))
        assert await driver.poll("job-1", access()) == Done("https://vidgen.x.ai/a")

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***9z."}),
            (400, {"code": "invalid-argument", "error": "Incorrect%20API%20key%20provided"}),
            (400, "<html>bad gateway</html>"),
            (404, "<html>no such page</html>"),
            (404, {"detail": "Not Found"}),
            (401, {}),
            (403, {"error": "no"}),
            (408, ""),
            (429, {"error": "slow"}),
            (500, "oops"),
            (503, {"code": "The service is currently unavailable"}),
        ],
    )
    async def test_a_poll_that_failed_says_nothing_about_the_job(
        self, driver: Driver, plain: XaiServer, status: int, body: object
    ) -> None:
        plain.script("poll", Reply(status, body))
        failed = await poll_failure(driver)
        assert (failed.phase, failed.status) == (Phase.ANSWERED, status)

    @pytest.mark.parametrize(
        "body",
        [
            "", "<html>", "[]", "null", "{}", "{" * 9, '{"status": 7}', '{"status": null}', '{"status": NaN}',
            '{"status": {}}', '{"status": "done", "x": "%s"}' % ("x" * 2_000_000),
        ],
        ids=lambda body: body[:25],
    )  # fmt: skip
    async def test_a_200_that_makes_no_sense_is_malformed(self, driver: Driver, plain: XaiServer, body: str) -> None:
        plain.script("poll", Reply(200, body))
        assert (await poll_failure(driver)).trouble is Trouble.MALFORMED

    @pytest.mark.parametrize(
        "step", [Raw(b"\x00\x01\x02"), Reset(), Reply(200, b"no gzip", {"Content-Encoding": "gzip"})]
    )
    async def test_a_broken_connection_is_a_signal(
        self, driver: Driver, plain: XaiServer, step: Raw | Reset | Reply
    ) -> None:
        plain.script("poll", step, step)
        assert (await poll_failure(driver)).phase is Phase.AFTER


class TestFetch:
    async def test_the_result_comes_from_the_base_urls_own_host_without_the_key(
        self, driver: Driver, plain: XaiServer
    ) -> None:
        plain.result = mp4(1_000_000)
        done = await driver.poll(await driver.submit(ORDER, None, access()), access())
        assert isinstance(done, Done)
        assert await fetched(driver, done.url) == plain.result
        (call,) = plain.calls("result")
        assert "authorization" not in call.headers
        assert KEY not in json.dumps(call.headers)

    async def test_the_result_comes_from_a_media_host_over_https(
        self, transport: Transport, plain: XaiServer, secure: XaiServer
    ) -> None:
        driver = XaiDriver(transport, base_url=plain.base_url, media_hosts=[secure.origin.removeprefix("https://")])
        request_id = await driver.submit(ORDER, None, access(base_url=secure.base_url))
        assert await fetched(driver, f"{secure.origin}/media/{request_id}.mp4") == secure.result

    async def test_a_media_host_over_http_is_refused(self, transport: Transport, plain: XaiServer) -> None:
        place = plain.origin.removeprefix("http://")
        driver = XaiDriver(transport, media_hosts=[place])
        with pytest.raises(UpstreamFailed, match="not allowed"):
            await fetched(driver, f"{plain.origin}/media/a.mp4")
        assert not plain.ledger

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/a.mp4", "https://vidgen.x.ai.evil.example/a", "https://vidgen.x.ai@evil.example/a",
            "https://vidgen.x.ai:8443/a", "http://vidgen.x.ai/a", "https://user:pw@vidgen.x.ai/a", "file:///etc/passwd",
            "//vidgen.x.ai/a", "/media/a.mp4", "https://", "https://[::1", "https://127.0.0.1/a",
            "data:video/mp4;base64,AA",
            "https://vidgen.x.ai\\@evil.example/", "https://vidgen。x。ai/", "javascript:1", "",
        ],
    )  # fmt: skip
    async def test_a_host_that_is_not_allowed_is_never_asked(self, driver: Driver, url: str) -> None:
        with pytest.raises(UpstreamFailed) as caught:
            await fetched(driver, url)
        signal = caught.value.signal
        assert (signal.phase, signal.trouble) == (Phase.ANSWERED, Trouble.MALFORMED)
        assert signal.detail == "result on a host that is not allowed"

    async def test_another_port_of_the_base_urls_host_is_not_its_own(self, driver: Driver) -> None:
        async with XaiServer() as other:
            with pytest.raises(UpstreamFailed, match="not allowed"):
                await fetched(driver, f"{other.origin}/media/a.mp4")
            assert not other.ledger

    async def test_a_redirect_of_a_result_is_not_followed(self, driver: Driver, plain: XaiServer) -> None:
        async with XaiServer() as other:
            plain.script("result", Reply(302, b"", {"Location": f"{other.origin}/media/a.mp4"}))
            with pytest.raises(UpstreamFailed) as caught:
                await fetched(driver, f"{plain.origin}/media/a.mp4")
            assert caught.value.signal.status == 302
            assert not other.ledger


class TestVerify:
    async def test_the_team_is_told(self, driver: Driver, plain: XaiServer) -> None:
        plain.teams[KEY] = "team-7"
        assert await driver.verify(access()) == Verified("team-7", blocked=False)

    async def test_a_block_is_told_with_its_name(self, driver: Driver, plain: XaiServer) -> None:
        plain.script("key", Reply(200, {"team_id": "t", "api_key_blocked": False, "team_blocked": True}))
        assert await driver.verify(access()) == Verified("t", blocked=True, detail="team_blocked")

    async def test_a_refusal_is_a_signal(self, driver: Driver, plain: XaiServer) -> None:
        plain.script("key", Reply(401, {}), Drip(length=0))
        with pytest.raises(UpstreamFailed) as caught:
            await driver.verify(access())
        assert caught.value.signal.status == 401
        with pytest.raises(UpstreamFailed):
            await driver.verify(access())
