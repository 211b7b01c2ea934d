"""The format of client keys."""

import os

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.keys import BASE62, Key, KeyLimits, KeySecret, is_well_formed, make_secret


@given(st.binary(min_size=32, max_size=32))
def test_a_made_secret_is_well_formed(entropy: bytes) -> None:
    secret = make_secret(entropy)
    assert len(secret) == 3 + 32 + 6
    assert is_well_formed(secret)


@given(st.integers(3, 40), st.sampled_from(BASE62))
def test_a_mistyped_character_is_noticed_without_a_look_up(position: int, character: str) -> None:
    secret = make_secret(b"\x07" * 32)
    mistyped = secret[:position] + character + secret[position + 1 :]
    assert is_well_formed(mistyped) == (mistyped == secret)


def test_other_shapes_are_not_ours() -> None:
    secret = make_secret(os.urandom(32))
    for wrong in (
        "",
        "gp_",
        "sk-" + secret[3:],
        secret + "a",
        secret[:-1],
        secret.upper(),
        secret + "\n",
        "gp_" + "é" * 38,
    ):
        assert not is_well_formed(wrong)


def test_two_secrets_differ() -> None:
    assert len({make_secret(os.urandom(32)) for _ in range(1000)}) == 1000


def test_a_key_is_valid_until_its_expiry_and_never_after_its_revocation() -> None:
    key = Key("key_1", "default", "k", KeyLimits(), created_at=0.0, expires_at=10.0)
    assert key.is_valid(9.999)
    assert not key.is_valid(10.0)
    assert not Key("key_1", "default", "k", KeyLimits(), created_at=0.0, revoked_at=1.0).is_valid(5.0)
    secret = KeySecret(b"", "key_1", "gp1", "gp_", created_at=0.0, expires_at=10.0)
    assert (secret.is_valid(9.999), secret.is_valid(10.0)) == (True, False)
