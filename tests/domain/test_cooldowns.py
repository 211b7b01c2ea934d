from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.cooldowns import (
    Cause,
    Cooldown,
    Fixed,
    Ladder,
    Penalty,
    Policy,
    Rest,
    Subject,
    SubjectKind,
    Told,
    is_repeated,
    is_spent,
    settle,
    strikes_left,
    succeed,
)

POLICY = Policy()
TOKEN = Subject(SubjectKind.TOKEN, "t")
LADDER = Ladder(60.0, 1800.0)
MIDDLE = 0.5  # a jitter that changes nothing on a ladder


def penalise(
    row: Cooldown | None, rest: Rest, now: float, *, began_at: float | None = None, jitter: float = MIDDLE
) -> Cooldown:
    penalty = Penalty(TOKEN, rest, Cause.THROTTLED, "429", "a1")
    return settle(row, penalty, began_at=now if began_at is None else began_at, now=now, jitter=jitter, policy=POLICY)


def test_a_ladder_doubles_with_every_strike_up_to_its_ceiling() -> None:
    row = None
    lengths = []
    for _ in range(7):
        now = row.until if row else 0.0
        row = penalise(row, LADDER, now)
        lengths.append(row.until - now)
    assert lengths == [60.0, 120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0]
    assert row is not None
    assert row.strikes == 7


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 48.0), (0.5, 60.0), (0.999999, 72.0)])
def test_a_ladders_jitter_is_a_fifth_either_way(jitter: float, seconds: float) -> None:
    assert penalise(None, LADDER, 0.0, jitter=jitter).until == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 30.0), (0.999999, 33.0)])
def test_a_wait_the_upstream_named_is_never_shortened(jitter: float, seconds: float) -> None:
    row = penalise(None, Told(30.0), 0.0, jitter=jitter)
    assert row.until == pytest.approx(seconds, abs=0.001)
    assert row.strikes == 0


def test_a_fixed_rest_is_exact_and_no_strike() -> None:
    row = penalise(None, Fixed(5.0), 100.0, jitter=0.9)
    assert row == Cooldown(TOKEN, 105.0, 100.0, 0, Cause.THROTTLED, "429", "a1")


def test_a_longer_rest_is_not_cut_short_by_a_later_shorter_one() -> None:
    long = penalise(None, Fixed(100.0), 0.0)
    assert penalise(long, Fixed(5.0), 10.0) == long
    assert penalise(long, Fixed(95.0), 10.0).until == 105.0


def test_failures_that_began_before_the_rest_was_over_are_one_strike() -> None:
    row = penalise(None, LADDER, 10.0, began_at=1.0)
    for moment in (10.1, 10.2, 30.0, 69.9):
        row = penalise(row, LADDER, moment, began_at=5.0)
    assert row.strikes == 1
    assert row.until == pytest.approx(69.9 + 60.0)
    assert penalise(row, LADDER, row.until + 1, began_at=row.until).strikes == 2


@pytest.mark.parametrize(("after", "left"), [(599.999, 3), (600.0, 2), (1199.999, 2), (1200.0, 1), (1800.0, 0)])
def test_ten_minutes_of_health_take_a_strike_away(after: float, left: int) -> None:
    row = Cooldown(TOKEN, 1000.0, 0.0, 3, Cause.THROTTLED)
    assert strikes_left(row, 1000.0 + after, POLICY) == left
    assert is_spent(row, 1000.0 + after, POLICY) is (left == 0)


def test_twenty_successes_take_a_strike_away_and_those_during_the_rest_do_not_count() -> None:
    row = Cooldown(TOKEN, 1000.0, 0.0, 2, Cause.THROTTLED)
    for _ in range(50):
        row = succeed(row, 999.999, POLICY)
    assert row.strikes == 2
    for _ in range(19):
        row = succeed(row, 1000.0, POLICY)
    assert row.strikes == 2
    row = succeed(row, 1000.0, POLICY)
    assert (row.strikes, row.successes, row.until) == (1, 0, 1000.0)


def test_a_rest_is_spent_at_its_end_and_not_a_millisecond_before() -> None:
    row = Cooldown(TOKEN, 1000.0, 0.0, 0, Cause.LOST)
    assert not is_spent(row, 999.999, POLICY)
    assert is_spent(row, 1000.0, POLICY)


def test_a_failure_is_repeated_only_after_a_full_rest_for_the_same_cause() -> None:
    row = Cooldown(TOKEN, 1000.0, 0.0, 1, Cause.FORBIDDEN)
    assert is_repeated(row, Cause.FORBIDDEN, 1000.0, 1001.0, POLICY)
    assert not is_repeated(row, Cause.FORBIDDEN, 999.999, 1001.0, POLICY)
    assert not is_repeated(replace(row, cause=Cause.UNPAID), Cause.FORBIDDEN, 1000.0, 1001.0, POLICY)
    assert not is_repeated(row, Cause.FORBIDDEN, 1700.0, 1700.0, POLICY)
    assert not is_repeated(None, Cause.FORBIDDEN, 1000.0, 1001.0, POLICY)


RESTS = st.one_of(
    st.builds(Ladder, st.floats(1, 4000), st.just(1800.0)),
    st.builds(Told, st.floats(1, 21600)),
    st.builds(Fixed, st.floats(0, 86400)),
)
STEPS = st.lists(st.tuples(RESTS, st.floats(0, 2000), st.floats(0, 300), st.floats(0, 0.999)), max_size=30)


@given(STEPS)
def test_until_never_moves_back_and_no_rest_is_longer_than_its_ceiling(
    steps: list[tuple[Rest, float, float, float]],
) -> None:
    row, now = None, 0.0
    for rest, passed, took, jitter in steps:
        now += passed
        after = penalise(row, rest, now, began_at=now - took, jitter=jitter)
        assert row is None or after.until >= row.until
        if row is None or after.until > row.until:
            ceiling = 1800.0 * 1.2 if isinstance(rest, Ladder) else rest.seconds * 1.1
            assert after.until - now <= ceiling + 1e-6
            assert after.since == now
        row = succeed(after, now, POLICY)
        assert row.until == after.until
