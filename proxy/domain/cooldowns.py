"""Cooldowns: who rests, until when, why; and how a rest grows with each blamed failure in a row."""

from dataclasses import dataclass, replace
from enum import StrEnum

MINUTE, HOUR = 60.0, 3600.0  # seconds
DIRECT = "direct"  # stands for the proxy where there is none


class SubjectKind(StrEnum):
    TOKEN = "token"
    TOKEN_MODEL = "token_model"
    TEAM = "team"
    TEAM_MODEL = "team_model"
    PROXY = "proxy"
    PROXY_HOST = "proxy_host"
    PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Subject:
    """What rests. `scope` is the model, the host, or for a pair (whose `id` is the token's) the proxy's id."""

    kind: SubjectKind
    id: str
    scope: str = ""


class Cause(StrEnum):
    """Why a subject rests. An inferred cause is a guess from a pattern; the others are facts."""

    CHALLENGED = "challenged"
    FORBIDDEN = "forbidden"
    UNEXPLAINED = "unexplained"  # one 403 that names nothing
    UNEXPLAINED_TWICE = "unexplained_twice"  # one token, two callers
    UNEXPLAINED_TOKEN = "unexplained_token"  # one token, several proxies and requests
    UNEXPLAINED_PROXY = "unexplained_proxy"  # several tokens, one proxy
    UNAUTHORIZED = "unauthorized"
    THROTTLED = "throttled"
    THROTTLED_PROXY = "throttled_proxy"
    UNPAID = "unpaid"
    NOT_GRANTED = "not_granted"
    NO_MODEL = "no_model"
    PROXY_AUTH = "proxy_auth"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    OPERATOR = "operator"


INFERRED = frozenset(
    {
        Cause.UNEXPLAINED,
        Cause.UNEXPLAINED_TWICE,
        Cause.UNEXPLAINED_TOKEN,
        Cause.UNEXPLAINED_PROXY,
        Cause.THROTTLED_PROXY,
    }
)


@dataclass(frozen=True, slots=True)
class Ladder:
    """A rest of `base` seconds, twice as long with every further strike, at most `cap`."""

    base: float
    cap: float

    def seconds(self, strikes: int) -> float:
        return min(self.cap, self.base * 2.0 ** min(strikes - 1, 64))


@dataclass(frozen=True, slots=True)
class Told:
    """A rest of so many seconds because the upstream said so: never shorter, a little longer, no strike."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fixed:
    """A rest of so many seconds, no strike."""

    seconds: float


Rest = Ladder | Told | Fixed


@dataclass(frozen=True, slots=True)
class Policy:
    """Every number of the pool's rules. Durations are seconds."""

    retry_after_min: float = 1.0  # a Retry-After below this is raised to it
    retry_after_max: float = 6 * HOUR  # and one above this lowered
    told_jitter: float = 0.10  # share added to a wait the upstream named
    ladder_jitter: float = 0.20  # share a ladder's rest may be shorter or longer
    strike_decay: float = 10 * MINUTE  # of health take one strike away
    strike_successes: int = 20  # successes take one strike away

    challenge_base: float = 60.0  # proxy x host: Cloudflare's challenge or block page
    unreachable_soft: float = 5.0  # proxy: first trouble before the request was written
    unreachable_window: float = 60.0  # a second one within this climbs the ladder
    unreachable_base: float = 30.0
    proxy_cap: float = 15 * MINUTE  # ceiling of both proxy ladders
    proxy_auth_rest: float = 10 * MINUTE  # proxy: its credentials are refused

    throttle_base: float = 60.0  # token (or team) x model: 429 without a wait
    throttle_cap: float = 30 * MINUTE
    per_second_rest: float = 2.0  # 429 whose text names the budget per second
    per_minute_rest: float = 60.0  # 429 whose text names the budget per minute
    throttled_tokens: int = 3  # 429 on so many tokens of one proxy
    throttled_window: float = 30.0  # within this: it is the proxy

    forbidden_base: float = 30 * MINUTE  # token: a 403 that names the account
    forbidden_cap: float = 6 * HOUR
    unauthorized_rest: float = 60.0  # token: 401, while it is verified
    confirmations: int = 2  # further 401s that disable the token
    unpaid_base: float = HOUR  # team (else token): no money, and no moment when there will be
    unpaid_cap: float = 24 * HOUR
    not_granted_rest: float = 24 * HOUR  # team (else token) x model: "0/0"
    no_model_rest: float = HOUR  # token x model: 404

    pair_soft: float = 5.0  # pair: an unexplained 403, or a submit whose answer was lost
    unexplained_window: float = 60.0  # unexplained 403s this close together are one pattern
    unexplained_rest: float = 30.0  # token: unexplained for a second caller
    unexplained_proxy_tokens: int = 3  # tokens of one proxy: it is the proxy
    unexplained_caller_tokens: int = 3  # tokens of one caller: it is the request
    unexplained_callers: int = 3  # callers on as many proxies: it is the upstream
    unexplained_request_rest: float = 60.0  # that caller's unexplained 403s are not retried for so long
    unexplained_token_count: int = 3  # times on one token, on two proxies, from two requests: it is the token
    unexplained_token_window: float = 10 * MINUTE
    unexplained_token_others: float = 0.8  # share of the other tokens that must be fine for that
    inferred_base: float = 5 * MINUTE  # its ladder, up to `forbidden_cap`

    outage_proxies: int = 3  # trouble before the request on so many proxies
    outage_window: float = 5.0  # within this, and no success between: it is the upstream

    max_attempts: int = 3  # per order
    max_free_attempts: int = 6  # where each ended before the request was written, or in a fact about its token
    max_unexplained_tokens: int = 2  # tokens an order may touch from its first unexplained 403 on
    backoff_base: float = 1.0  # before another try that may meet the same unit: base x 2^k, full jitter
    backoff_cap: float = 20.0

    @property
    def challenge(self) -> Ladder:
        return Ladder(self.challenge_base, self.proxy_cap)

    @property
    def unreachable(self) -> Ladder:
        return Ladder(self.unreachable_base, self.proxy_cap)

    @property
    def throttle(self) -> Ladder:
        return Ladder(self.throttle_base, self.throttle_cap)

    @property
    def forbidden(self) -> Ladder:
        return Ladder(self.forbidden_base, self.forbidden_cap)

    @property
    def inferred(self) -> Ladder:
        return Ladder(self.inferred_base, self.forbidden_cap)

    @property
    def unpaid(self) -> Ladder:
        return Ladder(self.unpaid_base, self.unpaid_cap)


