"""One page on the gateway: what runs, what rests and why, what is wrong."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from proxy.domain.cooldowns import Cooldown
from proxy.domain.errors import StorageFull
from proxy.domain.jobs import UNFINISHED
from proxy.domain.orders import Model
from proxy.domain.tokens import Token
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.problems import Census, Figures, Outlook, Problem, count, problems
from proxy.state.leases import Status as Doing
from proxy.state.leases import Want
from proxy.state.pool import Pool
from proxy.storage import attempts, jobs, keys
from proxy.storage.database import Database
from proxy.storage.media import MediaStore
from proxy.upstream.driver import Driver

HOUR, DAY = 3600.0, 86_400.0  # seconds
AT_A_TIME = 500  # tokens looked at before the others get their turn


@dataclass(frozen=True, slots=True)
class Running:
    """What this process is. `draining` tells whether it is about to stop."""

    version: str
    started_at: float
    sandbox: bool
    draining: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Page:
    running: Running
    figures: Figures
    unfinished: Mapping[str, int]  # jobs, by state
    waiting: int  # jobs that wait for a slot
    problems: list[Problem]


class Status:
    """`models` are by the client's name."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        pool: Pool,
        dispatcher: Dispatcher,
        media: MediaStore,
        drivers: Mapping[str, Driver],
        models: Mapping[str, Model],
        running: Running,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._pool = pool
        self._dispatcher = dispatcher
        self._media = media
        self._drivers = drivers
        self._models = models
        self._running = running
        self._clock = clock

    async def page(self) -> Page:
        await self._catalog.follow()
        now = self._clock()
        tally = await self._database.read(jobs.counts, now - HOUR)
        tokens, disabled = await self._tokens(now)
        figures = Figures(
            now=now,
            sandbox=self._running.sandbox,
            draining=self._running.draining(),
            disk_full=self._is_disk_full(),
            active_keys=await self._database.read(keys.count_valid, now),
            tokens=tokens,
            proxies=self._proxies(now),
            outlooks=self._outlooks(),
            disabled=disabled,
            cooldowns=sorted(self._resting(now), key=lambda row: row.until),
            pauses=self._catalog.pauses,
            oldest_queued_at=await self._database.read(jobs.oldest_queued_at),
            ended={state: number for state, number in tally.items() if state not in UNFINISHED},
            lost=await self._database.read(attempts.lost_since, now - DAY),
        )
        unfinished = {str(state): tally.get(state, 0) for state in UNFINISHED}
        return Page(self._running, figures, unfinished, self._dispatcher.waiting, problems(figures))

    async def _tokens(self, now: float) -> tuple[Census, list[Token]]:
        """Count the tokens, a few at a time; return the disabled ones, too."""
        seen: list[tuple[str, int, int]] = []
        disabled: list[Token] = []
        for number, token in enumerate(self._catalog.tokens(), 1):
            view = self._pool.token_view(token.id, now)
            seen.append((view.status, token.concurrency, view.in_flight))
            if view.status is Doing.DISABLED:
                disabled.append(token)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return count(seen), disabled

    def _proxies(self, now: float) -> Census:
        return count((self._pool.proxy_view(proxy_id, now).status, 0, 0) for proxy_id in self._catalog.proxies)

    def _resting(self, now: float) -> Iterable[Cooldown]:
        return (row for row in self._pool.cooldowns(now) if row.until > now)

    def _outlooks(self) -> list[Outlook]:
        """Return for each of the upstream's models whether and when it may be served."""
        names: dict[str, list[str]] = {}
        for name, model in self._models.items():
            names.setdefault(model.upstream, []).append(name)
        return [self._outlook(self._models[each[0]], tuple(each)) for each in names.values()]

    def _outlook(self, model: Model, names: tuple[str, ...]) -> Outlook:
        drivers = tuple(name for name, driver in self._drivers.items() if model.kind in driver.kinds)
        paused = {(pause.kind, pause.id) for pause in self._catalog.pauses}
        whole = {("all", ""), ("model", model.upstream)} & paused
        each = bool(drivers) and all(("driver", name) in paused for name in drivers)
        wait = self._dispatcher.outlook(Want(drivers=drivers, model=model.upstream))
        return Outlook(model.upstream, names, wait, paused=bool(whole) or each)

    def _is_disk_full(self) -> bool:
        try:
            self._media.require_room()
        except StorageFull:
            return True
        return False
