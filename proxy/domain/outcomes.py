"""What an exchange with the upstream showed (a signal), and what it means (a verdict).

The upstream floor makes signals and never judges; `domain.policy` judges and never sees a socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Step(StrEnum):
    """What an exchange was for."""

    SUBMIT = "submit"
    POLL = "poll"
    FETCH = "fetch"
    VERIFY = "verify"


class Phase(StrEnum):
    """How far the request had come when the exchange ended."""

    BEFORE = "before_write"  # nothing of it was written: connecting, TLS, the proxy's handshake
    AFTER = "after_write"  # written, at least in part; no complete answer
    ANSWERED = "answered"


class Trouble(StrEnum):
    """A transport failure, by cause."""

    CONNECT = "connect"  # refused, unreachable, or a name that does not resolve
    TIMEOUT = "timeout"
    TLS = "tls"
    RESET = "reset"
    PROXY_AUTH = "proxy_auth"  # 407, or SOCKS authentication refused
    PROXY_TARGET = "proxy_target"  # the proxy says it cannot reach the upstream: SOCKS replies 3-5, CONNECT 502/504
    PROXY_REFUSED = "proxy_refused"  # any other answer of the proxy itself
    MALFORMED = "malformed"  # an answer that is no HTTP, or ends too soon


@dataclass(frozen=True, slots=True)
class Signal:
    """The facts of one exchange with the upstream."""

    phase: Phase
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # lower-case names
    body: bytes = b""  # its first 64 KiB
    trouble: Trouble | None = None
    detail: str = ""  # for the operator's log; no secrets


class Outcome(StrEnum):
    OK = "ok"
    CHALLENGED = "challenged"  # Cloudflare: a challenge or a block page
    FORBIDDEN = "forbidden"  # 403 that names the account
    UNEXPLAINED = "unexplained"  # 403 that names nothing
    UNAUTHORIZED = "unauthorized"  # 401, or xAI's 400 for a wrong key
    THROTTLED = "throttled"  # 429
    UNPAID = "unpaid"  # 402, or 403/429 that speaks of money
    NOT_GRANTED = "not_granted"  # 429 "0/0": the model is not the team's
    NO_MODEL = "no_model"  # 404: the model is not known to this credential
    REJECTED = "rejected"  # 400/422: the arguments
    MODERATED = "moderated"
    PROXY_AUTH = "proxy_auth"
    UNREACHABLE = "unreachable"  # trouble before the request was written
    TARGET_UNREACHABLE = "target_unreachable"  # the proxy works, the upstream does not answer it
    LOST = "lost"  # trouble after the request was written: it may have been accepted
    BROKEN = "broken"  # 5xx
    GARBLED = "garbled"  # an answer that makes no sense: bad JSON, a page of HTML where JSON belongs
    GONE = "gone"  # 404/expired for a job the upstream had accepted
    FAILED = "failed"  # the upstream took the job and failed it
    NO_RESULT = "no_result"  # done, without a usable video
    CANCELLED = "cancelled"


class Blame(StrEnum):
    NOBODY = "nobody"
    REQUEST = "request"
    TOKEN = "token"
    TEAM = "team"
    PROXY = "proxy"
    PAIR = "pair"
    UPSTREAM = "upstream"


ENDS_JOB = frozenset(
    {Outcome.REJECTED, Outcome.MODERATED, Outcome.FAILED, Outcome.GONE, Outcome.NO_RESULT, Outcome.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a signal means: the outcome, and whose fault it is by this signal alone."""

    outcome: Outcome
    blame: Blame
    reason: str  # a short English phrase for the operator
    evidence: str = ""  # the status and the first 512 bytes of the body, redacted
    retry_after: float | None = None  # seconds, as the upstream says
    cost: int | None = None  # ticks that the upstream took all the same

    @property
    def ends_job(self) -> bool:
        """Tell whether the job itself is over. If not, a poll or a download that failed says nothing about it."""
        return self.outcome in ENDS_JOB


class UpstreamFailed(Exception):
    """An exchange did not give what it was made for; `signal` has the facts."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(f"{signal.phase} {signal.status or signal.trouble or ''} {signal.detail}".strip())
        self.signal = signal
