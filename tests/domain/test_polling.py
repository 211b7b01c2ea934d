"""Looks at a running generation come where its end is likely."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.polling import FEW, Durations, Pace, next_look

PACE = Pace(shortest=0.5, longest=10.0)


def looks(duration: float, shortest: float | None, *, reports: bool) -> list[float]:
    """Return the moments of the looks until the end of a generation is seen."""
    moments, now, progress = [0.0], 0.0, 0
    while now < duration:
        now += next_look(now, progress, shortest, PACE)
        progress = int(100 * now / duration) if reports else 0
        moments.append(now)
    return moments[1:]


@given(st.floats(5, 300, allow_nan=False), st.booleans())
def test_a_reported_progress_finds_the_end_soon_and_with_few_looks(duration: float, known: bool) -> None:
    moments = looks(duration, duration * 0.9 if known else None, reports=True)
    assert moments[-1] - duration <= PACE.shortest + 0.02 * duration
    assert len(moments) <= 50


@given(st.floats(1, 300, allow_nan=False))
def test_without_a_progress_the_looks_grow_with_the_age(duration: float) -> None:
    moments = looks(duration, None, reports=False)
    assert moments[-1] - duration <= max(PACE.shortest, duration / 10) + 0.01


@given(st.floats(0, 1000), st.integers(0, 100) | st.none(), st.floats(0.1, 500) | st.none())
def test_a_look_is_never_sooner_than_the_shortest_pace(
    elapsed: float, progress: int | None, shortest: float | None
) -> None:
    assert next_look(elapsed, progress, shortest, PACE) >= PACE.shortest


def test_the_first_look_comes_before_the_shortest_known_duration() -> None:
    assert next_look(0.0, None, 40.0, PACE) == 20.0


def test_durations_say_nothing_before_a_few_are_known() -> None:
    durations = Durations()
    for seconds in range(1, FEW):
        durations.learn(float(seconds))
    assert durations.shortest() is None
    durations.learn(0.5)
    assert durations.shortest() == 0.5
    assert durations.mean() == 2.1
