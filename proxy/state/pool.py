"""The pool: which token works next, through which proxy, and who rests after a failure.

Purely in memory, synchronous, no clock: every method takes `now`. What must survive is handed back to be stored,
and put back after a restart by `restore` and `adopt`.
"""

import math
from collections.abc import Callable, Iterable

from proxy.domain.cooldowns import Cooldown, Policy, Subject, SubjectKind, is_spent
from proxy.domain.outcomes import Step, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.proxies import Proxy
from proxy.domain.tokens import Token
from proxy.state.index import Index, Slot
from proxy.state.judge import WENT_WELL, Judge
from proxy.state.leases import Lease, NotNow, ProxyView, Settlement, TokenView, Want
from proxy.state.proxies import Proxies, Way
from proxy.state.rests import Rests
from proxy.state.roster import Roster
from proxy.state.search import Search, find_detour, find_way
from proxy.state.views import view_proxy, view_token

LOOK = 0  # the number of a lease that takes no slot


class Pool:
    """`jitter` returns numbers in [0, 1)."""

    def __init__(self, policy: Policy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._rests = Rests(policy)
        self._proxies = Proxies(self._rests)
        self._tokens = Roster(self._rests)
        self._judge = Judge(policy, jitter, self._rests, self._proxies, self._tokens)
        self._waiting: set[Slot] = set()  # tokens filed for later because no way out was free
        self._leases: dict[int, Slot] = {}
        self._number = LOOK

    # What there is

    def put_token(self, token: Token, now: float) -> None:
        """Add a token, or take over its edited values. Disabled, it keeps what it has in flight and gets no more."""
        self._tokens.put(token, now)

    def drop_token(self, token_id: str) -> None:
        """Forget a token and its cooldowns. Leases on it end as usual."""
        self._tokens.drop(token_id)

    def put_proxy(self, proxy: Proxy, now: float) -> None:
        if proxy.removed:
            self.drop_proxy(proxy.id, now)
            return
        self._proxies.put(proxy)
        self._ways_changed()

    def drop_proxy(self, proxy_id: str, now: float) -> None:
        self._proxies.drop(proxy_id)
        self._judge.forget_proxy(proxy_id)
        self._ways_changed()

    def proxies(self) -> frozenset[str]:
        """Return the ids of the enabled proxies."""
        return self._proxies.enabled

    # Slots

    def lease(self, want: Want, now: float) -> Lease | NotNow:
        """Take a slot of the token that may be picked and is idle the longest."""
        named = want.token_id or want.preferred_token
        if named is not None:
            got = self._lease_named(named, want, now)
            if isinstance(got, Lease) or want.token_id is not None:
                return got
        search = self._search(want, now)
        if search.best is not None:
            slot, index = search.best
            why = f"idle longest, {now - slot.last_used:.1f} s"
            return self._take(slot, _id(slot.way), want.model, now, why=why, index=index)
        if search.detour is not None:
            slot, index, way = search.detour
            why = "by another proxy than its own, for this once"
            return self._take(slot, way.id, want.model, now, why=why, index=index)
        return NotNow(self._when(search))

    def outlook(self, want: Want, now: float) -> float | None:
        """Return when `lease` may have a slot, as `NotNow.until` says it; `now` if at once. Nothing is taken."""
        search = self._search(want, now)
        return self._when(search) if search.best is None and search.detour is None else now

    def adopt(self, token_id: str, proxy_id: str | None, model: str, now: float) -> Lease:
        """Take the slot of work that was running before a restart, be the token full or disabled.

        Raises `KeyError` for a token that was never put.
        """
        slot = self._known(token_id)
        return self._take(slot, self._way_on(slot, proxy_id, now), model, now, why="it has this work already")

    def move(
        self, lease: Lease, now: float, excluded: frozenset[str | None] = frozenset(), host: str | None = None
    ) -> Lease:
        """Return the lease with a free way to `host` (default: the token's upstream) for its polls and downloads.

        It is the same lease where its way is free, where nothing better is, or where the token is pinned.
        """
        slot = self._slot_of(lease)
        own = self._proxies.get(lease.proxy_id)
        if slot is None or slot.token.proxy_id is not None:
            return lease
        host = host or slot.host
        for way in (own, slot.way, self._proxies.choose(host, now, excluded)):
            if way is not None and way.id not in excluded and way.free_at(host) <= now:
                return lease._replace(proxy_id=way.id)
        if own is None or not own.enabled:
            return lease._replace(proxy_id=self._proxies.last_resort().id)
        return lease

    def release(self, lease: Lease, now: float) -> None:
        """Give the slot back. A second time does nothing."""
        slot = self._leases.pop(lease.number, None)
        if slot is None:
            return
        slot.in_flight -= 1
        slot.last_used = now
        if slot.is_full:
            return
        for index in slot.indexes:
            if slot not in index:
                index.file(slot, now)

    def look(self, token_id: str, now: float) -> Lease | NotNow:
        """Return the way for a free look at a credential: one its 401s have not come through, where there is one."""
        slot = self._tokens.get(token_id)
        if slot is None:
            return NotNow(None)
        way: Way | None = None
        if slot.token.proxy_id is None:
            way = self._proxies.choose(slot.host, now, slot.doubts) or self._proxies.choose(slot.host, now)
        free_at = 0.0 if way else find_way(slot, self._proxies, now)
        way = way or slot.way
        if way is None or free_at > now:
            return NotNow(free_at)
        return Lease(LOOK, token_id, slot.token.driver, way.id, "", slot.token.team, "to be verified", now)

    # Failures and successes

    def settle(self, lease: Lease, verdict: Verdict | None, exchange: Exchange, now: float) -> Settlement:
        """Draw the consequences of one exchange (`verdict` None: it went well). The slot stays taken."""
        slot = self._slot_of(lease)
        if slot is None:
            return WENT_WELL if verdict is None else Settlement(verdict.blame, verdict.reason)
        if verdict is None:
            return self._judge.credit(slot, lease, exchange, now)
        return self._judge.blame(slot, lease, verdict, exchange, now)

    def confirm(self, lease: Lease, verdict: Verdict | None, now: float) -> Settlement:
        """Settle a look at a credential."""
        exchange = Exchange(Step.VERIFY, work_id="", caller="", content="", began_at=lease.taken_at)
        return self.settle(lease, verdict, exchange, now)

    def rest(self, cooldown: Cooldown) -> None:
        """Take over a cooldown that somebody else decided: an operator, another process."""
        self._rests.put(cooldown)

    def restore(self, cooldowns: Iterable[Cooldown], now: float) -> None:
        """Take over the stored cooldowns that still mean something."""
        for row in cooldowns:
            if not is_spent(row, now, self._policy):
                self._rests.put(row)

    def clear(self, subject: Subject, now: float) -> None:
        """End one rest, its strikes forgotten; whoever depends on it may be picked at once."""
        if not self._rests.clear(subject):
            return
        match subject.kind:
            case SubjectKind.TEAM | SubjectKind.TEAM_MODEL:
                healed: Iterable[Slot] = self._tokens.team(subject.id)
            case SubjectKind.PROXY | SubjectKind.PROXY_HOST:
                self._ways_changed()
                return
            case _:
                healed = [slot for slot in [self._tokens.get(subject.id)] if slot]
        _score(healed)

    # What the operator sees

    def token_view(self, token_id: str, now: float) -> TokenView:
        """Raises `KeyError` for an unknown token."""
        return view_token(self._known(token_id), self._proxies, now, self._policy)

    def proxy_view(self, proxy_id: str, now: float) -> ProxyView:
        """Raises `KeyError` for an unknown proxy."""
        way = self._proxies.get(proxy_id)
        if way is None:
            raise KeyError(proxy_id)
        return view_proxy(way, now, self._policy)

    def cooldowns(self, now: float) -> list[Cooldown]:
        return self._rests.all(now)

    # The inside

    def _search(self, want: Want, now: float) -> Search:
        search = Search(want, now, self._proxies, self._waiting)
        below = math.inf
        for index in self._tokens.indexes(want.drivers, want.model):
            below = search.through(index, below)
        return search

    def _when(self, search: Search) -> float | None:
        """Return when to ask again after a search that found nothing."""
        want = search.want
        indexes = self._tokens.indexes(want.drivers, want.model)
        if search.until is None and any(index.has_full(want.excluded_tokens) for index in indexes):
            return math.inf
        return search.until

    def _lease_named(self, token_id: str, want: Want, now: float) -> Lease | NotNow:
        slot = self._tokens.get(token_id)
        if slot is None or not _may_serve(slot, want):
            return NotNow(None)
        if slot.is_full:
            return NotNow(math.inf)
        moment = max(find_way(slot, self._proxies, now), slot.rested_at(want.model))
        if moment > now:
            return NotNow(moment)
        way: Way | float | None = slot.way
        if slot.way is not None and slot.way.id in want.excluded_proxies:
            way = find_detour(slot, self._proxies, want, now)
        if isinstance(way, float):
            return NotNow(way if way < math.inf else None)
        return self._take(slot, _id(way), want.model, now, why="the same token as before")

    def _way_on(self, slot: Slot, proxy_id: str | None, now: float) -> str | None:
        """Return the way of work that runs already: the one it had, unless that is gone."""
        if slot.token.proxy_id is not None:
            return slot.token.proxy_id
        way = self._proxies.get(proxy_id)
        if way is None or not way.enabled:
            find_way(slot, self._proxies, now)
            way = slot.way if slot.way is not None and slot.way.enabled else self._proxies.last_resort()
        if slot.way is None:
            slot.keep_to(way)
        return way.id

    def _take(
        self, slot: Slot, proxy_id: str | None, model: str, now: float, *, why: str, index: Index | None = None
    ) -> Lease:
        slot.in_flight += 1
        slot.last_used = now
        if index is not None:
            if slot.is_full:
                index.strike(slot)
            else:
                index.file(slot, now)
        self._number = number = self._number + 1
        self._leases[number] = slot
        token = slot.token
        return Lease(number, token.id, token.driver, proxy_id, model, token.team, why, now)

    def _ways_changed(self) -> None:
        healed, self._waiting = self._waiting, set()
        _score(healed)

    def _slot_of(self, lease: Lease) -> Slot | None:
        return self._leases.get(lease.number) or self._tokens.get(lease.token_id)

    def _known(self, token_id: str) -> Slot:
        slot = self._tokens.get(token_id)
        if slot is None:
            raise KeyError(token_id)
        return slot


def _may_serve(slot: Slot, want: Want) -> bool:
    token = slot.token
    is_excluded = token.id in want.excluded_tokens or token.team in want.excluded_teams
    return slot.is_enabled and not is_excluded and token.driver in want.drivers and slot.serves(want.model)


def _score(healed: Iterable[Slot]) -> None:
    for slot in healed:
        for index in slot.indexes:
            index.score(slot)


def _id(way: Way | None) -> str | None:
    return way.id if way else None
