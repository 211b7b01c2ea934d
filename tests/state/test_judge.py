"""Doubtful credentials."""

from proxy.domain.cooldowns import Cause, SubjectKind
from proxy.domain.outcomes import Blame, Outcome, Verdict
from proxy.state.leases import Lease, NotNow
from tests.state.pools import START, exchange, fail, make_pool, rest, take, token


def test_a_401_is_verified_by_other_proxies_and_confirmed_twice() -> None:
    pool = make_pool([token("t")], ["p1", "p2"])
    lease = take(pool, START)
    settlement = fail(pool, lease, Outcome.UNAUTHORIZED, START)
    assert (settlement.verify, settlement.disable) == (True, None)
    wrong = Verdict(Outcome.UNAUTHORIZED, Blame.TOKEN, "why")
    first = pool.look("t", START + 1)
    assert isinstance(first, Lease)
    assert first.number == 0
    assert first.proxy_id not in (None, lease.proxy_id)
    once_more = pool.confirm(first, wrong, START + 2)
    assert (once_more.verify, once_more.disable) == (True, None)
    second = pool.look("t", START + 3)
    assert isinstance(second, Lease)
    proved = pool.confirm(second, wrong, START + 4)
    assert (proved.verify, proved.disable) == (False, Cause.UNAUTHORIZED)


def test_a_success_or_a_failure_already_under_way_confirms_nothing() -> None:
    pool = make_pool([token("t", concurrency=4)])
    leases = [take(pool, START) for _ in range(4)]
    wrong = Verdict(Outcome.UNAUTHORIZED, Blame.TOKEN, "why")
    settlements = [pool.settle(lease, wrong, exchange(START), START + 1) for lease in leases]
    assert [settlement.verify for settlement in settlements] == [True, False, False, False]
    look = pool.look("t", START + 2)
    assert isinstance(look, Lease)
    pool.confirm(look, None, START + 3)
    for moment in (START + 4, START + 6):
        assert pool.settle(leases[0], wrong, exchange(moment), moment).disable is None


def test_a_second_explicit_403_after_the_rest_disables() -> None:
    pool = make_pool([token("t")])
    assert fail(pool, take(pool, START), Outcome.FORBIDDEN, START).disable is None
    later = START + 1800.0
    assert fail(pool, take(pool, later), Outcome.FORBIDDEN, later).disable is Cause.FORBIDDEN


def test_a_look_waits_for_a_way_and_knows_no_unknown_token() -> None:
    pool = make_pool([token("t", proxy_id="p1")], ["p1", "p2"])
    pool.rest(rest(SubjectKind.PROXY, "p1", START + 30.0))
    assert pool.look("t", START) == NotNow(START + 30.0)
    assert pool.look("unknown", START) == NotNow(None)
