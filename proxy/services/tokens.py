"""The operator's side of the tokens: put into the pool, looked at, changed, rested from, taken out."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.errors import Conflict, InvalidParameter, NotFound, Unavailable
from proxy.domain.ids import make_id
from proxy.domain.outcomes import Outcome, Step, UpstreamFailed
from proxy.domain.secret import Secret
from proxy.domain.tokens import Token, TokenState
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.rests import Rests
from proxy.services.settlement import Settlements
from proxy.state.leases import Lease, NotNow, TokenView
from proxy.state.pool import Pool
from proxy.storage import attempts, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.seal import Pepper
from proxy.storage.writer import each
from proxy.upstream.driver import Access, Driver

SANDBOX = "sandbox"
OPERATOR = "operator"  # the cause of what an operator disabled
OWN = frozenset({SubjectKind.TOKEN, SubjectKind.TOKEN_MODEL, SubjectKind.PAIR})
TEAMS = frozenset({SubjectKind.TEAM, SubjectKind.TEAM_MODEL})


@dataclass(frozen=True, slots=True)
class ShownToken:
    token: Token
    live: TokenView


@dataclass(frozen=True, slots=True)
class Trial:
    """What a free look at a credential showed."""

    outcome: Outcome
    reason: str
    evidence: str
    team: str | None
    proxy_id: str | None
    ms: int


class Tokens:
    """`concurrency` is that of a token which is added without one, by driver. In the sandbox no real token is let in.

    `sealing` is held from the sealing of a secret to its commit, so that no rotation of the master key comes between.
    """

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        pool: Pool,
        dispatcher: Dispatcher,
        settlements: Settlements,
        drivers: Mapping[str, Driver],
        pepper: Pepper,
        sealing: asyncio.Lock,
        concurrency: Mapping[str, int],
        sandbox: bool,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._pool = pool
        self._rests = Rests(database, pool, dispatcher, clock)
        self._settlements = settlements
        self._drivers = drivers
        self._pepper = pepper
        self._sealing = sealing
        self._concurrency = concurrency
        self._sandbox = sandbox
        self._clock = clock
        self._entropy = entropy

    async def add(self, actor: str, driver: str, secret: Secret, values: Mapping[str, Any]) -> ShownToken:
        """Put a credential into the pool. `values` are fields of `Token`; `proxy_id` may be a proxy's name.

        Raises `InvalidParameter`; `Conflict` where another token has this secret, and for a real token in the sandbox.
        """
        self._require_driver(driver)
        now = self._clock()
        token_id = make_id("tok_", now, self._entropy(16))
        own: dict[str, Any] = {
            "name": f"{driver} {token_id[-6:]}",
            "concurrency": self._concurrency.get(driver, 1),
            "created_at": now,
        }
        token = replace(Token(token_id, "", driver), **own | self._resolved(values))
        act = Act(now, actor, "token.add", token_id, {"driver": driver, "name": token.name})
        async with self._sealing:
            sealed = self._catalog.sealer.seal(secret.reveal(), tokens.place(token_id))
            await self._database.write(_ADD, tokens.NewToken(token, sealed, self._hash(secret), act))
        await self._catalog.follow()
        return self._shown(token)

    async def page(self, after: str | None, limit: int) -> list[ShownToken]:
        page = await self._database.read(tokens.page, after, limit)
        await self._catalog.follow()  # what the page has, the pool has
        return [self._shown(token) for token in page]

    async def show(self, token_id: str) -> ShownToken:
        """Raises `NotFound`."""
        token = await self._find(token_id)
        await self._catalog.follow()
        return self._shown(token)

    async def update(self, actor: str, token_id: str, secret: Secret | None, values: Mapping[str, Any]) -> ShownToken:
        """Change fields of a token, and its secret: the rests of the old one are over with it.

        Raises `NotFound`, `InvalidParameter`, `Conflict` where another token has this secret.
        """
        await self._find(token_id)
        changed = self._resolved(values)
        details = dict(changed) if secret is None else dict(changed) | {"secret": "new"}
        async with self._sealing:
            columns = tokens.columns(changed)
            if secret is not None:
                sealed = self._catalog.sealer.seal(secret.reveal(), tokens.place(token_id))
                columns |= {"sealed_secret": sealed, "secret_hash": self._hash(secret)}
            await self._write(actor, "token.update", token_id, columns, details)
        if secret is not None:
            await self._clear(actor, token_id, OWN)
        return await self.show(token_id)

    async def enable(self, actor: str, token_id: str) -> ShownToken:
        """Let a token take work. Raises `NotFound`, `Conflict` for a real token in the sandbox."""
        self._require_driver((await self._find(token_id)).driver)
        columns = {"state": TokenState.ENABLED, "disabled_cause": None}
        await self._write(actor, "token.enable", token_id, columns, {})
        return await self.show(token_id)

    async def disable(self, actor: str, token_id: str) -> ShownToken:
        """Give a token no more work; what it has it finishes. Raises `NotFound`."""
        await self._find(token_id)
        columns = {"state": TokenState.DISABLED, "disabled_cause": OPERATOR}
        await self._write(actor, "token.disable", token_id, columns, {})
        return await self.show(token_id)

    async def clear(self, actor: str, token_id: str) -> ShownToken:
        """End the rests of a token and of its team. Raises `NotFound`."""
        await self._find(token_id)
        await self._clear(actor, token_id, OWN | TEAMS)
        return await self.show(token_id)

    async def remove(self, actor: str, token_id: str, force: bool) -> None:
        """Take a token out of the pool. Its row stays for the attempts that name it.

        Raises `NotFound`; `Conflict` while the upstream works for it, unless forced; its jobs end as usual then, too.
        """
        token = await self._find(token_id)
        jobs = await self._database.read(attempts.under_way, token_id)
        if jobs and not force:
            raise Conflict(f"The upstream is at work on {jobs} of its jobs: drain it and wait, or force it.")
        await self._clear(actor, token_id, OWN)
        in_flight = self._shown(token).live.in_flight
        async with self._sealing:
            columns: dict[str, Any] = {"state": TokenState.REMOVED}
            if not jobs and not in_flight and token.state is TokenState.DISABLED:  # nothing needs its secret any more
                columns["sealed_secret"] = self._catalog.sealer.seal("", tokens.place(token_id))
            await self._write(actor, "token.remove", token_id, columns, {"name": token.name, "jobs": jobs})

    async def test(self, actor: str, token_id: str) -> Trial:
        """Look at the credential by a call that costs nothing. Nobody is blamed for what it shows; the team is learnt.

        Raises `NotFound`, `Unavailable` when there is no way to the upstream now.
        """
        token = (await self.show(token_id)).token
        driver = self._drivers.get(token.driver)
        way = self._pool.look(token_id, self._clock())
        if driver is None or isinstance(way, NotNow):
            raise Unavailable(f"The driver {token.driver} is off." if driver is None else "Every way out rests now.")
        trial = await self._look(driver, token, way)
        if trial.team is not None and trial.team != token.team:
            await self._write(actor, "token.learn", token_id, {"team": trial.team}, {"team": trial.team})
        return trial

    async def _look(self, driver: Driver, token: Token, way: Lease) -> Trial:
        time = asyncio.get_running_loop().time
        began = time()
        access = Access(token.id, self._catalog.secret_of(token.id), token.base_url, way.proxy_id)
        trial = Trial(Outcome.OK, "", "", None, way.proxy_id, 0)
        try:
            seen = await driver.verify(access)
            trial = replace(trial, team=seen.team, reason=seen.detail)
            if seen.blocked:
                trial = replace(trial, outcome=Outcome.FORBIDDEN, reason=f"blocked: {seen.detail}")
        except UpstreamFailed as failure:
            verdict = self._settlements.classify(failure.signal, Step.VERIFY)
            evidence = verdict.evidence or failure.signal.detail
            trial = replace(trial, outcome=verdict.outcome, reason=verdict.reason, evidence=evidence)
        return replace(trial, ms=round((time() - began) * 1000))

    async def _find(self, token_id: str) -> Token:
        token = await self._database.read(tokens.find, token_id)
        if token is None:
            raise NotFound
        return token

    def _shown(self, token: Token) -> ShownToken:
        return ShownToken(token, self._pool.token_view(token.id, self._clock()))

    async def _write(
        self, actor: str, action: str, token_id: str, columns: dict[str, Any], details: dict[str, Any]
    ) -> None:
        act = Act(self._clock(), actor, action, token_id, details)
        await self._database.write(_ALTER, tokens.TokenUpdate(token_id, columns, act))
        await self._catalog.follow()

    async def _clear(self, actor: str, token_id: str, kinds: frozenset[SubjectKind]) -> None:
        await self._catalog.follow()
        view = self._pool.token_view(token_id, self._clock())
        rows = [row for row in view.cooldowns if row.subject.kind in kinds]
        await self._rests.clear(actor, "token.clear", token_id, rows)

    def _hash(self, secret: Secret) -> bytes:
        return self._pepper.hash("token", secret.reveal())

    def _require_driver(self, driver: str) -> None:
        if self._sandbox and driver != SANDBOX:
            raise Conflict("The gateway runs with --sandbox: a real token does not go beside the stand-in.")
        if driver not in self._drivers:
            raise InvalidParameter("driver", f"must be one of {', '.join(sorted(self._drivers))}")

    def _resolved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with the proxy by its id."""
        reference = values.get("proxy_id")
        if reference is None:
            return dict(values)
        found = [proxy.id for proxy in self._catalog.proxies.values() if reference in (proxy.id, proxy.name)]
        if len(found) != 1:
            raise InvalidParameter("proxy", "is the name of several: use its id" if found else "is not known")
        return dict(values) | {"proxy_id": found[0]}


_ADD = each(tokens.add)
_ALTER = each(tokens.alter)
