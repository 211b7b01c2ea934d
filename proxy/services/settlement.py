"""What follows from an exchange with the upstream: who rests, what is kept of it, who is looked at again."""

from collections.abc import Callable, Mapping

import structlog

from proxy.domain.classify import classify
from proxy.domain.cooldowns import Policy
from proxy.domain.errors import StorageBusy, StorageFull
from proxy.domain.outcomes import Signal, Step, UpstreamFailed, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.tokens import TokenState
from proxy.services.catalog import Catalog
from proxy.services.metrics import Metrics
from proxy.services.tasks import Tasks
from proxy.state.leases import Lease, NotNow, Settlement
from proxy.state.pool import Pool
from proxy.storage import cooldowns, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each
from proxy.upstream.driver import Access, Driver

log = structlog.get_logger(__name__)

ACTOR = "gateway"
LOOKS = 3  # at a token whose credential was refused


class Settlements:
    def __init__(
        self,
        *,
        database: Database,
        pool: Pool,
        catalog: Catalog,
        drivers: Mapping[str, Driver],
        policy: Policy,
        metrics: Metrics,
        clock: Callable[[], float],
        tasks: Tasks,
    ) -> None:
        self._database = database
        self._pool = pool
        self._catalog = catalog
        self._drivers = drivers
        self.policy = policy
        self._metrics = metrics
        self._clock = clock
        self._tasks = tasks

    def classify(self, signal: Signal, step: Step) -> Verdict:
        return classify(signal, step, self._clock(), self.policy)

    async def settle(self, lease: Lease, verdict: Verdict | None, exchange: Exchange) -> Settlement:
        """Let the pool draw its conclusions from one exchange (None: it went well) and keep them."""
        settlement = self._pool.settle(lease, verdict, exchange, self._clock())
        if verdict is not None:
            self._metrics.exchange_failed(exchange.step, verdict.outcome)
            log.info(
                "exchange_failed",
                job=exchange.work_id,
                attempt=exchange.attempt_id,
                step=exchange.step,
                token=lease.token_id,
                proxy=lease.proxy_id,
                outcome=verdict.outcome,
                blame=settlement.blame,
                reason=settlement.reason,
                evidence=verdict.evidence,
            )
        await self._keep(lease.token_id, settlement)
        if settlement.verify:
            self._tasks.start(self.verify(lease.token_id), f"verify {lease.token_id}")
        return settlement

    async def verify(self, token_id: str) -> Verdict | None:
        """Look at a token's credential by a call that costs nothing, by another proxy where there is one, until the
        pool has seen enough; return the last verdict, None where the credential is good."""
        verdict = None
        for _ in range(LOOKS):
            way = self._pool.look(token_id, self._clock())
            if isinstance(way, NotNow):
                break
            verdict = await self._look(way)
            settlement = self._pool.confirm(way, verdict, self._clock())
            await self._keep(token_id, settlement)
            if not settlement.verify:
                break
        return verdict

    async def _look(self, way: Lease) -> Verdict | None:
        token = self._catalog.token(way.token_id)
        base_url = None if token is None else token.base_url
        access = Access(way.token_id, self._catalog.secret_of(way.token_id), base_url, way.proxy_id)
        try:
            await self._drivers[way.driver].verify(access)
        except UpstreamFailed as failure:
            return self.classify(failure.signal, Step.VERIFY)
        return None

    async def _keep(self, token_id: str, settlement: Settlement) -> None:
        """Write down what the pool knows already. A disk that takes nothing now costs no job its life."""
        try:
            if settlement.cooldowns:
                await self._database.write(cooldowns.put, settlement.cooldowns)
            if settlement.disable is not None:
                await self._disable(token_id, settlement.disable)
        except (StorageFull, StorageBusy) as refused:
            log.warning("settlement_not_kept", token=token_id, cause=refused.code)

    async def _disable(self, token_id: str, cause: str) -> None:
        """Take a token out of the pool on a confirmed fact."""
        log.error("token_disabled", token=token_id, cause=cause)
        values = {"state": TokenState.DISABLED, "disabled_cause": cause}
        act = Act(self._clock(), ACTOR, "token.disable", token_id, {"cause": cause})
        await self._database.write(_CHANGE_TOKEN, tokens.TokenUpdate(token_id, values, act))
        await self._catalog.follow()


_CHANGE_TOKEN = each(tokens.change)
