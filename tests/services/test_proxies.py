"""Proxies as their operator handles them, with real ones on loopback."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.errors import Conflict, InvalidParameter, NotFound
from proxy.domain.secret import Secret
from proxy.services.proxies import Edit, exit_address
from proxy.state.leases import NotNow, Status, Want
from proxy.storage import proxies
from proxy.upstream.transport import Answer
from tests.services.house import OPERATOR, VIDEO, House, house
from tests.upstream.proxy_servers import PASSWORD, USER, SmallProxy

WANT = Want(drivers=("xai",), model=VIDEO)


class ExitCheck:
    """Says by which address it is seen; here, the one it is told to."""

    def __init__(self) -> None:
        self.body = "fl=1\nip=192.0.2.7\nts=1\n"
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.body)


@pytest.fixture
async def check() -> AsyncIterator[ExitCheck]:
    check, app = ExitCheck(), web.Application()
    app.router.add_get("/trace", check.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    check.url = f"http://127.0.0.1:{runner.addresses[0][1]}/trace"
    yield check
    await runner.cleanup()


@pytest.fixture
async def here(tmp_path: Path, check: ExitCheck) -> AsyncIterator[House]:
    async with house(tmp_path, exit_check_url=check.url) as built:
        yield built


def edit(**values: str | None) -> Edit:
    url, clearance = values.get("url"), values.get("clearance")
    return Edit(
        frozenset(values),
        name=values.get("name") or "",
        url=None if url is None else Secret(url),
        clearance=None if clearance is None else Secret(clearance),
        user_agent=values.get("user_agent"),
    )


async def add(here: House, url: str = "socks5h://alice:CANARY-pw@127.0.0.1:9", **values: str | None) -> str:
    return (await here.proxies.add(OPERATOR, edit(url=url, **values))).proxy.id


def url_of(server: SmallProxy, password: str = PASSWORD) -> str:
    address = server.address
    return f"{address.scheme}://{USER}:{password.replace(' ', '%20')}@{address.host}:{address.port}"


async def test_a_new_proxy_is_shown_masked_and_named_by_its_host(here: House) -> None:
    shown = await here.proxies.add(OPERATOR, edit(url="socks5://alice:CANARY-pw@127.0.0.1:9", clearance="CANARY-cf"))
    assert shown.proxy.url == "socks5://alice:•••@127.0.0.1:9"
    assert shown.proxy.name == "127.0.0.1:9"
    assert shown.proxy.has_clearance
    assert shown.live.status is Status.READY
    assert here.pool.proxies() == {shown.proxy.id}
    files = [path.read_bytes() for path in here.folder.root.iterdir() if path.name.startswith("grokpool.db")]
    assert not any(b"CANARY" in content for content in files)


async def test_the_same_proxy_twice_is_a_conflict_however_it_is_written(here: House) -> None:
    first = await add(here, "http://127.0.0.1:80")
    with pytest.raises(Conflict) as refused:
        await add(here, "HTTP://127.0.0.1/")
    assert first in refused.value.reason
    second = await add(here, "http://127.0.0.1:81")
    with pytest.raises(Conflict):
        await here.proxies.update(OPERATOR, second, edit(url="http://127.0.0.1"))
    await here.proxies.update(OPERATOR, first, edit(url="http://127.0.0.1"))  # it is no twin of itself


async def test_of_two_that_add_the_same_proxy_at_once_one_is_refused(here: House) -> None:
    one, two = await asyncio.gather(add(here), add(here), return_exceptions=True)
    assert isinstance(one, str)
    assert isinstance(two, Conflict)


async def test_what_is_no_proxy_is_named_without_being_repeated(here: House) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await add(here, "ftp://alice:CANARY-pw@127.0.0.1:9")
    assert refused.value.parameter == "url"
    assert "CANARY" not in refused.value.reason


async def test_the_exit_is_seen_through_the_proxy_and_kept(here: House) -> None:
    async with SmallProxy("socks5h", username=USER, password=PASSWORD) as server:
        proxy_id = await add(here, url_of(server))
        trial = await here.proxies.test(OPERATOR, proxy_id)
        assert trial.exit_address == "192.0.2.7"
        assert not trial.changed
        assert len(server.asked) == 1
    assert (await here.proxies.show(proxy_id)).proxy.exit_address == "192.0.2.7"


async def test_another_exit_than_before_drops_the_clearance(here: House, check: ExitCheck) -> None:
    async with SmallProxy("http", username=USER, password=PASSWORD) as server:
        proxy_id = await add(here, url_of(server), clearance="CANARY-cf")
        first = await here.proxies.test(OPERATOR, proxy_id)
        assert not first.clearance_dropped
        assert (await here.proxies.show(proxy_id)).proxy.has_clearance
        check.body = "2001:db8::1"
        second = await here.proxies.test(OPERATOR, proxy_id)
        assert second.changed
        assert second.clearance_dropped
    shown = await here.proxies.show(proxy_id)
    assert shown.proxy.exit_address == "2001:db8::1"
    assert not shown.proxy.has_clearance


async def test_a_proxy_that_does_not_work_says_why(here: House) -> None:
    async with SmallProxy("socks5h", username=USER, password=PASSWORD) as server:
        proxy_id = await add(here, url_of(server, "CANARY-wrong"))
        trial = await here.proxies.test(OPERATOR, proxy_id)
    assert trial.exit_address is None
    assert "proxy_auth" in trial.reason
    assert "CANARY" not in trial.reason


@pytest.mark.parametrize(
    ("status", "body", "address"),
    [
        (200, b"fl=1\nip=192.0.2.7\nts=1", "192.0.2.7"),
        (200, b"192.0.2.7\n", "192.0.2.7"),
        (200, b"ip=2001:DB8::1\n", "2001:db8::1"),
        (200, b"<html>", None),
        (200, b"ip=<script>", None),
        (200, b"", None),
        (403, b"ip=192.0.2.7", None),
    ],
)
def test_only_an_address_is_taken_for_one(status: int, body: bytes, address: str | None) -> None:
    assert exit_address(Answer(status, {}, body)) == address


async def test_a_change_ends_the_proxys_rests_but_a_name_does_not(here: House) -> None:
    proxy_id = await add(here)
    await here.rest(SubjectKind.PROXY, proxy_id, "proxy_auth")
    await here.rest(SubjectKind.PROXY_HOST, proxy_id, "challenged", scope="xai")
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(name="renamed"))
    assert shown.live.status is Status.COOLING
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(url="socks5h://alice:right@127.0.0.1:9"))
    assert shown.live.status is Status.READY
    assert await here.kept_cooldowns() == []


async def test_a_new_password_keeps_the_clearance_and_a_new_address_drops_it(here: House) -> None:
    proxy_id = await add(here, clearance="CANARY-cf")
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(url="socks5h://alice:other@127.0.0.1:9"))
    assert shown.proxy.has_clearance
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(url="socks5h://bob:other@127.0.0.1:9"))
    assert not shown.proxy.has_clearance


async def test_a_clearance_is_taken_away_by_null_alone(here: House) -> None:
    proxy_id = await add(here, clearance="CANARY-cf", user_agent="Firefox")
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(name="renamed"))
    assert shown.proxy.has_clearance
    shown = await here.proxies.update(OPERATOR, proxy_id, edit(clearance=None, user_agent=None))
    assert not shown.proxy.has_clearance
    assert shown.proxy.user_agent is None


async def test_nothing_goes_through_a_disabled_proxy_nor_past_it(here: House) -> None:
    await here.tokens.add(OPERATOR, "xai", Secret("one"), {})
    proxy_id = await add(here)
    assert (await here.proxies.disable(OPERATOR, proxy_id)).live.status is Status.DISABLED
    assert isinstance(here.pool.lease(WANT, here.clock()), NotNow)
    await here.proxies.enable(OPERATOR, proxy_id)
    assert not isinstance(here.pool.lease(WANT, here.clock()), NotNow)


async def test_a_token_is_pinned_by_a_proxys_name_and_let_go_by_force(here: House) -> None:
    await add(here, "socks5h://127.0.0.1:8")
    proxy_id = await add(here, name="paris")
    token = await here.tokens.add(OPERATOR, "xai", Secret("one"), {"proxy_id": "paris"})
    assert token.token.proxy_id == proxy_id
    with pytest.raises(Conflict):
        await here.proxies.remove(OPERATOR, proxy_id, force=False)
    await here.proxies.remove(OPERATOR, proxy_id, force=True)
    assert (await here.tokens.show(token.token.id)).token.proxy_id is None
    with pytest.raises(NotFound):
        await here.proxies.show(proxy_id)


async def test_of_two_proxies_with_one_name_neither_is_meant(here: House) -> None:
    await add(here, "socks5h://127.0.0.1:8", name="paris")
    await add(here, name="paris")
    with pytest.raises(InvalidParameter):
        await here.tokens.add(OPERATOR, "xai", Secret("one"), {"proxy_id": "paris"})


async def test_the_last_proxy_goes_by_force_alone_and_its_secrets_with_it(here: House) -> None:
    proxy_id = await add(here, clearance="CANARY-cf")
    with pytest.raises(Conflict):
        await here.proxies.remove(OPERATOR, proxy_id, force=False)
    await here.proxies.remove(OPERATOR, proxy_id, force=True)
    (row,) = await here.database.read(proxies.load)
    assert row.sealed_clearance is None
    assert here.catalog.sealer.open(row.sealed_url, proxies.url_place(proxy_id)) == Secret("")
    assert here.pool.proxies() == frozenset()