@dataclass(frozen=True, slots=True)
class Penalty:
    """One subject is to rest, for how long and why."""

    subject: Subject
    rest: Rest
    cause: Cause
    evidence: str = ""
    attempt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Cooldown:
    """The rest of one subject. It stays known after its end, for as long as strikes are left."""

    subject: Subject
    until: float
    since: float
    strikes: int
    cause: str  # a `Cause`
    evidence: str = ""
    attempt_id: str | None = None
    successes: int = 0  # since the last strike was added or taken away; not stored


def settle(
    row: Cooldown | None, penalty: Penalty, *, began_at: float, now: float, jitter: float, policy: Policy
) -> Cooldown:
    """Return the subject's cooldown after `penalty`. `until` never moves back.

    `began_at` is when the failed exchange began: one that began before the present rest was over adds no strike,
    so that fifty requests which meet the same block are one strike and not fifty. `jitter` is in [0, 1).
    """
    strikes = strikes_left(row, now, policy) if row else 0
    if isinstance(penalty.rest, Ladder):
        is_old_news = row is not None and row.strikes > 0 and began_at < row.until
        strikes = max(strikes, 1) if is_old_news else strikes + 1
    until = now + _seconds(penalty.rest, strikes, jitter, policy)
    if row is not None and row.until >= until:
        return replace(row, strikes=strikes)
    return Cooldown(penalty.subject, until, now, strikes, penalty.cause, penalty.evidence, penalty.attempt_id)


def _seconds(rest: Rest, strikes: int, jitter: float, policy: Policy) -> float:
    match rest:
        case Ladder():
            return rest.seconds(strikes) * (1.0 + policy.ladder_jitter * (2.0 * jitter - 1.0))
        case Told():
            return rest.seconds * (1.0 + policy.told_jitter * jitter)
        case Fixed():
            return rest.seconds


def succeed(row: Cooldown, now: float, policy: Policy) -> Cooldown:
    """Return `row` after a success of its subject. What succeeds during the rest says nothing about its cause."""
    if now < row.until or row.strikes == 0:
        return row
    successes = row.successes + 1
    if successes < policy.strike_successes:
        return replace(row, successes=successes)
    return replace(row, strikes=row.strikes - 1, successes=0)


def strikes_left(row: Cooldown, now: float, policy: Policy) -> int:
    """Return the strikes that count now: each `policy.strike_decay` of health since the rest took one away."""
    if now <= row.until:
        return row.strikes
    return max(0, row.strikes - int((now - row.until) / policy.strike_decay))


def is_spent(row: Cooldown, now: float, policy: Policy) -> bool:
    """Tell whether `row` means nothing any more: its rest is over and no strike is left."""
    return now >= row.until and strikes_left(row, now, policy) == 0


def is_repeated(row: Cooldown | None, cause: Cause, began_at: float, now: float, policy: Policy) -> bool:
    """Tell whether a failure by `cause` that began at `began_at` comes after a full rest for the same cause."""
    if row is None or row.cause != cause:
        return False
    return began_at >= row.until and strikes_left(row, now, policy) > 0
