import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.outcomes import Phase, Signal, Trouble, UpstreamFailed
from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.transport import Answer, Timeouts, Transport
from tests.upstream.certificates import Authority, self_signed
from tests.upstream.proxy_servers import Fault, SmallProxy
from tests.upstream.xai_script import Drip, Hang, Raw, Reply, Reset
from tests.upstream.xai_server import XaiServer, mp4

KEY = {"Authorization": "Bearer xai-1"}
JOB = {**KEY, "Content-Type": "application/json"}
QUICK = Timeouts(connect=0.5, answer=0.5, idle=0.3, download=1.0)


@pytest.fixture
async def transport(trusted: Authority) -> AsyncIterator[Transport]:
    transport = Transport(ca_file=trusted.ca_file)
    yield transport
    await transport.close()


@pytest.fixture
async def hasty(trusted: Authority) -> AsyncIterator[Transport]:
    transport = Transport(ca_file=trusted.ca_file, timeouts=QUICK)
    yield transport
    await transport.close()


async def failure(exchange: Awaitable[Answer]) -> Signal:
    with pytest.raises(UpstreamFailed) as caught:
        await exchange
    return caught.value.signal


def look(transport: Transport, server: XaiServer, proxy_id: str | None = None) -> Awaitable[Answer]:
    return transport.exchange("GET", f"{server.base_url}/api-key", proxy_id=proxy_id, headers=KEY)


def submit(transport: Transport, server: XaiServer, proxy_id: str | None = None) -> Awaitable[Answer]:
    url = f"{server.base_url}/videos/generations"
    return transport.exchange("POST", url, proxy_id=proxy_id, headers=JOB, body=b'{"prompt": "a boat"}')


def through(failed: Signal) -> tuple[Phase, Trouble | None]:
    return failed.phase, failed.trouble


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

    async def test_connections_are_kept_and_not_limited(self, transport: Transport, plain: XaiServer) -> None:
        plain.always("key", Reply(200, {}, delay=0.2))
        answers = await asyncio.gather(*(look(transport, plain) for _ in range(300)))
        assert {answer.status for answer in answers} == {200}
        ends = max(call.ended_at or 0.0 for call in plain.ledger)
        assert all(call.at < ends - 0.1 for call in plain.ledger), "they ran beside each other"

    async def test_cookies_are_not_kept(self, transport: Transport, plain: XaiServer) -> None:
        plain.script("key", Reply(200, {}, {"Set-Cookie": "session=1"}))
        await look(transport, plain)
        await look(transport, plain)
        assert "cookie" not in plain.ledger[1].headers

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


NAMES = {"upstream.test": "127.0.0.1"}
Opened = Callable[..., Awaitable[SmallProxy]]


@pytest.fixture
async def small(trusted: Authority) -> AsyncIterator[Opened]:
    """Open a small proxy; an https one shows a certificate of the authority."""
    async with AsyncExitStack() as stack:

        async def opened(scheme: str, **options: Any) -> SmallProxy:
            tls = trusted.context("127.0.0.1") if scheme == "https" else None
            return await stack.enter_async_context(SmallProxy(scheme, names=NAMES, tls=tls, **options))

        yield opened


