"""What is asked of the pool, and what it answers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from proxy.domain.cooldowns import Cooldown
from proxy.domain.outcomes import Blame


@dataclass(frozen=True, slots=True)
class Want:
    """A slot wanted on any token of one of `drivers` that serves `model` (the upstream's name for it)."""

    drivers: tuple[str, ...]
    model: str
    token_id: str | None = None  # only this one
    preferred_token: str | None = None  # this one if it can, else any
    excluded_tokens: frozenset[str] = frozenset()
    excluded_proxies: frozenset[str | None] = frozenset()
    excluded_teams: frozenset[str] = frozenset()


class Lease(NamedTuple):
    """The right to use one slot of a token, until it is released. `number` rises with every lease of the pool.

    0 is the number of a look at a credential, which takes no slot.
    """

    number: int
    token_id: str
    driver: str
    proxy_id: str | None  # None: direct
    model: str
    team: str | None
    why: str  # why this token
    taken_at: float


class NotNow(NamedTuple):
    """No slot now.

    `until` is when to ask again (a moment not after now: at once), infinity when only a release or an edit can help,
    None when nothing enabled serves what was wanted at all.
    """

    until: float | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one exchange."""

    blame: Blame
    reason: str
    cooldowns: tuple[Cooldown, ...] = ()  # new or changed: to be stored
    retry: bool = True  # False: the request is to blame; see `Tried.retry`
    verify: bool = False  # the token is to be looked at in the background
    disable: str | None = None  # the confirmed cause for which the token is to be disabled


class Status(StrEnum):
    READY = "ready"
    COOLING = "cooling"
    FULL = "full"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class TokenView:
    id: str
    status: Status
    cooling_until: float | None  # None: not cooling, or until something is edited
    in_flight: int
    proxy_id: str | None  # the one it keeps to
    cooldowns: tuple[Cooldown, ...]  # its own, its team's and its proxy's, also those past while strikes are left


@dataclass(frozen=True, slots=True)
class ProxyView:
    id: str
    status: Status
    cooling_until: float | None
    tokens: int  # that keep to it
    cooldowns: tuple[Cooldown, ...]
