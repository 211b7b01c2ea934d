"""After a failed attempt: try the order once more, with what changed, or stop, with what error.

A second token is tried only if the upstream refused before it accepted the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.domain.cooldowns import Policy
from proxy.domain.errors import (
    ContentModerated,
    ExitBlocked,
    JobCancelled,
    JobError,
    NoVideoUrl,
    SubmitAmbiguous,
    UpstreamBadResponse,
    UpstreamFailure,
    UpstreamRejected,
)
from proxy.domain.outcomes import Outcome

BEFORE_WRITE = frozenset({Outcome.UNREACHABLE, Outcome.TARGET_UNREACHABLE, Outcome.PROXY_AUTH})
TEAM_FACTS = frozenset({Outcome.UNPAID, Outcome.NOT_GRANTED})
TOKEN_FACTS = TEAM_FACTS | {Outcome.UNAUTHORIZED, Outcome.FORBIDDEN, Outcome.THROTTLED, Outcome.NO_MODEL}
PROXY_FACTS = frozenset({Outcome.CHALLENGED, Outcome.PROXY_AUTH})  # no use in meeting the same proxy again
OTHER_TOKEN = TOKEN_FACTS | {Outcome.UNEXPLAINED}
OTHER_PROXY = BEFORE_WRITE | {Outcome.CHALLENGED, Outcome.UNEXPLAINED}
SAME_TOKEN = BEFORE_WRITE | {Outcome.CHALLENGED}
SAME_UNIT = frozenset({Outcome.BROKEN, Outcome.GARBLED})  # nobody to avoid: wait a little instead

ENDS: dict[Outcome, type[JobError]] = {
    Outcome.REJECTED: UpstreamRejected,
    Outcome.MODERATED: ContentModerated,
    Outcome.LOST: SubmitAmbiguous,
    Outcome.GONE: UpstreamFailure,
    Outcome.NO_RESULT: NoVideoUrl,
    Outcome.CANCELLED: JobCancelled,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt that failed."""

    token_id: str
    proxy_id: str | None
    team: str | None
    outcome: Outcome
    retry: bool = True  # False: the pool said not to try this request again
    cost: int | None = None  # ticks, as the upstream says


@dataclass(frozen=True, slots=True)
class Retry:
    """What to do next. `error` is the code of the job's end: now, or if the pool can serve no other try at all."""

    again: bool
    error: str
    why: str
    pause: float = 0.0  # seconds to wait first
    token_id: str | None = None  # only this one
    preferred_token: str | None = None  # this one if it can, else any
    excluded_tokens: frozenset[str] = frozenset()
    excluded_proxies: frozenset[str | None] = frozenset()
    excluded_teams: frozenset[str] = frozenset()


def next_try(tries: Sequence[Tried], proxies: frozenset[str], jitter: float, policy: Policy) -> Retry:
    """Decide after the last of `tries`, all attempts of one order so far, each failed.

    `proxies` are the enabled ones (none: traffic goes direct), `jitter` is in [0, 1).
    """
    last, error = tries[-1], _error(tries)
    excluded_proxies = _excluded_proxies(tries, proxies)
    stop = _why_stop(tries, policy)
    if stop is not None or excluded_proxies is None:
        return Retry(False, error, stop or "there is no other proxy")
    is_bound = _tokens_after_unexplained(tries) >= policy.max_unexplained_tokens
    stays = is_bound or last.outcome in SAME_TOKEN
    return Retry(
        again=True,
        error=error,
        why=f"after {last.outcome}: {'the same token' if stays else 'another token'}",
        pause=_pause(tries, excluded_proxies, jitter, policy),
        token_id=last.token_id if is_bound else None,
        preferred_token=last.token_id if stays and not is_bound else None,
        excluded_tokens=frozenset(tried.token_id for tried in tries if tried.outcome in OTHER_TOKEN),
        excluded_proxies=excluded_proxies,
        excluded_teams=frozenset(tried.team for tried in tries if tried.team and tried.outcome in TEAM_FACTS),
    )


def _why_stop(tries: Sequence[Tried], policy: Policy) -> str | None:
    last = tries[-1]
    if last.outcome in ENDS:
        return f"{last.outcome} is final"
    if last.outcome is Outcome.FAILED and (last.cost != 0 or _count(tries, Outcome.FAILED) > 1):
        return "the upstream took the job and failed it, and may have charged for it"
    if not last.retry:
        return "the request itself is to blame"
    is_free = all(tried.outcome in BEFORE_WRITE | TOKEN_FACTS for tried in tries)
    if len(tries) >= (policy.max_free_attempts if is_free else policy.max_attempts):
        return f"{len(tries)} attempts are all that one order gets"
    wants_another = last.outcome in OTHER_TOKEN
    if wants_another and _tokens_after_unexplained(tries) >= policy.max_unexplained_tokens:
        return "after an unexplained 403 an order touches no further token"
    return None


def _tokens_after_unexplained(tries: Sequence[Tried]) -> int:
    """Return how many tokens the order has touched from its first unexplained 403 on."""
    first = next((number for number, tried in enumerate(tries) if tried.outcome is Outcome.UNEXPLAINED), len(tries))
    return len({tried.token_id for tried in tries[first:]})


def _excluded_proxies(tries: Sequence[Tried], proxies: frozenset[str]) -> frozenset[str | None] | None:
    """Return the proxies not to meet again; None if that leaves none.

    One that had mere trouble is used again where there is no other: its own rest says when.
    """
    ways: frozenset[str | None] = proxies or frozenset({None})
    barred = frozenset(tried.proxy_id for tried in tries if tried.outcome in PROXY_FACTS)
    avoided = barred | {tried.proxy_id for tried in tries if tried.outcome in OTHER_PROXY}
    if ways <= barred:
        return None
    return barred if ways <= avoided else avoided


def _pause(tries: Sequence[Tried], excluded: frozenset[str | None], jitter: float, policy: Policy) -> float:
    """Return the wait before the next try: none if it meets another unit, else exponential with full jitter (AWS)."""
    last = tries[-1]
    meets_same = last.outcome in SAME_UNIT or (last.outcome in BEFORE_WRITE and last.proxy_id not in excluded)
    if not meets_same:
        return 0.0
    return jitter * min(policy.backoff_cap, policy.backoff_base * 2.0 ** (_count(tries, last.outcome) - 1))


def _error(tries: Sequence[Tried]) -> str:
    """Return the code of a job that ends after `tries`. It never blames the client for what the pool did."""
    last = tries[-1]
    if all(tried.outcome is Outcome.CHALLENGED for tried in tries):
        return ExitBlocked.code
    if last.outcome is Outcome.GARBLED:
        return UpstreamBadResponse.code
    return ENDS.get(last.outcome, UpstreamFailure).code


def _count(tries: Sequence[Tried], outcome: Outcome) -> int:
    return sum(tried.outcome is outcome for tried in tries)
