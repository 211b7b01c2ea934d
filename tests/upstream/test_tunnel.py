import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.outcomes import Phase, Trouble
from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.transport import Transport
from tests.upstream.certificates import Authority, self_signed
from tests.upstream.exchanges import JOB, failure, look, submit, through
from tests.upstream.proxy_servers import Fault, SmallProxy
from tests.upstream.xai_script import Reply
from tests.upstream.xai_server import XaiServer

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
            secure.script("key", Reply(200, {}, delay=0.2), Reply(200, {}, delay=0.4))
            running = asyncio.gather(look(transport, secure, "p"), look(transport, secure, "p"))
            await secure.called("key", len(secure.ledger) + 2)
            await (transport.drop_proxy("p") if change == "drop" else transport.put_proxy("p", way.address))
            assert [answer.status for answer in await running] == [200, 200]
