"""The pool as its operator sees it."""

import math

from proxy.domain.cooldowns import Cooldown, Policy, SubjectKind, is_spent
from proxy.state.index import Slot
from proxy.state.leases import ProxyView, Status, TokenView
from proxy.state.proxies import Proxies, Way


def view_token(slot: Slot, proxies: Proxies, now: float, policy: Policy) -> TokenView:
    """Show one token. It cools while anything of it rests: itself, a model of it, its team, every way it may take."""
    cooldowns = [row for row in slot.rests.values() if row.subject.kind is not SubjectKind.PAIR or _is_own(row, slot)]
    cooldowns += (slot.team_rests or {}).values()
    cooling_until = max((row.until for row in cooldowns), default=0.0)
    cooling_until = max(cooling_until, _way_free_at(slot, proxies))
    if slot.way is not None:
        cooldowns += slot.way.rests.values()
    return TokenView(
        id=slot.token.id,
        status=_token_status(slot, cooling_until > now),
        cooling_until=_shown(cooling_until, now),
        in_flight=slot.in_flight,
        proxy_id=slot.token.proxy_id or (slot.way.id if slot.way else None),
        cooldowns=tuple(row for row in cooldowns if not is_spent(row, now, policy)),
    )


def view_proxy(way: Way, now: float, policy: Policy) -> ProxyView:
    cooling_until = max((row.until for row in way.rests.values()), default=0.0)
    status = Status.COOLING if cooling_until > now else Status.READY
    return ProxyView(
        id=way.key,
        status=status if way.enabled else Status.DISABLED,
        cooling_until=_shown(cooling_until, now),
        tokens=way.load,
        cooldowns=tuple(row for row in way.rests.values() if not is_spent(row, now, policy)),
    )


def _token_status(slot: Slot, is_cooling: bool) -> Status:
    if not slot.is_enabled:
        return Status.DISABLED
    if is_cooling:
        return Status.COOLING
    return Status.FULL if slot.is_full else Status.READY


def _way_free_at(slot: Slot, proxies: Proxies) -> float:
    pin = slot.token.proxy_id
    if pin is None:
        return proxies.next_free(slot.host)
    way = proxies.get(pin)
    return way.free_at(slot.host) if way else math.inf


def _is_own(row: Cooldown, slot: Slot) -> bool:
    return slot.way is not None and row.subject.scope == slot.way.key


def _shown(moment: float, now: float) -> float | None:
    return moment if now < moment < math.inf else None
