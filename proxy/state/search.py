"""The pick of one token, and the way it leaves by."""

import math

from proxy.domain.cooldowns import SubjectKind
from proxy.state.index import Entry, Index, Slot
from proxy.state.leases import Want
from proxy.state.proxies import Proxies, Way
from proxy.state.rests import until

CORRECTIONS = 16  # filed scores that one pick may put right
ASIDE = 256  # excluded tokens that one pick may pass over
ASIDE_PAUSE = 1.0  # seconds until the next pick, when it passed over so many


def find_way(slot: Slot, proxies: Proxies, now: float) -> float:
    """See to it that the token keeps to a usable way; return the moment from which that is free.

    A pinned token waits for its proxy. Another keeps its own, and moves only when that rests or is gone.
    """
    pin, way = slot.token.proxy_id, slot.way
    if pin is not None:
        if way is None or way.id != pin or not way.enabled:
            slot.keep_to(proxies.get(pin))
        return slot.way.free_at(slot.host) if slot.way else math.inf
    if way is not None and way.enabled and (not way.rests or way.free_at(slot.host) <= now):
        return 0.0
    free = proxies.choose(slot.host, now)
    if free is None:
        return proxies.next_free(slot.host)
    slot.keep_to(free)
    return 0.0


def find_detour(slot: Slot, proxies: Proxies, want: Want, now: float) -> Way | float:
    """Return another way for one lease, since the token's own is excluded; or the moment from which there is one.

    A pinned token takes no other way.
    """
    if slot.token.proxy_id is not None:
        return math.inf
    way = proxies.choose(slot.host, now, want.excluded_proxies)
    if way is None:
        return proxies.next_free(slot.host, want.excluded_proxies)
    free_at = until(slot.rests, (SubjectKind.PAIR, way.key))
    return way if free_at <= now else free_at


class Search:
    """One look through the indexes for the lowest score not above `now`.

    `best` is the token found; `detour` one that serves by another way than its own, the second choice.
    With neither, `until` is when to ask again, None if no token was passed that could ever serve.
    """

    __slots__ = ("_aside", "_budget", "_now", "_proxies", "_waiting", "best", "detour", "until", "want")

    def __init__(self, want: Want, now: float, proxies: Proxies, waiting: set[Slot]) -> None:
        self.best: tuple[Slot, Index] | None = None
        self.detour: tuple[Slot, Index, Way] | None = None
        self.until: float | None = None
        self.want, self._now, self._proxies, self._waiting = want, now, proxies, waiting
        self._budget = CORRECTIONS
        self._aside = ASIDE

    def through(self, index: Index, below: float = math.inf) -> float:
        """Look for a token with a score lower than `below`; return its score, or `below`."""
        passed: list[Entry] = []
        while (entry := index.first()) is not None and (self.best is None or entry[0] < below):
            if self._is_excluded(entry[2]):
                passed.append(index.pop())
            elif self._must_stop(entry):
                break
            elif not self._is_exact(entry, index):
                self._budget -= 1
            elif self._is_detour(entry[2], index):
                passed.append(index.pop())
            else:
                self.best = entry[2], index
                below = entry[0]
            if len(passed) > self._aside:
                self._ask_again(self._now + ASIDE_PAUSE)
                break
        self._aside -= len(passed)
        for entry in passed:
            index.push(entry)
        return below

    def _is_excluded(self, slot: Slot) -> bool:
        want = self.want
        return slot.token.id in want.excluded_tokens or slot.token.team in want.excluded_teams

    def _must_stop(self, entry: Entry) -> bool:
        if entry[0] <= self._now and self._budget > 0:
            return False
        self._ask_again(max(entry[0], self._now))
        return True

    def _is_exact(self, entry: Entry, index: Index) -> bool:
        """Put the entry right if its token is full or rests longer than filed."""
        score, _, slot = entry
        if slot.is_full:
            index.pop()
            index.strike(slot)
            return False
        free_at = find_way(slot, self._proxies, self._now)
        if free_at > self._now:
            self._waiting.add(slot)
        moment = max(free_at, slot.rested_at(index.model))
        if moment <= score:
            return True
        index.pop()
        index.file(slot, moment)
        return False

    def _is_detour(self, slot: Slot, index: Index) -> bool:
        """Tell whether the token's own way is excluded, and remember another way for the first such token."""
        if slot.way is None or slot.way.id not in self.want.excluded_proxies:
            return False
        if self.detour is None:
            found = find_detour(slot, self._proxies, self.want, self._now)
            if isinstance(found, Way):
                self.detour = slot, index, found
            elif found < math.inf:
                self._ask_again(found)
        return True

    def _ask_again(self, moment: float) -> None:
        self.until = moment if self.until is None else min(self.until, moment)
