"""Who gets the next token slot: those that wait, in the order of the queue."""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from proxy.state.leases import Lease, Want
from proxy.state.pool import Pool
from proxy.storage.pauses import Pause

FULL = 1.0  # seconds: what is promised of a pool whose tokens are all at work
LATER = 60.0  # seconds: the longest time between two looks at a pool that promises nothing


@dataclass(frozen=True, slots=True)
class Rank:
    """A place in the queue: a lower one is served first."""

    priority: int
    queue_tag: float


@dataclass(slots=True)
class Line:
    """Those who want the same, by rank."""

    want: Want
    waiting: list[tuple[int, float, int, asyncio.Future[Lease]]] = field(default_factory=list)

    def head(self) -> tuple[int, float, int] | None:
        """Drop those who left; return the rank of the first."""
        while self.waiting and self.waiting[0][-1].done():
            heapq.heappop(self.waiting)
        return self.waiting[0][:-1] if self.waiting else None


class NothingServes(Exception):
    """No enabled token serves what a retry may still use."""


class Dispatcher:
    def __init__(self, pool: Pool, clock: Callable[[], float], pauses: Callable[[], Iterable[Pause]]) -> None:
        self._pool = pool
        self._clock = clock
        self._pauses = pauses
        self._lines: dict[Want, Line] = {}
        self._arrivals = count()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0  # how many wait for a slot

    async def lease(self, want: Want, rank: Rank) -> Lease:
        """Wait for a slot of a token that serves `want`, and its proxy. The holder gives it back by `release`.

        Raises `NothingServes` for a retry (a want with exclusions) that no enabled token may take; an order that has
        not been tried waits for one to be enabled.
        """
        line = self._lines.setdefault(want, Line(want))
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        heapq.heappush(line.waiting, (rank.priority, rank.queue_tag, next(self._arrivals), future))
        self.match()
        self.waiting += 1
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())
            raise
        finally:
            self.waiting -= 1

    def release(self, lease: Lease) -> None:
        self._pool.release(lease, self._clock())
        self.match()

    def outlook(self, want: Want) -> float | None:
        """Return the seconds until a slot may be free (0: there is one); None when nothing enabled serves `want`."""
        now = self._clock()
        found = self._pool.outlook(want, now)
        if found is None or found == math.inf:
            return found if found is None else FULL
        return max(0.0, found - now)

    def match(self) -> None:
        """Give slots to those who wait, the first in rank first, until the pool has none for them now."""
        wake = math.inf
        heads = [(head, line) for line in self._lines.values() if (head := line.head())]
        heapq.heapify(heads)
        while heads:
            _, line = heapq.heappop(heads)
            if (until := self._serve(line)) is not None:
                wake = min(wake, until)
            elif head := line.head():
                heapq.heappush(heads, (head, line))
        self._lines = {want: line for want, line in self._lines.items() if line.waiting}
        self._wake_at(wake)

    def _serve(self, line: Line) -> float | None:
        """Serve the first of a line; return None, or where the line must wait when to look again."""
        want = self._allowed(line.want)
        if want is None:
            return math.inf  # paused: the change that lifts it calls `match`
        found = self._pool.lease(want, self._clock())
        if isinstance(found, Lease):
            heapq.heappop(line.waiting)[-1].set_result(found)
            return None
        if found.until is not None:
            return found.until
        if want.excluded_tokens or want.excluded_teams or want.excluded_proxies:
            heapq.heappop(line.waiting)[-1].set_exception(NothingServes())
            return None
        return math.inf

    def _allowed(self, want: Want) -> Want | None:
        """Return what of `want` the operator has not paused."""
        paused = {(pause.kind, pause.id) for pause in self._pauses()}
        if not paused:
            return want
        if ("all", "") in paused or ("model", want.model) in paused:
            return None
        drivers = tuple(driver for driver in want.drivers if ("driver", driver) not in paused)
        return replace(want, drivers=drivers) if drivers else None

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            delay = min(max(0.0, moment - self._clock()), LATER)
            self._timer = asyncio.get_running_loop().call_later(delay, self.match)
