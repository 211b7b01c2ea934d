"""Proxy URLs: read, and shown without their password."""

import pytest

from proxy.domain.proxies import InvalidProxy, parse


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("socks5h://user:pass@proxy.example:1080", "socks5h://user:•••@proxy.example:1080"),
        ("SOCKS4://10.0.0.1", "socks4://10.0.0.1:1080"),
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://user@[2001:db8::1]:8443/", "https://user@[2001:db8::1]:8443"),
        ("socks5://us%40er:p%3Ass@proxy.example:9", "socks5://us@er:•••@proxy.example:9"),
    ],
)
def test_a_url_is_read_and_masked(url: str, masked: str) -> None:
    assert parse(url).masked() == masked


def test_credentials_are_decoded_and_the_password_shows_nowhere() -> None:
    address = parse("socks5://us%40er:ca%3Anary@proxy.example:9")
    assert address.username == "us@er"
    assert address.password is not None
    assert address.password.reveal() == "ca:nary"
    assert "nary" not in repr(address) + str(address) + address.masked()


@pytest.mark.parametrize(
    "url",
    ["", "proxy.example:1080", "ftp://proxy.example", "socks5://", "socks5://:1080", "http://a:99999", "http://a/path",
     "http://a?q", "http://ca nary", "http://a:0", "http://[::1"],
)  # fmt: skip
def test_what_is_no_proxy_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidProxy) as refused:
        parse(url)
    assert "nary" not in str(refused.value)
