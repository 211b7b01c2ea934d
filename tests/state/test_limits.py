"""The limits of a key, decided together."""

import pytest

from proxy.domain.errors import RateLimited, TooManyConcurrent
from proxy.domain.keys import Key, KeyLimits
from proxy.state.limits import Limits


def key(requests_per_minute: int | None = 3, concurrency: int | None = 2) -> Key:
    return Key("key_1", "default", "k", KeyLimits(requests_per_minute, concurrency), created_at=0.0)


def test_a_refused_request_consumes_nothing() -> None:
    limits = Limits()
    limits.admit(key(), "a", 0.0, 1.0)
    limits.admit(key(), "b", 1.0, 1.0)
    for _ in range(5):
        with pytest.raises(TooManyConcurrent) as refused:
            limits.admit(key(), "c", 2.0, 7.0)
        assert refused.value.retry_after == 7.0
    limits.release("key_1", "a")
    limits.admit(key(), "c", 3.0, 1.0)  # the third of three in this minute: the refusals took none
    limits.release("key_1", "b")
    with pytest.raises(RateLimited) as spent:
        limits.admit(key(), "d", 4.0, 1.0)
    assert spent.value.retry_after == 56.0
    limits.admit(key(), "d", 60.0, 1.0)


def test_a_slot_is_given_back_once() -> None:
    limits = Limits()
    limits.admit(key(concurrency=1), "a", 0.0, 1.0)
    limits.release("key_1", "a")
    limits.release("key_1", "a")
    limits.admit(key(concurrency=1), "b", 0.0, 1.0)
    with pytest.raises(TooManyConcurrent):
        limits.admit(key(concurrency=1), "c", 0.0, 1.0)


def test_a_key_without_limits_has_none() -> None:
    limits = Limits()
    for number in range(1000):
        limits.admit(key(None, None), str(number), 0.0, 1.0)
    assert limits.standing(key(None, None), 0.0) is None


def test_what_was_live_is_rebuilt_from_rows() -> None:
    limits = Limits()
    limits.restore([("key_1", 10.0), ("key_1", 20.0)], [("key_1", "a"), ("key_1", "b")])
    standing = limits.standing(key(), 30.0)
    assert standing is not None
    assert (standing.remaining, standing.reset) == (1, 40.0)
    with pytest.raises(TooManyConcurrent):
        limits.admit(key(), "c", 30.0, 1.0)
