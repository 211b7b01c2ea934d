"""The ways out: the proxies, or the direct way where there are none."""

import math
from collections.abc import Collection

from proxy.domain.cooldowns import DIRECT, SubjectKind
from proxy.domain.proxies import Proxy
from proxy.state.rests import Rests, Rows, until

WHOLE = (SubjectKind.PROXY, "")


class Way:
    """One way out. `key` is the proxy's id, or `DIRECT`."""

    __slots__ = ("enabled", "id", "key", "load", "rests")

    def __init__(self, proxy_id: str | None, rests: Rows) -> None:
        self.id = proxy_id
        self.key = DIRECT if proxy_id is None else proxy_id
        self.enabled = True
        self.load = 0  # tokens that keep to it
        self.rests = rests

    def free_at(self, host: str) -> float:
        """Return the moment from which `host` may be reached through it; infinity while it is disabled."""
        if not self.enabled:
            return math.inf
        return until(self.rests, WHOLE, (SubjectKind.PROXY_HOST, host)) if self.rests else 0.0


class Proxies:
    """With any proxy registered, even a disabled one, no traffic goes direct."""

    def __init__(self, rests: Rests) -> None:
        self._rests = rests
        self._ways: dict[str, Way] = {}
        self._direct = Way(None, rests.of(SubjectKind.PROXY, DIRECT))
        self._enabled: frozenset[str] = frozenset()

    @property
    def enabled(self) -> frozenset[str]:
        return self._enabled

    def put(self, proxy: Proxy) -> None:
        way = self._ways.get(proxy.id)
        if way is None:
            way = self._ways[proxy.id] = Way(proxy.id, self._rests.of(SubjectKind.PROXY, proxy.id))
        way.enabled = proxy.enabled
        self._changed()

    def drop(self, proxy_id: str) -> None:
        way = self._ways.pop(proxy_id, None)
        if way is not None:
            way.enabled = False
            self._rests.forget(SubjectKind.PROXY, proxy_id)
            self._changed()

    def get(self, proxy_id: str | None) -> Way | None:
        return self._direct if proxy_id is None else self._ways.get(proxy_id)

    def choose(self, host: str, now: float, excluded: Collection[str | None] = ()) -> Way | None:
        """Return the least loaded way to `host` that is free now. A scan: proxies are few, and tokens keep theirs."""
        free = [way for way in self._all() if way.id not in excluded and way.free_at(host) <= now]
        return min(free, key=lambda way: way.load, default=None)

    def last_resort(self) -> Way:
        """Return the least loaded way, free or not: for work that runs already and must leave by some way."""
        return min(self._all(), key=lambda way: (not way.enabled, way.load))

    def next_free(self, host: str, excluded: Collection[str | None] = ()) -> float:
        """Return the moment from which some way to `host` is free; infinity if none ever is by itself."""
        return min((way.free_at(host) for way in self._all() if way.id not in excluded), default=math.inf)

    def _all(self) -> Collection[Way]:
        return self._ways.values() or (self._direct,)

    def _changed(self) -> None:
        self._direct.enabled = not self._ways
        self._enabled = frozenset(way.key for way in self._ways.values() if way.enabled)
