"""The operator's side of the proxies: added, tried, changed, rested from, taken out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.errors import Conflict, InvalidParameter, NotFound
from proxy.domain.ids import make_id
from proxy.domain.outcomes import UpstreamFailed
from proxy.domain.proxies import Address, InvalidProxy, Proxy, parse
from proxy.domain.secret import Secret
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.rests import Rests
from proxy.state.leases import ProxyView
from proxy.state.pool import Pool
from proxy.storage import proxies, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each
from proxy.upstream.transport import Answer, Transport

OWN = frozenset({SubjectKind.PROXY, SubjectKind.PROXY_HOST})
CHECK_TIMEOUT = 20.0  # seconds a look at the exit may take
CHECK_BYTES = 16 * 1024  # of its answer


@dataclass(frozen=True, slots=True)
class ShownProxy:
    proxy: Proxy
    live: ProxyView


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be changed of a proxy. A field that is not in `given` stays as it is."""

    given: frozenset[str]
    name: str = ""
    url: Secret | None = None
    clearance: Secret | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class ExitTrial:
    """What a request through the proxy showed. `reason` says why there is no `exit_address`."""

    exit_address: str | None
    reason: str
    ms: int
    changed: bool = False
    clearance_dropped: bool = False


class Proxies:
    """`sealing` is held from the sealing of a secret to its commit, so that no rotation of the master key comes
    between; and from the look for a twin to the commit, so that there are none."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        pool: Pool,
        dispatcher: Dispatcher,
        transport: Transport,
        sealing: asyncio.Lock,
        exit_check_url: str,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._pool = pool
        self._rests = Rests(database, pool, dispatcher, clock)
        self._transport = transport
        self._sealing = sealing
        self._exit_check_url = exit_check_url
        self._clock = clock
        self._entropy = entropy

    async def add(self, actor: str, edit: Edit) -> ShownProxy:
        """Add a proxy; from the first on, no traffic goes direct. Raises `InvalidParameter`, `Conflict` for a twin."""
        address = parsed(edit.url)
        now = self._clock()
        proxy_id = make_id("prx_", now, self._entropy(16))
        proxy = Proxy(
            id=proxy_id,
            name=edit.name or f"{address.host}:{address.port}",
            url=address.masked(),
            has_clearance=edit.clearance is not None,
            user_agent=edit.user_agent,
            created_at=now,
        )
        act = Act(now, actor, "proxy.add", proxy_id, {"name": proxy.name, "url": proxy.url})
        async with self._sealing:
            await self._require_new(proxy_id, address)
            stored = proxies.Stored(proxy, self._sealed_url(proxy_id, edit), self._sealed_clearance(proxy_id, edit))
            await self._database.write(_CREATE, proxies.NewProxy(stored, act))
        return await self.show(proxy_id)

    async def page(self, after: str | None, limit: int) -> list[ShownProxy]:
        page = await self._database.read(proxies.page, after, limit)
        await self._catalog.follow()  # what the page has, the pool has
        return [self._shown(stored.proxy) for stored in page]

    async def show(self, proxy_id: str) -> ShownProxy:
        """Raises `NotFound`."""
        proxy = await self._find(proxy_id)
        await self._catalog.follow()
        return self._shown(proxy)

    async def update(self, actor: str, proxy_id: str, edit: Edit) -> ShownProxy:
        """Change a proxy. All but a name ends its rests; at another address the old clearance is worth nothing.

        Raises `NotFound`, `InvalidParameter`, `Conflict` for a twin.
        """
        proxy = await self._find(proxy_id)
        columns: dict[str, Any] = {"name": edit.name} if "name" in edit.given else {}
        if "user_agent" in edit.given:
            columns["user_agent"] = edit.user_agent
        if "url" in edit.given:
            columns["url"] = parsed(edit.url).masked()
            if columns["url"] != proxy.url:
                columns |= {"exit_address": None, "sealed_clearance": None}
        async with self._sealing:
            if "url" in edit.given:
                await self._require_new(proxy_id, parsed(edit.url))
                columns["sealed_url"] = self._sealed_url(proxy_id, edit)
            if "clearance" in edit.given:
                columns["sealed_clearance"] = self._sealed_clearance(proxy_id, edit)
            details = {name: columns.get(name, "new") for name in sorted(edit.given)}
            await self._write(actor, "proxy.update", proxy_id, columns, details)
        if edit.given != {"name"}:
            await self.clear(actor, proxy_id)
        return await self.show(proxy_id)

    async def enable(self, actor: str, proxy_id: str) -> ShownProxy:
        """Raises `NotFound`."""
        await self._find(proxy_id)
        await self._write(actor, "proxy.enable", proxy_id, {"enabled": True}, {})
        return await self.show(proxy_id)

    async def disable(self, actor: str, proxy_id: str) -> ShownProxy:
        """Let nothing new through a proxy. Raises `NotFound`."""
        await self._find(proxy_id)
        await self._write(actor, "proxy.disable", proxy_id, {"enabled": False}, {})
        return await self.show(proxy_id)

    async def clear(self, actor: str, proxy_id: str) -> ShownProxy:
        """End the rests of a proxy. Raises `NotFound`."""
        rows = [row for row in (await self.show(proxy_id)).live.cooldowns if row.subject.kind in OWN]
        await self._rests.clear(actor, "proxy.clear", proxy_id, rows)
        return await self.show(proxy_id)

    async def remove(self, actor: str, proxy_id: str, force: bool) -> None:
        """Take a proxy out; its secrets are not kept.

        Raises `NotFound`; unless forced, `Conflict` for the last one and for one that tokens are pinned to.
        """
        proxy = await self._find(proxy_id)
        pinned = await self._database.read(tokens.pinned_to, proxy_id)
        if pinned and not force:
            raise Conflict(
                f"{len(pinned)} tokens are pinned to it, {pinned[0]} first: pin them elsewhere, or force it."
            )
        if len(await self._database.read(proxies.page, None, 2)) == 1 and not force:
            raise Conflict("It is the last proxy: without one, traffic goes direct. Force it if that is wanted.")
        await self.clear(actor, proxy_id)
        act = Act(self._clock(), actor, "proxy.remove", proxy_id, {"name": proxy.name, "unpinned": len(pinned)})
        async with self._sealing:
            nothing = self._catalog.sealer.seal("", proxies.url_place(proxy_id))
            columns = {"removed_at": act.at, "enabled": False, "sealed_url": nothing, "sealed_clearance": None}
            await self._database.write(_REMOVE, proxies.ProxyUpdate(proxy_id, columns, act))
        await self._catalog.follow()

    async def test(self, actor: str, proxy_id: str) -> ExitTrial:
        """Ask, through the proxy, by which address the world sees it.

        The address is kept. When it is another than the last time, the clearance, which is bound to an address, is
        dropped. Raises `NotFound`.
        """
        proxy = (await self.show(proxy_id)).proxy
        trial = await self._look(proxy_id)
        if trial.exit_address is None or trial.exit_address == proxy.exit_address:
            return trial
        drop = proxy.exit_address is not None and proxy.has_clearance
        columns: dict[str, Any] = {"exit_address": trial.exit_address} | ({"sealed_clearance": None} if drop else {})
        details = {"exit_address": trial.exit_address, "clearance_dropped": drop}
        await self._write(actor, "proxy.learn", proxy_id, columns, details)
        return replace(trial, changed=proxy.exit_address is not None, clearance_dropped=drop)

    async def _look(self, proxy_id: str) -> ExitTrial:
        time = asyncio.get_running_loop().time
        began = time()
        address = None
        try:
            answer = await self._transport.exchange(
                "GET", self._exit_check_url, proxy_id=proxy_id, timeout=CHECK_TIMEOUT, max_bytes=CHECK_BYTES
            )
            address = exit_address(answer)
            reason = "" if address else f"the exit check answered {answer.status}, and no address"
        except UpstreamFailed as failure:
            reason = f"{failure.signal.trouble or failure.signal.phase}: {failure.signal.detail}"
        return ExitTrial(address, reason, round((time() - began) * 1000))

    async def _find(self, proxy_id: str) -> Proxy:
        proxy = await self._database.read(proxies.find, proxy_id)
        if proxy is None:
            raise NotFound
        return proxy

    def _shown(self, proxy: Proxy) -> ShownProxy:
        return ShownProxy(proxy, self._pool.proxy_view(proxy.id, self._clock()))

    async def _write(
        self, actor: str, action: str, proxy_id: str, columns: dict[str, Any], details: dict[str, Any]
    ) -> None:
        act = Act(self._clock(), actor, action, proxy_id, details)
        await self._database.write(_CHANGE, proxies.ProxyUpdate(proxy_id, columns, act))
        await self._catalog.follow()

    async def _require_new(self, proxy_id: str, address: Address) -> None:
        """Raises `Conflict` when another proxy is this one. They are few, and only their sealed URLs tell."""
        for stored in await self._database.read(proxies.load):
            other = stored.proxy
            if other.removed or other.id == proxy_id:
                continue
            url = self._catalog.sealer.open(stored.sealed_url, proxies.url_place(other.id))
            if parse(url.reveal()) == address:
                raise Conflict(f"The proxy {other.id} is the same.")

    def _sealed_url(self, proxy_id: str, edit: Edit) -> bytes:
        url = "" if edit.url is None else edit.url.reveal()
        return self._catalog.sealer.seal(url, proxies.url_place(proxy_id))

    def _sealed_clearance(self, proxy_id: str, edit: Edit) -> bytes | None:
        if edit.clearance is None:
            return None
        return self._catalog.sealer.seal(edit.clearance.reveal(), proxies.clearance_place(proxy_id))


def exit_address(answer: Answer) -> str | None:
    """Return the address in an exit check's answer: Cloudflare's trace (`ip=…` in a line), or the bare address."""
    text = answer.body.decode("utf-8", "replace")
    lines = [line.removeprefix("ip=") for line in text.splitlines() if line.startswith("ip=")]
    try:
        return str(ip_address((lines[0] if lines else text).strip())) if answer.status == 200 else None
    except ValueError:
        return None


def parsed(url: Secret | None) -> Address:
    try:
        return parse("" if url is None else url.reveal())
    except InvalidProxy as wrong:
        raise InvalidParameter("url", str(wrong)) from None


_CREATE = each(proxies.create)
_CHANGE = each(proxies.change)
_REMOVE = each(proxies.remove)
