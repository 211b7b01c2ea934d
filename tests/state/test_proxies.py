"""Which way a token leaves by."""

import math
from collections import Counter
from dataclasses import replace

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.outcomes import Outcome
from proxy.state.leases import Lease, Status
from tests.state.pools import MODEL, START, WANT, fail, make_pool, proxy, refused, rest, take, token


def test_without_proxies_traffic_goes_direct_and_with_any_never() -> None:
    pool = make_pool([token("t")])
    lease = take(pool, START)
    assert lease.proxy_id is None
    pool.release(lease, START)
    pool.put_proxy(proxy("p", enabled=False), START)
    assert refused(pool, START) == math.inf
    pool.put_proxy(proxy("p"), START)
    lease = take(pool, START)
    assert lease.proxy_id == "p"
    pool.release(lease, START)
    pool.put_proxy(proxy("p", removed=True), START)
    assert take(pool, START).proxy_id is None


def test_tokens_spread_over_the_proxies_and_each_keeps_its_own() -> None:
    pool = make_pool([token(f"t{number}") for number in range(6)], ["p1", "p2", "p3"])
    homes: dict[str, str | None] = {}
    for step in range(30):
        lease = take(pool, START + step)
        assert homes.setdefault(lease.token_id, lease.proxy_id) == lease.proxy_id
        pool.release(lease, START + step)
    assert Counter(homes.values()) == {"p1": 2, "p2": 2, "p3": 2}


def test_a_token_moves_when_its_proxy_rests_and_stays_where_it_went() -> None:
    pool = make_pool([token("t")], ["p1", "p2"])
    lease = take(pool, START)
    fail(pool, lease, Outcome.CHALLENGED, START)
    moved = take(pool, START)
    assert {lease.proxy_id, moved.proxy_id} == {"p1", "p2"}
    pool.release(moved, START)
    assert take(pool, START + 1000.0).proxy_id == moved.proxy_id
    assert lease.proxy_id is not None
    assert pool.proxy_view(lease.proxy_id, START).status is Status.COOLING


def test_a_pinned_token_waits_for_its_proxy_and_never_moves() -> None:
    pool = make_pool([token("t", proxy_id="p1")], ["p1", "p2"])
    fail(pool, take(pool, START), Outcome.CHALLENGED, START)
    assert refused(pool, START) == START + 60.0
    assert take(pool, START + 60.0).proxy_id == "p1"
    assert refused(make_pool([token("t", proxy_id="gone")], ["p1"]), START) == math.inf


def test_an_edited_pin_counts_from_the_next_pick() -> None:
    pool = make_pool([token("t", proxy_id="p1")], ["p1", "p2"])
    pool.release(take(pool, START), START)
    pool.put_token(token("t", proxy_id="p2"), START)
    assert take(pool, START).proxy_id == "p2"
    assert (pool.proxy_view("p1", START).tokens, pool.proxy_view("p2", START).tokens) == (0, 1)


def test_when_every_proxy_rests_the_first_to_be_free_is_waited_for() -> None:
    pool = make_pool([token("t")], ["p1", "p2"])
    pool.rest(rest(SubjectKind.PROXY, "p1", START + 30.0))
    pool.rest(rest(SubjectKind.PROXY_HOST, "p2", START + 20.0, "xai"))
    assert refused(pool, START) == START + 20.0
    pool.put_proxy(proxy("p3"), START)
    assert take(pool, START).proxy_id == "p3"


def test_a_proxy_blocked_at_one_host_serves_another() -> None:
    pool = make_pool([token("a"), token("b", base_url="https://gateway.example/v1")], ["p"])
    pool.rest(rest(SubjectKind.PROXY_HOST, "p", START + 30.0, "xai"))
    assert take(pool, START).token_id == "b"
    assert refused(pool, START) == START + 30.0


def test_a_token_takes_another_way_for_once_when_its_own_is_excluded() -> None:
    pool = make_pool([token("t")], ["p1", "p2"])
    home = take(pool, START)
    pool.release(home, START)
    away = take(pool, START, replace(WANT, excluded_proxies=frozenset({home.proxy_id})))
    assert away.proxy_id != home.proxy_id
    pool.release(away, START)
    assert take(pool, START).proxy_id == home.proxy_id


def test_a_token_whose_own_way_is_free_goes_before_a_detour() -> None:
    pool = make_pool([token("a"), token("b")], ["p1", "p2"])
    for lease in [take(pool, START), take(pool, START)]:
        pool.release(lease, START)
    got = take(pool, START, replace(WANT, excluded_proxies=frozenset({pool.token_view("a", START).proxy_id})))
    assert got.token_id == "b"


def test_with_every_proxy_excluded_there_is_nothing_to_wait_for() -> None:
    pool = make_pool([token("a"), token("b", proxy_id="p1")], ["p1"])
    want = replace(WANT, excluded_proxies=frozenset({"p1"}))
    assert refused(pool, START, want) is None
    assert refused(pool, START, replace(want, token_id="a")) is None
    assert refused(make_pool([token("a")]), START, replace(WANT, excluded_proxies=frozenset({None}))) is None


def test_polls_move_when_their_proxy_dies_and_a_pinned_tokens_do_not() -> None:
    pool = make_pool([token("t"), token("pinned", proxy_id="p1")], ["p1", "p2"])
    lease = take(pool, START, replace(WANT, token_id="t"))
    assert pool.move(lease, START) == lease
    pool.rest(rest(SubjectKind.PROXY, str(lease.proxy_id), START + 30.0))
    moved = pool.move(lease, START)
    assert (moved.number, moved.token_id) == (lease.number, "t")
    assert {lease.proxy_id, moved.proxy_id} == {"p1", "p2"}
    pool.rest(rest(SubjectKind.PROXY, str(moved.proxy_id), START + 30.0))
    assert pool.move(moved, START) == moved
    pinned = Lease(9, "pinned", "xai", "p1", MODEL, None, "", START)
    assert pool.move(pinned, START, frozenset({"p1"})) == pinned


def test_running_work_never_goes_direct_once_there_are_proxies() -> None:
    pool = make_pool([token("t")])
    lease = take(pool, START)
    pool.put_proxy(proxy("p"), START)
    pool.rest(rest(SubjectKind.PROXY, "p", START + 30.0))
    assert pool.move(lease, START).proxy_id == "p"
    assert pool.adopt("t", None, MODEL, START).proxy_id == "p"
