import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.domain.addresses import Reach
from proxy.domain.errors import ImageTooLarge, InvalidImageUrl
from proxy.domain.proxies import Address
from proxy.domain.secret import Secret
from proxy.upstream.fetch import FetchLimits, ImageFetcher
from tests.upstream.certificates import Authority, self_signed
from tests.upstream.image_host import HOST, PNG, ImageHost, Names
from tests.upstream.proxy_servers import PASSWORD, USER, Fault, SmallProxy

REACHED: list[str] = []


def _witness(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        REACHED.append(str(arguments[1][0]))


sys.addaudithook(_witness)  # for good: hooks cannot be taken away


@pytest.fixture(autouse=True)
def only_the_allowed_address_is_reached(request: pytest.FixtureRequest) -> Any:
    """Fail any test here in which a connection went elsewhere; those through a proxy look for themselves."""
    REACHED.clear()
    yield
    if "via" not in request.fixturenames:
        assert set(REACHED) <= {HOST}


@pytest.fixture
async def images(trusted: Authority) -> AsyncIterator[ImageHost]:
    async with ImageHost(trusted) as host:
        yield host


class Bench:
    """A fetcher with its names and limits, and the host it fetches from."""

    def __init__(self, images: ImageHost, trusted: Authority) -> None:
        self.images = images
        self.names = Names({"img.example": [[HOST]], "b.example": [[HOST]]})
        self.trusted = trusted
        self.fetchers: list[ImageFetcher] = []

    def fetcher(self, **limits: Any) -> ImageFetcher:
        base: dict[str, Any] = {
            "ports": frozenset({80, 443, self.images.port, self.images.secure_port}),
            "allow_networks": (ip_network(f"{HOST}/32"),),
            "connect": 2.0,
            "read": 1.0,
        }
        fetcher = ImageFetcher(FetchLimits(**{**base, **limits}), resolve=self.names, ca_file=self.trusted.ca_file)
        self.fetchers.append(fetcher)
        return fetcher

    def url(self, path: str, host: str = "img.example") -> str:
        return f"http://{host}:{self.images.port}{path}"

    def secure(self, path: str, host: str = "img.example") -> str:
        return f"https://{host}:{self.images.secure_port}{path}"

    async def refused(self, url: str, **limits: Any) -> str:
        """Fetch what must be refused; return the cause."""
        with pytest.raises(InvalidImageUrl) as caught:
            await self.fetcher(**limits).fetch(url)
        return caught.value.cause


@pytest.fixture
async def bench(images: ImageHost, trusted: Authority) -> AsyncIterator[Bench]:
    bench = Bench(images, trusted)
    yield bench
    for fetcher in bench.fetchers:
        await fetcher.close()


class TestFetching:
    async def test_an_image_by_name_by_address_and_over_tls(self, bench: Bench) -> None:
        fetcher = bench.fetcher()
        assert await fetcher.fetch(bench.url("/a.png")) == PNG
        assert await fetcher.fetch(bench.url("/a.png", HOST)) == PNG
        assert await fetcher.fetch(bench.secure("/a.png")) == PNG

    async def test_nothing_of_ours_goes_with_it(self, bench: Bench) -> None:
        fetcher = bench.fetcher()
        for _ in range(2):
            await fetcher.fetch(bench.url("/a%20b/%E5%9B%BE.png?x=%2F&y=[1]"))
        assert bench.images.paths[-1] == "/a%20b/%E5%9B%BE.png?x=%2F&y=[1]"
        assert set(bench.images.headers[-1]) <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert bench.images.headers[-1]["accept-encoding"] == "identity"
        assert bench.images.headers[-1]["host"] == f"img.example:{bench.images.port}"

    async def test_up_to_the_bound_and_not_a_byte_more(self, bench: Bench) -> None:
        fetcher = bench.fetcher(max_bytes=100_000)
        for path in ("/a.png?size=100000", "/chunked?size=100000"):
            assert len(await fetcher.fetch(bench.url(path))) == 100_000
        for path in ("/a.png?size=100001", "/chunked?size=100001", "/chunked?size=50000000"):
            with pytest.raises(ImageTooLarge) as caught:
                await fetcher.fetch(bench.url(path))
            assert caught.value.limit == 100_000

    async def test_a_redirect_or_three_and_no_more(self, bench: Bench) -> None:
        assert await bench.fetcher().fetch(bench.url("/hops?n=2")) == PNG
        assert await bench.refused(bench.url("/hops?n=3")) == "too many redirects"
        assert await bench.refused(bench.url("/to?l=/to?l=/to")) != ""

    async def test_from_https_a_redirect_never_leads_to_http(self, bench: Bench) -> None:
        assert await bench.fetcher().fetch(bench.url(f"/to?l={bench.secure('/a.png', 'b.example')}")) == PNG
        assert "https" in await bench.refused(bench.secure(f"/to?l={bench.url('/a.png')}"))

    @pytest.mark.parametrize(
        "path", ["/a.png?status=404", "/a.png?status=206", "/a.png?status=500", "/gzip", "/cut", "/a.png?status=304"]
    )
    async def test_any_answer_but_a_plain_200_is_refused(self, bench: Bench, path: str) -> None:
        await bench.refused(bench.url(path))

    async def test_a_page_that_sends_browsers_elsewhere_is_just_bytes(self, bench: Bench) -> None:
        assert b"refresh" in await bench.fetcher().fetch(bench.url("/refresh"))
        assert bench.images.paths == ["/refresh"]

    async def test_silence_and_dripping_end(self, bench: Bench) -> None:
        assert "Timeout" in await bench.refused(bench.url("/silent"), read=0.2)
        assert "Timeout" in await bench.refused(bench.url("/chunked?size=1000&piece=1&pause=0.02"), total=0.5)

    async def test_a_certificate_must_be_the_names(self, bench: Bench) -> None:
        bench.names.answers["c.example"] = [[HOST]]
        assert "Certificate" in await bench.refused(bench.secure("/a.png", "c.example"))
        assert not bench.images.paths

    async def test_a_slow_resolver_is_given_up(self, bench: Bench) -> None:
        async def never(_name: str) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        fetcher = ImageFetcher(FetchLimits(lookup=0.1), resolve=never)
        with pytest.raises(InvalidImageUrl) as caught:
            await fetcher.fetch("http://img.example/")
        assert caught.value.cause == "the name does not resolve"
        await fetcher.close()

    async def test_the_systems_resolver_is_used_where_no_other_is_given(self) -> None:
        fetcher = ImageFetcher(FetchLimits())
        with pytest.raises(InvalidImageUrl) as caught:
            await fetcher.fetch("http://nowhere.invalid/")
        assert caught.value.cause == "the name does not resolve"
        with pytest.raises(InvalidImageUrl) as caught:
            await fetcher.fetch("http://ⓛocalhost/")
        assert "denied" in caught.value.cause
        await fetcher.close()

    async def test_four_at_a_time_to_one_host(self, bench: Bench) -> None:
        fetcher = bench.fetcher()
        slow = bench.url("/chunked?size=1&pause=0.1")
        assert await asyncio.gather(*(fetcher.fetch(slow) for _ in range(12))) == [b"\0"] * 12
        assert bench.images.peak == 4


DENIED = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.100.100.200", "192.168.0.1", "0.0.0.0", "::1", "fe80::1",
          "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::ffff:127.0.0.1", "239.255.255.250", "fe80::1%lo",
          "not an address"]  # fmt: skip


