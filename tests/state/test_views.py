"""What the operator sees."""

import pytest

from proxy.domain.cooldowns import DIRECT, Subject, SubjectKind
from proxy.domain.outcomes import Outcome
from proxy.state.leases import Status
from tests.state.pools import START, fail, make_pool, proxy, take, token


def test_views_show_what_the_operator_asks() -> None:
    pool = make_pool([token("a", team="x"), token("b")], ["p"])
    a = take(pool, START)
    assert pool.token_view("a", START).status is Status.FULL
    fail(pool, a, Outcome.THROTTLED, START)
    view = pool.token_view("a", START)
    assert (view.status, view.cooling_until, view.in_flight, view.proxy_id) == (Status.COOLING, START + 60.0, 0, "p")
    assert [row.subject.kind for row in view.cooldowns] == [SubjectKind.TEAM_MODEL]
    assert pool.token_view("b", START).status is Status.READY
    assert pool.token_view("a", START + 60.0).status is Status.READY
    assert pool.token_view("a", START + 60.0).cooldowns[0].strikes == 1
    assert pool.token_view("a", START + 60.0 + 600.0).cooldowns == ()
    pool.put_proxy(proxy("p", enabled=False), START)
    assert pool.proxy_view("p", START).status is Status.DISABLED
    assert pool.proxies() == frozenset()
    for unknown in (pool.token_view, pool.proxy_view):
        with pytest.raises(KeyError):
            unknown("unknown", START)


def test_the_direct_way_rests_like_a_proxy() -> None:
    pool = make_pool([token("t")])
    (row,) = fail(pool, take(pool, START), Outcome.CHALLENGED, START).cooldowns
    assert row.subject == Subject(SubjectKind.PROXY_HOST, DIRECT, "xai")
    assert pool.token_view("t", START).status is Status.COOLING
