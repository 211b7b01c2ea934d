from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.addresses import DENIED_V4, Reach, Refused, follow, read

WEB = (80, 443)

inside = st.sampled_from(DENIED_V4).flatmap(
    lambda network: st.integers(int(network.network_address), int(network.broadcast_address)).map(IPv4Address)
)
DIGITS = ["0123456789", "０１２３４５６７８９", "⓪①②③④⑤⑥⑦⑧⑨", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⁰¹²³⁴⁵⁶⁷⁸⁹"]
DOTS = [".", "。", "．", "｡"]


def spellings(address: IPv4Address) -> list[str]:
    """Return the ways to write an IPv4 address that some parser somewhere reads as that address."""
    number = int(address)
    a, b, c, d = address.packed
    low = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return [
        *(str(number), hex(number), hex(number).upper(), f"0{number:o}", f"0x1{number:08x}"),
        *(f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}", f"0x{a:x}.0{b:o}.{number & 0xFFFF}"),
        *(f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:04}.{b:03}.{c:05}.{d:03}"),
        *(f"{a + 256}.{b + 256}.{c}.{d}", str(address), f"{address}.", f"%{ord(str(address)[0]):x}{str(address)[1:]}"),
        *(
            f"[::ffff:{low}]",
            f"[::{low}]",
            f"[64:ff9b::{low}]",
            f"[::ffff:0:{low}]",
            f"[2002:{low}::]",
            f"[::ffff:{address}]",
        ),
        *(
            dot.join("".join(digits[int(x)] for x in str(octet)) for octet in (a, b, c, d))
            for digits in DIGITS
            for dot in DOTS
        ),
    ]


def reachable(url: str) -> bool:
    """Return whether anything would be connected to, names aside."""
    try:
        target = read(url, WEB)
    except Refused:
        return False
    return not target.literal or not Reach().denies(target.host)


@given(inside, st.sampled_from(["", ":80", ":443"]))
def test_no_spelling_of_a_denied_address_passes(address: IPv4Address, port: str) -> None:
    assert [spelling for spelling in spellings(address) if reachable(f"http://{spelling}{port}/a.png")] == []


@given(st.text(max_size=60), st.text(max_size=30))
def test_whatever_passes_is_ascii_and_has_a_canonical_host(host: str, rest: str) -> None:
    try:
        target = read(f"http://{host}/{rest}", WEB)
    except Refused:
        return
    assert target.url.isascii()
    assert target.host == target.host.lower()
    assert read(target.url, WEB) == target, "the result passes the gate unchanged"


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "http:///a.png", "http:/a.example/", "//a.example/", "/etc/passwd", "ftp://a.example/",
        "file:///etc/passwd", "data:image/png;base64,AA", "javascript:alert(1)", "http://a.example:0/",
        "http://a.example:22/", "http://a.example:65616/", "http://a.example:8٠/", "http://a.example:/x",
        "http://a.example: 80/", "http://u@a.example/", "http://u:p@a.example/", "http://a.example\\@b.example/",
        "http://a.example%2eevil.example/", "http://127.0.0.1%00.a.example/", "http://a.example/%0d%0aHost:%20b",
        "http://a.example/\r\nHost: b", "http://a.example/a b", "http://a.example/\t", "http://a.example/\x00",
        "http://a.example/`", "http://a.example/<x>",
        "http://./", "http://../", "http://a..example/", "http://a.example./", "http://-a.example/",
        "http://a-.example/", "http://a_b.example/", "http://foo.127.0.0.0x1/", "http://1.2.3.4.5/", "http://[::1",
        "http://[::1]x/",
        "http://[2606:2800:21f:0:0:0:0:1]/",
        "http://[fe80::1%25eth0]/", "http://[v1.x]/", "http://xn--/", "http://例\ud800.example/",
        "http://a.example／@127.0.0.1/", "http://ex＃.example/",
        "http://" + "a" * 64 + ".example/", "http://" + "a." * 130 + "example/", "http://a.example/" + "x" * 2048,
        "http://a.example/" + "图" * 700,
    ],
)  # fmt: skip
def test_what_the_gate_refuses(url: str) -> None:
    with pytest.raises(Refused):
        read(url, WEB)


@pytest.mark.parametrize(
    ("url", "read_as"),
    [
        ("http://img.example.com", "http://img.example.com:80/"),
        ("HTTPS://IMG.Example.COM/A.png#top", "https://img.example.com:443/A.png"),
        ("https://a.example:443/a%20b.png?u=http://127.0.0.1/&x=[1]", "https://a.example:443/a%20b.png?u=http://127.0.0.1/&x=[1]"),
        ("https://a.example/图片.png", "https://a.example:443/%E5%9B%BE%E7%89%87.png"),
        ("https://例子.测试/", "https://xn--fsqu00a.xn--0zwm56d:443/"),
        ("http://127.0.0.1.a.example/", "http://127.0.0.1.a.example:80/"),
        ("http://93.184.215.14/x", "http://93.184.215.14:80/x"),
        ("http://[2606:2800:21f::1]/", "http://[2606:2800:21f::1]:80/"),
        ("http://a.example?x", "http://a.example:80/?x"),
        ("http://images/x", "http://images:80/x"),
        ("http://ⓛoc\u200balhost/", "http://localhost:80/"),
    ],
)  # fmt: skip
def test_what_the_gate_lets_through(url: str, read_as: str) -> None:
    target = read(url, WEB)
    assert target.url == read_as
    assert not target.literal or not Reach().denies(target.host)


@pytest.mark.parametrize("text", [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.9", "224.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:10::1", "2001:db8::1",
    "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    "2620:4f:8000::1", "2606:2800::1%eth0", "fe80::1%1", "localhost", "",
])  # fmt: skip
def test_denied_addresses(text: str) -> None:
    assert Reach().denies(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "172.15.255.255", "172.32.0.0", "100.128.0.0", "2606:2800:21f::1", "2001:4860::8888"]
)
def test_public_addresses(text: str) -> None:
    assert not Reach().denies(text)


def test_own_addresses_are_denied_and_allowed_networks_are_not() -> None:
    reach = Reach((ip_network("127.0.0.8/32"),), frozenset({IPv4Address("8.8.8.8"), IPv6Address("2606:2800::1")}))
    assert reach.denies("8.8.8.8")
    assert reach.denies("2606:2800::1")
    assert reach.denies("127.0.0.1")
    assert not reach.denies("127.0.0.8")
    assert Reach((IPv4Network("127.0.0.0/8"),)).denies("::ffff:127.0.0.1"), "another network than the one allowed"


def test_a_redirect_is_judged_like_a_url_of_the_clients() -> None:
    start = read("https://a.example/x/y.png", WEB)
    assert follow(start, "../z.png", WEB).url == "https://a.example:443/z.png"
    assert follow(start, "//b.example/z", WEB).host == "b.example"
    assert follow(start, "/图.png", WEB).url == "https://a.example:443/%E5%9B%BE.png"
    for location in (
        "http://a.example/",
        "\\\\127.0.0.1\\",
        "https://a.example:22/",
        "ht\ttps://b.example",
        "file:///x",
        "https://[::1",
    ):
        with pytest.raises(Refused):
            follow(start, location, WEB)
