"""JSON is read strictly."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import BodyMemoryFull, InvalidJson
from proxy.web.bodies import MAX_DEPTH, BodyMemory, json_object


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_64_levels_are_read_and_65_are_not() -> None:
    json_object(nested(MAX_DEPTH))
    with pytest.raises(InvalidJson):
        json_object(nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidJson):
        json_object(b'{"a":' * 70 + b"1" + b"}" * 70)


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert json_object(b"[" + b",".join([b"[]"] * 500) + b"]") == [[]] * 500


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b'"\xed\xa0\x80"', b'"\\ud800"', b"{'a':1}", b"[1,]", b"\xef\xbb\xbf{}",
     b'{"a":1} x', nested(100_000)],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        json_object(body)


def test_of_duplicate_names_the_last_counts() -> None:
    assert json_object(b'{"a":1,"a":2}') == {"a": 2}


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert json_object(orjson.dumps(value)) == value


def test_the_bytes_of_all_bodies_are_bounded() -> None:
    memory = BodyMemory(100)
    memory.take(60)
    with pytest.raises(BodyMemoryFull):
        memory.take(41)
    memory.give_back(60)
    memory.take(100)
