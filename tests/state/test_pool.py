"""Who is picked, and who rests how long."""

import math
from dataclasses import replace

import pytest

from proxy.domain.cooldowns import Cause, Cooldown, Policy, Subject, SubjectKind
from proxy.domain.outcomes import Blame, Outcome, Verdict
from proxy.domain.tokens import Token, TokenState
from proxy.state.leases import Lease, Status, Want
from proxy.state.pool import Pool
from tests.state.pools import MODEL, START, WANT, exchange, fail, make_pool, refused, rest, take, token

# Selection


def test_tokens_take_turns_the_one_idle_longest_first() -> None:
    pool = make_pool(token(f"t{number}") for number in range(3))
    order = []
    for step in range(9):
        lease = take(pool, START + step)
        order.append(lease.token_id)
        pool.release(lease, START + step + 0.5)
    assert order == ["t0", "t1", "t2"] * 3


@pytest.mark.parametrize("model", [MODEL, "grok-image"])
def test_idle_counts_from_the_end_of_the_last_work_of_any_model(model: str) -> None:
    pool = make_pool([token("long"), token("short")])
    long = take(pool, START)
    short = take(pool, START + 1)
    pool.release(short, START + 2)
    pool.release(long, START + 60)
    assert take(pool, START + 61, replace(WANT, model=model)).token_id == "short"


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
