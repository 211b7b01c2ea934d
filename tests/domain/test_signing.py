"""Signed links: what is changed, late or foreign does not open."""

from dataclasses import replace

import pytest

from proxy.domain.signing import MAX_LIFETIME, Link, is_signed, key_id, read_expiry, sign

KEY = b"k" * 32
NOW = 1_000_000.0
LINK = Link("file_1", "tenant_1", int(NOW) + 60)


def test_a_signed_link_is_valid_until_it_expires() -> None:
    signature = sign(KEY, LINK)
    assert is_signed(KEY, LINK, signature, NOW)
    assert is_signed(KEY, LINK, signature, LINK.expires - 0.001)
    assert not is_signed(KEY, LINK, signature, float(LINK.expires))


@pytest.mark.parametrize(
    "other",
    [replace(LINK, file_id="file_2"), replace(LINK, tenant_id="tenant_2"), replace(LINK, expires=LINK.expires + 1)],
    ids=["file", "tenant", "expiry"],
)
def test_a_signature_stands_for_one_link_alone(other: Link) -> None:
    assert not is_signed(KEY, other, sign(KEY, LINK), NOW)
    assert not is_signed(b"o" * 32, LINK, sign(KEY, LINK), NOW)


def test_no_link_is_valid_for_longer_than_a_day() -> None:
    far = replace(LINK, expires=int(NOW + MAX_LIFETIME) + 1)
    assert not is_signed(KEY, far, sign(KEY, far), NOW)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e9", " 1", "１２", "9" * 13, "1.0"])
def test_an_expiry_is_a_plain_number(text: str) -> None:
    assert read_expiry(text) is None


def test_a_signature_of_another_alphabet_is_no_crash() -> None:
    assert not is_signed(KEY, LINK, "é", NOW)
    assert key_id(KEY) != key_id(b"o" * 32)
