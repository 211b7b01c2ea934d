"""Ids sort by the moment they were made and cannot be guessed."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.ids import make_id

MOMENTS = st.floats(0, 4_000_000_000, allow_nan=False)
ENTROPY = st.binary(min_size=16, max_size=16)


@given(MOMENTS, MOMENTS, ENTROPY, ENTROPY)
def test_ids_sort_by_their_moments(earlier: float, later: float, one: bytes, other: bytes) -> None:
    if int(earlier * 1000) > int(later * 1000):
        earlier, later = later, earlier
    if int(earlier * 1000) < int(later * 1000):
        assert make_id("video-", earlier, one) < make_id("video-", later, other)


@given(MOMENTS, ENTROPY, ENTROPY)
def test_all_128_random_bits_are_in_the_id(now: float, one: bytes, other: bytes) -> None:
    assert (make_id("x", now, one) == make_id("x", now, other)) == (one == other)


def test_an_id_fits_its_column_and_a_url() -> None:
    made = make_id("video-", 4_000_000_000.0, b"\xff" * 16)
    assert len(made) <= 64
    assert made.removeprefix("video-").isalnum()