class TestGuard:
    @pytest.mark.parametrize("address", DENIED)
    async def test_a_name_that_leads_inside_is_refused(self, bench: Bench, address: str) -> None:
        bench.names.answers["in.example"] = [[address]]
        assert "denied" in await bench.refused(bench.url("/a.png", "in.example"))
        assert not REACHED

    @pytest.mark.parametrize("address", DENIED)
    async def test_one_bad_answer_among_good_ones_is_enough(self, bench: Bench, address: str) -> None:
        for answers in ([address, HOST], [HOST, address], [HOST] * 300 + [address]):
            bench.names.answers["in.example"] = [answers]
            assert "denied" in await bench.refused(bench.url("/a.png", "in.example"))
        assert not REACHED

    async def test_no_answer_is_none(self, bench: Bench) -> None:
        bench.names.answers["in.example"] = [[]]
        await bench.refused(bench.url("/a.png", "in.example"))

    async def test_a_name_is_looked_up_anew_for_every_connection(self, bench: Bench) -> None:
        bench.names.answers["img.example"] = [[HOST], ["127.0.0.1"]]
        fetcher = bench.fetcher()
        assert await fetcher.fetch(bench.url("/a.png")) == PNG
        with pytest.raises(InvalidImageUrl):
            await fetcher.fetch(bench.url("/a.png"))
        assert bench.names.asked == ["img.example", "img.example"]

    async def test_a_name_that_turns_inside_between_two_hops_is_refused(self, bench: Bench) -> None:
        bench.names.answers["img.example"] = [[HOST], ["127.0.0.1"]]
        assert "denied" in await bench.refused(bench.url("/to?l=/a.png"))
        assert bench.images.paths == ["/to?l=/a.png"]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize(
        "location",
        [
            "http://127.0.0.1/", "http://169.254.169.254/latest/", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
            "http://localhost/", "http://in.example/", "http://img.example@127.0.0.1/", "\\\\127.0.0.1\\",
            "//127.0.0.1/",
            "http://127。0。0。1/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://2130706433/", "",
        ],
    )  # fmt: skip
    async def test_no_redirect_leads_inside(self, bench: Bench, status: int, location: str) -> None:
        bench.names.answers["in.example"] = [["10.0.0.1"]]
        await bench.refused(bench.url(f"/to?status={status}&l={location.replace('&', '%26')}").replace("\\", "%5C"))

    async def test_the_last_look_is_at_the_socket(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        fetcher = bench.fetcher()

        async def unchecked(_name: str) -> Sequence[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(fetcher, "_checked", unchecked)
        with pytest.raises(InvalidImageUrl):
            await fetcher.fetch(bench.url("/a.png"))
        assert not REACHED

    async def test_the_gateways_own_public_address_is_denied(self, bench: Bench) -> None:
        bench.names.answers["me.example"] = [["8.8.8.8"]]
        cause = await bench.refused(bench.url("/", "me.example"), own_addresses=frozenset({IPv4Address("8.8.8.8")}))
        assert "denied" in cause

    async def test_without_allowed_networks_loopback_is_denied(self, bench: Bench) -> None:
        assert "denied" in await bench.refused(bench.url("/a.png"), allow_networks=())
        assert "denied" in await bench.refused(bench.url("/a.png", HOST), allow_networks=())

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
    @given(st.ip_addresses())
    async def test_no_address_at_random_is_reached_unless_public(self, address: Any) -> None:
        """All denied ones are refused; public ones are not tried here."""
        if Reach().denies(str(address)):
            shown = f"[{address}]" if address.version == 6 else str(address)
            fetcher = ImageFetcher(FetchLimits())
            with pytest.raises(InvalidImageUrl):
                await fetcher.fetch(f"http://{shown}/")
            await fetcher.close()
            assert not REACHED


class TestThroughAProxy:
    """`via` marks that connections go to the proxy, on 127.0.0.1; what it was asked for is looked at instead."""

    @pytest.fixture(params=["socks4", "socks4a", "socks5", "socks5h", "http", "https"])
    async def via(self, request: pytest.FixtureRequest, trusted: Authority) -> AsyncIterator[SmallProxy]:
        tls = trusted.context("127.0.0.1") if request.param == "https" else None
        async with SmallProxy(request.param, tls=tls) as proxy:
            yield proxy

    async def test_it_is_told_the_address_and_tls_knows_the_name(self, bench: Bench, via: SmallProxy) -> None:
        fetcher = bench.fetcher(proxy=via.address)
        assert await fetcher.fetch(bench.secure("/a.png")) == PNG
        assert await fetcher.fetch(bench.url("/to?l=/a.png")) == PNG
        assert {host for host, _ in via.asked} == {HOST}
        assert bench.images.headers[0]["host"] == f"img.example:{bench.images.secure_port}"

    async def test_the_certificate_must_be_the_names(self, bench: Bench, via: SmallProxy) -> None:
        bench.names.answers["c.example"] = [[HOST]]
        await bench.refused(bench.secure("/a.png", "c.example"), proxy=via.address)
        assert not bench.images.paths

    @pytest.mark.parametrize("address", DENIED)
    async def test_it_is_never_asked_for_the_inside(self, bench: Bench, via: SmallProxy, address: str) -> None:
        bench.names.answers["in.example"] = [[HOST, address]]
        await bench.refused(bench.url("/a.png", "in.example"), proxy=via.address)
        await bench.refused(bench.url("/to?l=http://in.example/"), proxy=via.address)
        assert {host for host, _ in via.asked} <= {HOST}

    async def test_a_literal_inside_is_refused_too(self, bench: Bench, via: SmallProxy) -> None:
        await bench.refused(bench.url("/a.png", "127.0.0.1"), proxy=via.address)
        assert not via.asked


class TestThroughAFaultyProxy:
    @pytest.fixture
    def via(self) -> None:
        """Connections go to the proxy."""

    @pytest.mark.parametrize(
        "fault", [Fault(hang_up=True), Fault(silent=True), Fault(code=5), Fault(garbage=b"<html>")], ids=repr
    )
    async def test_its_faults_are_refusals(self, bench: Bench, via: None, fault: Fault) -> None:
        async with SmallProxy("socks5h", fault=fault) as proxy:
            await bench.refused(bench.url("/a.png"), proxy=proxy.address, connect=0.3)

    async def test_a_forged_target_is_refused(self, bench: Bench, via: None, tmp_path: Path) -> None:
        async with SmallProxy("http", fault=Fault(forge=self_signed(tmp_path, "img.example"))) as proxy:
            assert "TLS" in await bench.refused(bench.secure("/a.png"), proxy=proxy.address)

    async def test_through_microsocks(self, bench: Bench, via: None, microsocks: Address) -> None:
        assert await bench.fetcher(proxy=microsocks).fetch(bench.secure("/a.png")) == PNG
        wrong = Address("socks5", microsocks.host, microsocks.port, USER, Secret(PASSWORD + "!"))
        cause = await bench.refused(bench.secure("/a.png"), proxy=wrong)
        assert PASSWORD not in cause
