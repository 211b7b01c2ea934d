"""N per minute admits N in any 60 s, no more."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.limits import standing, wait_for_room


@given(st.integers(1, 8), st.lists(st.floats(0, 20, allow_nan=False), max_size=80))
def test_no_window_of_60_seconds_ever_holds_more_than_the_limit(limit: int, gaps: list[float]) -> None:
    taken: deque[float] = deque()
    admitted: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap
        if wait_for_room(taken, limit, now) == 0:
            taken.append(now)
            admitted.append(now)
    for moment in admitted:
        assert sum(moment <= other < moment + 60 for other in admitted) <= limit


@given(st.integers(1, 8), st.lists(st.floats(0, 20, allow_nan=False), max_size=40))
def test_the_wait_that_is_told_is_exact(limit: int, gaps: list[float]) -> None:
    taken: deque[float] = deque()
    now = 1000.0
    for gap in gaps:
        now += gap
        wait = wait_for_room(taken, limit, now)
        if wait == 0:
            taken.append(now)
        else:
            assert 0 < wait <= 60
            assert wait_for_room(taken.copy(), limit, now + wait - 0.001) > 0
            assert wait_for_room(taken.copy(), limit, now + wait + 0.001) == 0


def test_a_limit_of_nothing_admits_nothing() -> None:
    assert wait_for_room(deque(), 0, 5.0) == 60.0


def test_the_standing_counts_down_and_names_the_next_release() -> None:
    taken = deque([100.0, 130.0])
    assert standing(taken, 3, 140.0).remaining == 1
    assert standing(taken, 3, 140.0).reset == 20.0
    assert standing(deque(), 3, 140.0).reset == 0.0
