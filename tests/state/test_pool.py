"""The pool on a manual clock: who is picked, who rests, which way it leaves by."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.domain.cooldowns import DIRECT, Cause, Cooldown, Policy, Subject, SubjectKind
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.proxies import Proxy
from proxy.domain.tokens import Token, TokenState
from proxy.state.leases import Lease, NotNow, Settlement, Status, Want
from proxy.state.pool import Pool

MODEL = "grok-imagine-video"
WANT = Want(("xai",), MODEL)
START = 1000.0


def token(name: str, **fields: object) -> Token:
    return replace(Token(name, name, "xai"), **fields)  # type: ignore[arg-type]


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


# Selection


def test_tokens_take_turns_the_one_idle_longest_first() -> None:
    pool = make_pool(token(f"t{number}") for number in range(3))
    order = []
    for step in range(9):
        lease = take(pool, START + step)
        order.append(lease.token_id)
        pool.release(lease, START + step + 0.5)
    assert order == ["t0", "t1", "t2"] * 3


def test_idle_counts_from_the_end_of_the_last_work() -> None:
    pool = make_pool([token("long"), token("short")])
    long = take(pool, START)
    short = take(pool, START + 1)
    pool.release(short, START + 2)
    pool.release(long, START + 60)
    assert take(pool, START + 61).token_id == "short"


def test_a_full_token_is_not_picked_and_its_release_is_worth_waiting_for() -> None:
    pool = make_pool([token("t", concurrency=2)])
    first, _ = take(pool, START), take(pool, START)
    assert refused(pool, START) == math.inf
    pool.release(first, START + 1)
    pool.release(first, START + 1)  # once is enough
    take(pool, START + 1)
    assert refused(pool, START + 1) == math.inf


def test_lease_numbers_rise() -> None:
    pool = make_pool([token("t", concurrency=3)])
    numbers = [take(pool, START).number for _ in range(3)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0


@pytest.mark.parametrize(
    "other",
    [
        token("t", state=TokenState.DISABLED),
        token("t", state=TokenState.REMOVED),
        token("t", driver="sandbox"),
        token("t", models=("grok-image",)),
    ],
)
def test_a_token_that_does_not_serve_is_nothing_to_wait_for(other: Token) -> None:
    assert refused(make_pool([other]), START) is None
    assert refused(make_pool([]), START) is None


def test_a_token_that_names_its_models_serves_those() -> None:
    pool = make_pool([token("t", models=(MODEL,))])
    assert take(pool, START).token_id == "t"


def test_the_longest_idle_of_all_tiers_and_drivers_is_picked() -> None:
    pool = make_pool([token("a")])
    pool.put_token(token("b", tier="gold"), START + 1)
    pool.put_token(token("c", driver="grok_web"), START + 2)
    want = Want(("grok_web", "xai"), MODEL)
    assert [take(pool, START + 3, want).token_id for _ in range(3)] == ["a", "b", "c"]


def test_a_token_put_after_the_first_pick_is_found_in_a_tier_of_its_own_too() -> None:
    pool = make_pool([token("a")])
    take(pool, START)
    pool.put_token(token("b"), START)
    pool.put_token(token("c", tier="gold"), START)
    assert {take(pool, START).token_id, take(pool, START).token_id} == {"b", "c"}


def test_exclusions_are_kept_and_leave_nothing_to_wait_for() -> None:
    pool = make_pool([token("a", team="x"), token("b", team="x"), token("c")])
    assert take(pool, START, replace(WANT, excluded_teams=frozenset({"x"}))).token_id == "c"
    assert take(pool, START, replace(WANT, excluded_tokens=frozenset({"a"}))).token_id == "b"
    assert refused(pool, START, replace(WANT, excluded_tokens=frozenset({"a", "b", "c"}))) is None
    assert refused(pool, START, replace(WANT, excluded_tokens=frozenset({"a"}))) == math.inf
    assert take(pool, START).token_id == "a"


def test_a_resting_token_that_is_excluded_is_nothing_to_wait_for() -> None:
    pool = make_pool([token("a")])
    fail(pool, take(pool, START), Outcome.UNAUTHORIZED, START)
    assert refused(pool, START, replace(WANT, excluded_tokens=frozenset({"a"}))) is None
    assert refused(pool, START) == START + 60.0


def test_only_this_token_or_this_one_first() -> None:
    pool = make_pool([token("a"), token("b")])
    assert take(pool, START, replace(WANT, token_id="b")).token_id == "b"
    assert refused(pool, START, replace(WANT, token_id="b")) == math.inf
    assert refused(pool, START, replace(WANT, token_id="none")) is None
    assert take(pool, START, replace(WANT, preferred_token="b")).token_id == "a"


def test_one_pick_corrects_few_scores_and_asks_to_come_again_at_once() -> None:
    pool = make_pool(token(f"t{number}", team="x") for number in range(100))
    take(pool, START)
    pool.rest(rest(SubjectKind.TEAM, "x", START + 50.0))
    asked = 0
    while (until := refused(pool, START)) == START:
        asked += 1
    assert until == START + 50.0
    assert 5 <= asked <= 7


def test_a_thousand_excluded_tokens_make_no_scan() -> None:
    pool = make_pool([*(token(f"t{number}", team="x") for number in range(1000)), token("z")])
    until = refused(pool, START, replace(WANT, excluded_teams=frozenset({"x"})))
    assert until == START + 1.0


# Rests


@pytest.mark.parametrize(
    ("outcome", "retry_after", "seconds"),
    [
        (Outcome.UNAUTHORIZED, None, 60.0),
        (Outcome.FORBIDDEN, None, 1800.0),
        (Outcome.THROTTLED, None, 60.0),
        (Outcome.THROTTLED, 30.0, 31.5),  # half of the tenth that a named wait may grow by
        (Outcome.UNPAID, None, 3600.0),
        (Outcome.NOT_GRANTED, None, 86400.0),
        (Outcome.NO_MODEL, None, 3600.0),
        (Outcome.UNEXPLAINED, None, 5.0),
        (Outcome.LOST, None, 5.0),
        (Outcome.CHALLENGED, None, 60.0),
    ],
)
def test_a_rest_ends_to_the_millisecond(outcome: Outcome, retry_after: float | None, seconds: float) -> None:
    pool = make_pool([token("t")])
    settlement = fail(pool, take(pool, START), outcome, START, retry_after)
    assert [row.until for row in settlement.cooldowns] == [START + seconds]
    assert settlement.cooldowns[0].evidence == "evidence"
    assert refused(pool, START + 0.001) == START + seconds
    assert refused(pool, START + seconds - 0.001) == START + seconds
    assert take(pool, START + seconds + 0.001).token_id == "t"


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.GARBLED, Outcome.REJECTED, Outcome.MODERATED])
def test_what_is_nobodys_fault_here_rests_nobody(outcome: Outcome) -> None:
    pool = make_pool([token("t")])
    assert fail(pool, take(pool, START), outcome, START).cooldowns == ()
    take(pool, START)


def test_a_model_rests_alone() -> None:
    pool = make_pool([token("t")])
    fail(pool, take(pool, START), Outcome.THROTTLED, START)
    assert refused(pool, START) == START + 60.0
    assert take(pool, START, Want(("xai",), "grok-image")).token_id == "t"


def test_team_mates_share_a_teams_rest() -> None:
    pool = make_pool([token("a", team="x"), token("b", team="x"), token("c", team="y")])
    fail(pool, take(pool, START), Outcome.UNPAID, START)
    assert take(pool, START).token_id == "c"
    assert refused(pool, START) == START + 3600.0


def test_a_burst_of_failures_is_one_strike() -> None:
    pool = make_pool([token("t", concurrency=10)])
    leases = [take(pool, START) for _ in range(10)]
    verdict = Verdict(Outcome.THROTTLED, Blame.TOKEN, "why")
    for lease in leases:
        (row,) = pool.settle(lease, verdict, exchange(START), START + 1).cooldowns
    assert (row.strikes, row.until) == (1, START + 61.0)


def test_a_second_strike_rests_twice_as_long_and_twenty_successes_take_it_away() -> None:
    pool = make_pool([token("t")])
    fail(pool, take(pool, START), Outcome.THROTTLED, START)
    later = START + 60.0
    fail(pool, take(pool, later), Outcome.THROTTLED, later)
    assert refused(pool, later) == later + 120.0
    healthy = later + 120.0
    changed = [pool.settle(take(pool, healthy), None, exchange(healthy), healthy)]
    lease = Lease(1, "t", "xai", None, MODEL, None, "", healthy)
    changed += [pool.settle(lease, None, exchange(healthy), healthy) for _ in range(19)]
    assert [row.strikes for settlement in changed for row in settlement.cooldowns] == [1]


@pytest.mark.parametrize(
    "subject",
    [
        Subject(SubjectKind.TOKEN, "t"),
        Subject(SubjectKind.TOKEN_MODEL, "t", MODEL),
        Subject(SubjectKind.TEAM, "x"),
        Subject(SubjectKind.TEAM_MODEL, "x", MODEL),
        Subject(SubjectKind.PROXY, "p"),
        Subject(SubjectKind.PROXY_HOST, "p", "xai"),
        Subject(SubjectKind.PAIR, "t", "p"),
    ],
)
@pytest.mark.parametrize("pin", [None, "p"])
def test_healing_makes_dependants_pickable_at_once(subject: Subject, pin: str | None) -> None:
    pool = make_pool([token("t", team="x", proxy_id=pin)], ["p"])
    pool.release(take(pool, START), START)
    pool.rest(Cooldown(subject, START + 500.0, START, 1, Cause.OPERATOR))
    assert refused(pool, START) == START + 500.0
    assert pool.token_view("t", START).status is Status.COOLING
    pool.clear(subject, START)
    assert pool.token_view("t", START).status is Status.READY
    assert take(pool, START).proxy_id == "p"
    assert pool.cooldowns(START) == []


def test_cooldowns_survive_a_restart_and_spent_ones_are_forgotten() -> None:
    pool = make_pool([token("t")])
    settlement = fail(pool, take(pool, START), Outcome.FORBIDDEN, START)
    stale = Cooldown(Subject(SubjectKind.TOKEN, "u"), START - 10_000.0, 0.0, 1, Cause.THROTTLED)
    heir = Pool(Policy(), lambda: 0.5)
    heir.restore([*settlement.cooldowns, stale], START)  # before the tokens, or after them
    heir.put_token(token("t"), START)
    assert refused(heir, START + 1) == START + 1800.0
    assert heir.cooldowns(START) == list(settlement.cooldowns)


def test_a_shorter_rest_told_from_outside_does_not_shorten() -> None:
    pool = make_pool([token("t")])
    pool.rest(rest(SubjectKind.TOKEN, "t", START + 100.0))
    pool.rest(rest(SubjectKind.TOKEN, "t", START + 50.0))
    assert refused(pool, START) == START + 100.0


# Proxies


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


# After a restart, and edits


def test_work_found_after_a_restart_takes_its_slot_even_on_a_full_or_disabled_token() -> None:
    pool = make_pool([token("t", concurrency=1, state=TokenState.DISABLED)], ["p1", "p2"])
    leases = [pool.adopt("t", "p2", MODEL, START) for _ in range(2)]
    assert {lease.proxy_id for lease in leases} == {"p2"}
    view = pool.token_view("t", START)
    assert (view.in_flight, view.status, view.proxy_id) == (2, Status.DISABLED, "p2")
    pool.put_token(token("t"), START)
    assert refused(pool, START) == math.inf
    pool.release(leases[0], START)
    assert refused(pool, START) == math.inf
    pool.release(leases[1], START)
    take(pool, START)
    with pytest.raises(KeyError):
        pool.adopt("unknown", None, MODEL, START)


def test_a_token_disabled_or_dropped_at_work_ends_its_work_and_gets_no_more() -> None:
    pool = make_pool([token("a"), token("b")])
    first, second = take(pool, START), take(pool, START)
    pool.put_token(token(first.token_id, state=TokenState.DISABLED), START)
    pool.drop_token(second.token_id)
    for lease in (first, second):
        pool.settle(lease, Verdict(Outcome.THROTTLED, Blame.TOKEN, "why"), exchange(START), START)
        pool.release(lease, START)
    assert refused(pool, START + 9999.0) is None


def test_more_concurrency_helps_at_once() -> None:
    pool = make_pool([token("t")])
    take(pool, START)
    pool.put_token(token("t", concurrency=2), START)
    take(pool, START)
    assert refused(pool, START) == math.inf


# Doubtful credentials


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


# Views


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


# Properties


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 5))
def test_turns_are_fair(tokens: int, concurrency: int) -> None:
    pool = make_pool(token(f"t{number}", concurrency=concurrency) for number in range(tokens))
    counts: Counter[str] = Counter()
    held: list[Lease] = []
    for step in range(tokens * 6):
        held.append(take(pool, START + step))
        counts[held[-1].token_id] += 1
        if len(held) == tokens // 2 + 1:
            pool.release(held.pop(0), START + step)
    assert max(counts.values()) - min(counts.values()) <= 1


TOKENS = [f"t{number}" for number in range(6)]
PROXIES = ["p1", "p2", "p3"]
TROUBLES = [outcome for outcome in Outcome if outcome not in (Outcome.OK, Outcome.CANCELLED)]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: no promise of the pool is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.pool = make_pool([], PROXIES)
        self.tokens: dict[str, Token] = {}
        self.held: list[Lease] = []
        self.until: dict[Subject, float] = {}
        for name in TOKENS:
            self.put(name, True, 2, None)

    @rule(name=st.sampled_from(TOKENS), enabled=st.booleans(), concurrency=st.integers(1, 3), pin=st.none())
    def put(self, name: str, enabled: bool, concurrency: int, pin: str | None) -> None:
        state = TokenState.ENABLED if enabled else TokenState.DISABLED
        team = "x" if name < "t2" else None
        self.tokens[name] = token(name, state=state, concurrency=concurrency, team=team, proxy_id=pin)
        self.pool.put_token(self.tokens[name], self.now)

    @rule(name=st.sampled_from(TOKENS), pin=st.sampled_from(PROXIES))
    def pin(self, name: str, pin: str) -> None:
        self.put(name, True, 2, pin)

    @rule(name=st.sampled_from(PROXIES), enabled=st.booleans())
    def put_proxy(self, name: str, enabled: bool) -> None:
        self.pool.put_proxy(proxy(name, enabled=enabled), self.now)

    @rule(seconds=st.floats(0.001, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        excluded=st.frozensets(st.sampled_from(TOKENS), max_size=2),
        ways=st.frozensets(st.sampled_from(PROXIES), max_size=2),
        preferred=st.none() | st.sampled_from(TOKENS),
        model=st.sampled_from([MODEL, "grok-image"]),
    )
    def lease(self, excluded: frozenset[str], ways: frozenset[str], preferred: str | None, model: str) -> None:
        want = Want(("xai",), model, None, preferred, excluded, frozenset(ways))
        got = self.pool.lease(want, self.now)
        if isinstance(got, NotNow):
            self.check_refusal(got, want)
            return
        one = self.tokens[got.token_id]
        assert one.state is TokenState.ENABLED
        assert got.token_id not in excluded
        assert got.proxy_id in self.pool.proxies() - ways
        assert one.proxy_id in (None, got.proxy_id)
        assert sum(lease.token_id == got.token_id for lease in self.held) < one.concurrency
        for subject in self.subjects(got):
            assert self.until.get(subject, 0.0) <= self.now
        self.held.append(got)

    def check_refusal(self, got: NotNow, want: Want) -> None:
        """What says "not now" must not hide a token that could serve: asked one by one, each says so too."""
        if got.until is not None and got.until <= self.now:
            return
        for name in set(TOKENS) - want.excluded_tokens:
            alone = self.pool.lease(replace(want, token_id=name, preferred_token=None), self.now)
            assert isinstance(alone, NotNow), (got, alone)

    def subjects(self, lease: Lease) -> list[Subject]:
        way = lease.proxy_id or DIRECT
        own = [
            Subject(SubjectKind.TOKEN, lease.token_id),
            Subject(SubjectKind.TOKEN_MODEL, lease.token_id, lease.model),
            Subject(SubjectKind.PAIR, lease.token_id, way),
            Subject(SubjectKind.PROXY, way),
            Subject(SubjectKind.PROXY_HOST, way, "xai"),
        ]
        team = lease.team or "none"
        return [*own, Subject(SubjectKind.TEAM, team), Subject(SubjectKind.TEAM_MODEL, team, lease.model)]

    @rule(number=st.integers(0, 20), outcome=st.none() | st.sampled_from(TROUBLES), caller=st.sampled_from("abc"))
    def settle(self, number: int, outcome: Outcome | None, caller: str) -> None:
        if not self.held:
            return
        lease = self.held.pop(number % len(self.held))
        verdict = Verdict(outcome, Blame.NOBODY, "why") if outcome else None
        told = Exchange(Step.SUBMIT, f"w{lease.number}", caller, "order", lease.taken_at)
        for row in self.pool.settle(lease, verdict, told, self.now).cooldowns:
            assert row.until >= self.until.get(row.subject, 0.0)
            self.until[row.subject] = row.until
        self.pool.release(lease, self.now)

    @rule()
    def clear_everything(self) -> None:
        for row in self.pool.cooldowns(self.now):
            self.pool.clear(row.subject, self.now)
        self.until.clear()

    @invariant()
    def counts_agree(self) -> None:
        held = Counter(lease.token_id for lease in self.held)
        for name in TOKENS:
            assert self.pool.token_view(name, self.now).in_flight == held[name]


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
