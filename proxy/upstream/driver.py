"""What the gateway asks of a driver: the code that speaks to one kind of upstream."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Outcome
from proxy.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class Access:
    """Whose credential, and which way out: everything about the caller's side of one exchange."""

    token_id: str
    secret: Secret
    base_url: str | None  # the token's own; None: the driver's
    proxy_id: str | None  # None: direct


@dataclass(frozen=True, slots=True)
class Image:
    """A checked input image, in a format every upstream takes."""

    media_type: str  # image/jpeg, image/png or image/webp
    content: bytes


@dataclass(frozen=True, slots=True)
class Running:
    progress: int | None  # per cent, where the upstream reports it


@dataclass(frozen=True, slots=True)
class Done:
    url: str
    duration: float | None = None  # seconds
    cost: int | None = None  # ticks, as the upstream says


@dataclass(frozen=True, slots=True)
class Ended:
    """The upstream finished the job without a usable video."""

    outcome: Outcome  # MODERATED, FAILED, GONE or NO_RESULT
    cost: int | None = None  # ticks
    detail: str = ""  # for the operator


@dataclass(frozen=True, slots=True)
class Verified:
    """What a free look at a credential showed."""

    team: str | None
    blocked: bool
    detail: str = ""


class Driver(Protocol):
    """One kind of upstream. Every method raises `UpstreamFailed` with the signal of an exchange that went wrong."""

    name: str
    kinds: frozenset[Kind]

    async def submit(self, order: Order, image: Image | None, access: Access) -> str:
        """Hand the order over, once, without a retry of any kind; return the upstream's id for it."""

    async def poll(self, upstream_id: str, access: Access) -> Running | Done | Ended:
        """Look at a submitted job."""

    def fetch(self, done: Done, access: Access) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the finished video's bytes. An address the upstream may not name raises `UpstreamFailed` at once."""

    async def verify(self, access: Access) -> Verified:
        """Look at the credential by a call that costs nothing."""
