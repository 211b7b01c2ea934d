"""Secrets at rest: bound to their row, opened by the right key only."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.storage.seal import Place, Sealer, Unsealable, decode_keys, encode_key

KEY, OTHER = b"k" * 32, b"o" * 32
HERE = Place("tokens", "tok_1", "secret")


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([KEY], os.urandom)


def test_what_is_sealed_opens_again_and_is_not_readable_meanwhile(sealer: Sealer) -> None:
    sealed = sealer.seal("xai-canary", HERE)
    assert b"canary" not in sealed
    assert sealer.open(sealed, HERE).reveal() == "xai-canary"
    assert "canary" not in repr(sealer.open(sealed, HERE))


ELSEWHERE = [
    Place("tokens", "tok_2", "secret"),
    Place("proxies", "tok_1", "secret"),
    Place("tokens", "tok_1", "url"),
    Place("tokens\0tok_1", "secret", ""),
]


@pytest.mark.parametrize("place", ELSEWHERE, ids=repr)
def test_a_value_moved_to_another_place_does_not_open(sealer: Sealer, place: Place) -> None:
    with pytest.raises(Unsealable):
        sealer.open(sealer.seal("secret", HERE), place)


@given(position=st.integers(0, 4 + 12 + 6 + 16 - 1), bit=st.integers(0, 7))
def test_any_bit_flipped_is_noticed(position: int, bit: int) -> None:
    sealer = Sealer([KEY], os.urandom)
    sealed = bytearray(sealer.seal("secret", HERE))
    sealed[position] ^= 1 << bit
    with pytest.raises(Unsealable):
        sealer.open(bytes(sealed), HERE)


def test_an_older_key_still_opens_and_is_known_to_be_old(sealer: Sealer) -> None:
    sealed = sealer.seal("secret", HERE)
    rotated = Sealer([OTHER, KEY], os.urandom)
    assert rotated.open(sealed, HERE).reveal() == "secret"
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal("secret", HERE))


def test_without_its_key_a_value_is_refused_by_the_keys_name(sealer: Sealer) -> None:
    with pytest.raises(Unsealable, match="which is not given"):
        Sealer([OTHER], os.urandom).open(sealer.seal("secret", HERE), HERE)


def test_a_nonce_is_never_used_twice(sealer: Sealer) -> None:
    nonces = {sealer.seal("secret", HERE)[4:16] for _ in range(10_000)}
    assert len(nonces) == 10_000


def test_master_keys_are_read_strictly() -> None:
    assert decode_keys(encode_key(KEY) + "\n" + encode_key(OTHER)) == [KEY, OTHER]
    for wrong in ("", "short", "!" * 44, encode_key(b"k" * 31)):
        with pytest.raises(ValueError, match="32 bytes"):
            decode_keys(wrong)
