"""Pools on a manual clock, and short words for what is done with them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from proxy.domain.cooldowns import Cause, Cooldown, Policy, Subject, SubjectKind
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.proxies import Proxy
from proxy.domain.tokens import Token
from proxy.state.leases import Lease, NotNow, Settlement, Want
from proxy.state.pool import Pool

MODEL = "grok-imagine-video"
WANT = Want(("xai",), MODEL)
START = 1000.0


def token(name: str, **fields: Any) -> Token:
    return replace(Token(name, name, "xai"), **fields)


def proxy(name: str, *, enabled: bool = True, removed: bool = False) -> Proxy:
    return Proxy(name, name, "socks5://proxy.example:1080", enabled, removed)


def make_pool(tokens: Iterable[Token], proxies: Iterable[str] = (), now: float = START) -> Pool:
    pool = Pool(Policy(), lambda: 0.5)
    for name in proxies:
        pool.put_proxy(proxy(name), now)
    for one in tokens:
        pool.put_token(one, now)
    return pool


def take(pool: Pool, now: float, want: Want = WANT) -> Lease:
    got = pool.lease(want, now)
    while got == NotNow(now):  # scores to put right: it asks to come again at once
        got = pool.lease(want, now)
    assert isinstance(got, Lease), got
    return got


def refused(pool: Pool, now: float, want: Want = WANT) -> float | None:
    got = pool.lease(want, now)
    assert isinstance(got, NotNow), got
    return got.until


def exchange(now: float, *, work: str = "w1", caller: str = "k1", step: Step = Step.SUBMIT) -> Exchange:
    return Exchange(step, work, caller, "order", now, "a1")


def fail(pool: Pool, lease: Lease, outcome: Outcome, now: float, retry_after: float | None = None) -> Settlement:
    verdict = Verdict(outcome, Blame.NOBODY, "why", "evidence", retry_after)
    settlement = pool.settle(lease, verdict, exchange(now), now)
    pool.release(lease, now)
    return settlement


def rest(kind: SubjectKind, unit: str, until: float, scope: str = "") -> Cooldown:
    return Cooldown(Subject(kind, unit, scope), until, 0.0, 0, Cause.OPERATOR)