class TestThroughProxies:
    async def test_through_microsocks(self, transport: Transport, secure: XaiServer, microsocks: Address) -> None:
        await transport.put_proxy("p", microsocks)
        assert (await look(transport, secure, "p")).status == 200

    async def test_through_tinyproxy(self, transport: Transport, secure: XaiServer, tinyproxy: Address) -> None:
        await transport.put_proxy("p", tinyproxy)
        assert (await look(transport, secure, "p")).status == 200

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    async def test_a_wrong_password_for_microsocks(
        self, transport: Transport, secure: XaiServer, microsocks: Address, scheme: str
    ) -> None:
        await transport.put_proxy("p", Address(scheme, microsocks.host, microsocks.port, "alice", Secret("wrong")))
        assert through(await failure(look(transport, secure, "p"))) == (Phase.BEFORE, Trouble.PROXY_AUTH)

    async def test_no_password_for_microsocks(
        self, transport: Transport, secure: XaiServer, microsocks: Address
    ) -> None:
        await transport.put_proxy("p", Address("socks5h", microsocks.host, microsocks.port))
        assert through(await failure(look(transport, secure, "p"))) == (Phase.BEFORE, Trouble.PROXY_AUTH)

    async def test_a_wrong_password_for_tinyproxy(
        self, transport: Transport, secure: XaiServer, tinyproxy: Address
    ) -> None:
        await transport.put_proxy("p", Address("http", tinyproxy.host, tinyproxy.port, "alice", Secret("wrong")))
        signal = await failure(look(transport, secure, "p"))
        assert through(signal) in [(Phase.BEFORE, Trouble.PROXY_AUTH), (Phase.BEFORE, Trouble.PROXY_REFUSED)]

    @pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
    @pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http", "https"])
    async def test_four_schemes_leave_the_name_to_the_proxy(
        self, transport: Transport, trusted: Authority, small: Opened, scheme: str, tls: bool
    ) -> None:
        context = trusted.context("upstream.test") if tls else None
        password = None if scheme == "socks4a" else "word" if scheme == "socks5h" else "ключ: 1"
        way = await small(scheme, username="alice", password=password)
        await transport.put_proxy("p", way.address)
        async with XaiServer(tls=context, name="upstream.test") as server:
            assert (await submit(transport, server, "p")).status == 200
            assert (await submit(transport, server, "p")).status == 200
        assert [host for host, _ in way.asked] == ["upstream.test"], "one connection, kept"

    @pytest.mark.parametrize("scheme", ["socks4", "socks5"])
    async def test_two_schemes_resolve_it_here(
        self, transport: Transport, secure: XaiServer, small: Opened, scheme: str
    ) -> None:
        way = await small(scheme)
        await transport.put_proxy("p", way.address)
        assert (await look(transport, secure, "p")).status == 200
        assert [host for host, _ in way.asked] == ["127.0.0.1"]

    @pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http", "https"])
    async def test_wrong_credentials_are_the_proxys(
        self, transport: Transport, secure: XaiServer, small: Opened, scheme: str
    ) -> None:
        way = await small(scheme, username="alice", password="word")
        wrong = Address(scheme, "127.0.0.1", way.address.port, "mallory", Secret("drow"))
        await transport.put_proxy("p", wrong)
        assert through(await failure(submit(transport, secure, "p"))) == (Phase.BEFORE, Trouble.PROXY_AUTH)

    @pytest.mark.parametrize(
        ("answer", "trouble"),
        [
            (("socks5h", 1), Trouble.PROXY_REFUSED),
            (("socks5h", 2), Trouble.PROXY_REFUSED),
            (("socks5h", 3), Trouble.PROXY_TARGET),
            (("socks5h", 4), Trouble.PROXY_TARGET),
            (("socks5h", 5), Trouble.PROXY_TARGET),
            (("socks5", 5), Trouble.PROXY_TARGET),
            (("socks5h", 8), Trouble.PROXY_REFUSED),
            (("socks5h", 77), Trouble.PROXY_REFUSED),
            (("socks4a", 91), Trouble.PROXY_REFUSED),
            (("socks4a", 92), Trouble.PROXY_AUTH),
            (("http", 403), Trouble.PROXY_REFUSED),
            (("http", 407), Trouble.PROXY_AUTH),
            (("http", 502), Trouble.PROXY_TARGET),
            (("http", 503), Trouble.PROXY_REFUSED),
            (("https", 504), Trouble.PROXY_TARGET),
        ],
    )
    async def test_a_proxys_refusal_by_its_code(
        self, transport: Transport, secure: XaiServer, small: Opened, answer: tuple[str, int], trouble: Trouble
    ) -> None:
        way = await small(answer[0], fault=Fault(code=answer[1]))
        await transport.put_proxy("p", way.address)
        assert through(await failure(submit(transport, secure, "p"))) == (Phase.BEFORE, trouble)

    @pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http", "https"])
    @pytest.mark.parametrize(
        "broken",
        [
            (Fault(hang_up=True), {Trouble.RESET}),
            (Fault(silent=True), {Trouble.TIMEOUT}),
            (Fault(mute_tunnel=True), {Trouble.TIMEOUT}),
            (Fault(garbage=b"<html>authentication</html>\r\n\r\n"), {Trouble.PROXY_REFUSED}),
        ],
        ids=["hangs up", "silent", "mute after CONNECT", "HTML"],
    )
    async def test_a_proxy_that_misbehaves_before_the_request(
        self, hasty: Transport, secure: XaiServer, small: Opened, scheme: str, broken: tuple[Fault, set[Trouble]]
    ) -> None:
        way = await small(scheme, fault=broken[0])
        await hasty.put_proxy("p", way.address)
        async with asyncio.timeout(5):
            failed = await failure(submit(hasty, secure, "p"))
        assert failed.phase is Phase.BEFORE
        assert failed.trouble in broken[1]
        assert not secure.ledger

    async def test_html_with_status_200_for_connect_is_no_way_in(
        self, hasty: Transport, secure: XaiServer, small: Opened
    ) -> None:
        page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html>\r\n</html>"
        way = await small("http", fault=Fault(garbage=page))
        await hasty.put_proxy("p", way.address)
        failed = await failure(submit(hasty, secure, "p"))
        assert failed.phase is Phase.BEFORE
        assert failed.trouble in {Trouble.TLS, Trouble.RESET, Trouble.PROXY_REFUSED}

    @pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http", "https"])
    async def test_a_proxy_that_forges_the_upstream_gets_no_request(
        self, transport: Transport, small: Opened, tmp_path: Path, scheme: str
    ) -> None:
        way = await small(scheme, fault=Fault(forge=self_signed(tmp_path, "upstream.test")))
        await transport.put_proxy("p", way.address)
        url = "https://upstream.test/v1/videos/generations"
        failed = await failure(transport.exchange("POST", url, proxy_id="p", headers=JOB, body=b"{}"))
        assert through(failed) == (Phase.BEFORE, Trouble.TLS)

    async def test_an_https_proxy_must_prove_itself_too(
        self, transport: Transport, secure: XaiServer, tmp_path: Path
    ) -> None:
        async with SmallProxy("https", tls=self_signed(tmp_path, "127.0.0.1")) as way:
            await transport.put_proxy("p", way.address)
            assert through(await failure(submit(transport, secure, "p"))) == (Phase.BEFORE, Trouble.TLS)
            assert not way.asked

    @pytest.mark.parametrize("scheme", ["socks5h", "http", "https"])
    async def test_a_proxys_answer_may_come_in_pieces(
        self, transport: Transport, secure: XaiServer, small: Opened, scheme: str
    ) -> None:
        way = await small(scheme, fault=Fault(two_writes=True))
        await transport.put_proxy("p", way.address)
        assert (await look(transport, secure, "p")).status == 200

    @pytest.mark.parametrize(("scheme", "password"), [("socks5h", "pässwort"), ("socks5h", "x" * 300)])
    async def test_credentials_that_cannot_be_sent(
        self, transport: Transport, secure: XaiServer, small: Opened, scheme: str, password: str
    ) -> None:
        way = await small(scheme, username="alice", password="word")
        address = Address(scheme, "127.0.0.1", way.address.port, "alice", Secret(password))
        await transport.put_proxy("p", address)
        failed = await failure(look(transport, secure, "p"))
        assert through(failed) == (Phase.BEFORE, Trouble.PROXY_AUTH)
        assert password not in failed.detail

    async def test_nobody_listening_at_the_proxy(self, transport: Transport, secure: XaiServer) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            await transport.put_proxy("p", Address("socks5h", "127.0.0.1", taken.getsockname()[1]))
            assert through(await failure(submit(transport, secure, "p"))) == (Phase.BEFORE, Trouble.CONNECT)

    async def test_with_a_proxy_that_is_gone_nothing_goes_direct(
        self, transport: Transport, secure: XaiServer, microsocks: Address
    ) -> None:
        await transport.put_proxy("p", microsocks)
        await transport.drop_proxy("p")
        assert through(await failure(submit(transport, secure, "p"))) == (Phase.BEFORE, Trouble.CONNECT)
        assert not secure.ledger

    async def test_a_proxy_may_go_or_change_while_an_exchange_runs_through_it(
        self, transport: Transport, secure: XaiServer, small: Opened
    ) -> None:
        for change in ("drop", "put"):
            way = await small("socks5h")
            await transport.put_proxy("p", way.address)
            secure.script("key", Reply(200, {}, delay=0.3))
            running = asyncio.ensure_future(look(transport, secure, "p"))
            await secure.called("key", len(secure.ledger) + 1)
            await (transport.drop_proxy("p") if change == "drop" else transport.put_proxy("p", way.address))
            assert (await running).status == 200


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
        assert (await self.refused(hasty, plain)).trouble is Trouble.TIMEOUT

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
