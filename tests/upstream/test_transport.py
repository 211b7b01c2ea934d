import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.outcomes import Phase, Signal, Trouble, UpstreamFailed
from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.transport import Transport
from tests.upstream.certificates import Authority, self_signed
from tests.upstream.exchanges import JOB, KEY, failure, look, submit, through
from tests.upstream.proxy_servers import Fault, SmallProxy
from tests.upstream.xai_script import Drip, Hang, Raw, Reply, Reset, mp4
from tests.upstream.xai_server import XaiServer


class TestDirect:
    async def test_an_answer_comes_with_status_headers_and_body(self, transport: Transport, secure: XaiServer) -> None:
        answer = await look(transport, secure)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert "team_id" in json.loads(answer.body)

    async def test_a_large_body_arrives_whole(self, transport: Transport, plain: XaiServer) -> None:
        body = json.dumps({"prompt": "x" * 14_000_000}).encode()
        url = f"{plain.base_url}/videos/generations"
        answer = await transport.exchange("POST", url, proxy_id=None, headers=JOB, body=body)
        assert answer.status == 200
        assert len(plain.ledger[0].body["prompt"]) == 14_000_000

    async def test_connections_are_kept(self, transport: Transport, plain: XaiServer) -> None:
        for _ in range(3):
            await look(transport, plain)
        assert plain.connections == 1

    async def test_any_number_may_run_at_a_time(self, transport: Transport, plain: XaiServer) -> None:
        plain.always("key", Hang())
        running = asyncio.gather(*(look(transport, plain) for _ in range(300)))
        await plain.called("key", 300)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_cookies_are_not_kept(self, transport: Transport, secure: XaiServer) -> None:
        secure.script("key", Reply(200, {}, {"Set-Cookie": "session=1"}))
        await look(transport, secure)
        await look(transport, secure)
        assert "cookie" not in secure.ledger[1].headers

    async def test_redirects_are_answers(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("key", Reply(302, b"", {"Location": f"{plain.base_url}/videos/1"}))
        assert (await look(transport, plain)).status == 302
        assert len(plain.ledger) == 1

    async def test_an_answer_is_cut_at_its_bound(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("key", Reply(200, b"x" * 3_000_000))
        answer = await look(transport, plain)
        assert answer.truncated
        assert len(answer.body) == 1024 * 1024

    async def test_a_compressed_answer_is_bounded_after_its_decompression(
        self, transport: Transport, plain: XaiServer
    ) -> None:
        plain.script("key", Reply(200, gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"}))
        answer = await look(transport, plain)
        assert answer.truncated
        assert len(answer.body) == 1024 * 1024

    async def test_a_certificate_nobody_vouches_for_is_refused(self, transport: Transport, tmp_path: Path) -> None:
        async with XaiServer(tls=self_signed(tmp_path, "localhost"), name="localhost") as server:
            failed = await failure(submit(transport, server))
            assert through(failed) == (Phase.BEFORE, Trouble.TLS)
            assert "certificate" in failed.detail
            assert not server.ledger

    async def test_a_certificate_of_another_name_is_refused(self, transport: Transport, trusted: Authority) -> None:
        async with XaiServer(tls=trusted.context("other.test"), name="localhost") as server:
            assert through(await failure(submit(transport, server))) == (Phase.BEFORE, Trouble.TLS)

    async def test_nobody_listening_is_before(self, transport: Transport) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
            failed = await failure(transport.exchange("POST", url, proxy_id=None, body=b"{}"))
        assert through(failed) == (Phase.BEFORE, Trouble.CONNECT)

    async def test_a_name_that_does_not_resolve_is_before(self, transport: Transport) -> None:
        failed = await failure(transport.exchange("GET", "https://nowhere.invalid/", proxy_id=None))
        assert through(failed) == (Phase.BEFORE, Trouble.CONNECT)

    async def test_a_server_that_never_speaks_tls_is_before(self, hasty: Transport) -> None:
        async with SmallProxy("http", fault=Fault(silent=True)) as server:
            url = f"https://localhost:{server.address.port}/"
            failed = await failure(hasty.exchange("POST", url, proxy_id=None, body=b"{}"))
        assert through(failed) == (Phase.BEFORE, Trouble.TIMEOUT)

    @pytest.mark.parametrize(
        ("step", "trouble"),
        [
            (Reset("early"), Trouble.RESET),
            (Reset("read"), Trouble.RESET),
            (Reset("accepted"), Trouble.RESET),
            (Hang(), Trouble.TIMEOUT),
            (Drip(), Trouble.TIMEOUT),
            (Raw(b""), Trouble.RESET),
            (Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), Trouble.MALFORMED),
            (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), Trouble.MALFORMED),
            (Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Trouble.MALFORMED),
            (Reply(200, b"not gzip at all", {"Content-Encoding": "gzip"}), Trouble.MALFORMED),
        ],
        ids=repr,
    )
    async def test_what_breaks_after_the_request_was_written_is_after_and_sent_once(
        self, hasty: Transport, plain: XaiServer, step: Reset | Hang | Drip | Raw | Reply, trouble: Trouble
    ) -> None:
        plain.script("submit", step)
        assert through(await failure(submit(hasty, plain))) == (Phase.AFTER, trouble)
        assert len(plain.calls("submit")) == 1

    async def test_a_post_on_a_connection_that_was_kept_is_not_sent_twice_either(
        self, transport: Transport, plain: XaiServer
    ) -> None:
        await submit(transport, plain)
        plain.script("submit", Reset("accepted"))
        assert through(await failure(submit(transport, plain))) == (Phase.AFTER, Trouble.RESET)
        assert len(plain.jobs) == 2

    async def test_a_refusal_whose_body_breaks_off_is_an_answer(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("submit", Raw(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\n{"))
        answer = await submit(transport, plain)
        assert (answer.status, answer.headers["retry-after"], answer.truncated) == (429, "7", True)

    async def test_a_header_that_would_split_the_request_is_never_sent(
        self, transport: Transport, plain: XaiServer
    ) -> None:
        url = f"{plain.base_url}/api-key"
        headers = {"Authorization": "Bearer x\r\nX-Evil: 1"}
        failed = await failure(transport.exchange("GET", url, proxy_id=None, headers=headers))
        assert failed.phase is Phase.BEFORE
        assert not plain.ledger

    async def test_a_cancelled_exchange_lets_its_connection_go(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("key", Hang())
        task = asyncio.ensure_future(look(transport, plain))
        await plain.called("key")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await look(transport, plain)).status == 200

    async def test_no_secret_and_no_url_is_in_a_failure(self, hasty: Transport, plain: XaiServer) -> None:
        plain.script("key", Hang())
        url = f"{plain.base_url}/api-key?signature=sesame"
        failed = await failure(hasty.exchange("GET", url, proxy_id=None, headers={"Authorization": "Bearer sesame"}))
        assert "sesame" not in repr(failed)


class TestClearance:
    async def test_goes_with_every_request_to_the_upstreams_hosts_and_to_no_other(
        self, trusted: Authority, microsocks: Address
    ) -> None:
        async with XaiServer() as upstream, XaiServer() as other:
            transport = Transport(clearance_hosts=[f"127.0.0.1:{upstream.base_url.split(':')[2].split('/')[0]}"])
            await transport.put_proxy("p", microsocks, Secret("abc.123-1.2.1.1-x_y"), "Mozilla/5.0 (Test)")
            for server in (upstream, other):
                await look(transport, server, "p")
            await look(transport, upstream)
            await transport.close()
        sent = [(call.headers.get("cookie"), call.headers["user-agent"]) for call in upstream.ledger + other.ledger]
        assert sent == [
            ("cf_clearance=abc.123-1.2.1.1-x_y", "Mozilla/5.0 (Test)"),
            (None, "grokpool"),
            (None, "grokpool"),
        ]

    async def test_a_whole_cookie_string_joins_the_requests_own(self, plain: XaiServer, microsocks: Address) -> None:
        transport = Transport(clearance_hosts=[plain.origin.removeprefix("http://")])
        await transport.put_proxy("p", microsocks, Secret("cf_clearance=a; __cf_bm=b"))
        headers = {**KEY, "Cookie": "sso=1"}
        await transport.exchange("GET", f"{plain.base_url}/api-key", proxy_id="p", headers=headers)
        await transport.close()
        assert plain.ledger[0].headers["cookie"] == "sso=1; cf_clearance=a; __cf_bm=b"


class TestDownload:
    async def take(self, transport: Transport, url: str, **options: Any) -> bytes:
        async with transport.download(url, proxy_id=None, **options) as pieces:
            return b"".join([piece async for piece in pieces])

    async def refused(self, transport: Transport, server: XaiServer, **options: int) -> Signal:
        await submit(transport, server)
        url = f"{server.origin}/media/{next(iter(server.jobs))}.mp4"
        with pytest.raises(UpstreamFailed) as caught:
            await self.take(transport, url, **options)
        return caught.value.signal

    async def test_hands_out_every_byte(self, transport: Transport, trusted: Authority) -> None:
        film = mp4(5_000_000)
        async with XaiServer(result=film, tls=trusted.context("localhost"), name="localhost") as server:
            await submit(transport, server)
            assert await self.take(transport, f"{server.origin}/media/{next(iter(server.jobs))}.mp4") == film

    async def test_another_status_is_an_answer_with_its_body(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("result", Reply(403, "<html>no</html>", {"Content-Type": "text/html"}))
        failed = await self.refused(transport, plain)
        assert (failed.phase, failed.status, failed.body) == (Phase.ANSWERED, 403, b"<html>no</html>")

    async def test_a_page_is_no_video(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("result", Reply(200, "<html>", {"Content-Type": "text/html"}))
        failed = await self.refused(transport, plain)
        assert (failed.status, failed.trouble) == (200, Trouble.MALFORMED)

    async def test_ends_above_its_bound(self, transport: Transport, plain: XaiServer) -> None:
        failed = await self.refused(transport, plain, max_bytes=4000)
        assert failed.trouble is Trouble.MALFORMED
        assert "larger" in failed.detail

    async def test_ends_when_nothing_comes(self, hasty: Transport, plain: XaiServer) -> None:
        video = {"Content-Type": "video/mp4"}
        plain.script("result", Drip(interval=10, headers=video))
        failed = await self.refused(hasty, plain)
        assert failed.trouble is Trouble.TIMEOUT
        assert "SocketTimeout" in failed.detail, "the pause's bound, not the whole's"

    async def test_ends_when_it_takes_too_long_in_all(self, hasty: Transport, plain: XaiServer) -> None:
        plain.script("result", Drip(interval=0.05, headers={"Content-Type": "video/mp4"}))
        assert (await self.refused(hasty, plain)).trouble is Trouble.TIMEOUT

    async def test_an_early_end_is_no_end(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("result", Raw(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 99\r\n\r\nxx"))
        failed = await self.refused(transport, plain)
        assert (failed.phase, failed.status, failed.trouble) == (Phase.AFTER, 200, Trouble.MALFORMED)

    async def test_the_takers_own_errors_pass_unchanged(self, transport: Transport, plain: XaiServer) -> None:
        await submit(transport, plain)
        url = f"{plain.origin}/media/{next(iter(plain.jobs))}.mp4"
        with pytest.raises(OSError, match="disk full"):
            async with transport.download(url, proxy_id=None):
                raise OSError("disk full")
