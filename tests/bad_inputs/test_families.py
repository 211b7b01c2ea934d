"""The corpus's cases are samples of families. Here hypothesis draws others of the same, against the same gateway."""

import json
import re
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.bad_inputs.drawing import (
    BITS,
    JSON,
    MARK,
    METHODS,
    NAMES,
    PIECES,
    ROOMS,
    URL_SAFE,
    VALUES,
    WORDS,
    drawn,
    edited,
)
from tests.bad_inputs.image_host import ADDRESS
from tests.bad_inputs.running import GENERATIONS, Answer, Running, parse
from tests.domain.test_addresses import inside, spellings

BODY = '{"image_url":"data:image/png;base64,AAAA","prompt":"x"}'  # an order, but for its image
TARGETS = ["GET /v1/videos/x", "GET /healthz", "GET /admin/keys", "GET /nothing", f"POST {GENERATIONS}"]


def is_polite(answer: Answer) -> None:
    """The envelope, or one of the two bodies of the API document; never a failure of ours, never an echo."""
    assert answer.status < 500
    assert (answer.header("x-request-id") or "").startswith("req_")
    assert MARK.encode() not in answer.body
    if answer.status >= 400 and answer.body:
        assert set(answer.json) in ({"error"}, {"detail"})


def request(running: Running, line: str, *headers: bytes, body: bytes = b"") -> Answer:
    """Send one request, its parts as they stand."""
    start = [f"{line} HTTP/1.1".encode(), b"Host: " + running.base.encode(), b"Connection: close"]
    return parse(running.say(b"\r\n".join([*start, *headers]) + b"\r\n\r\n" + body))


def bearer(running: Running, key: str = "KEY_A") -> bytes:
    return f"Authorization: Bearer {running.ctx[key]}".encode()


class TestKeys:
    @drawn
    @given(data=st.data(), scheme=st.sampled_from(["Authorization: Bearer ", "x-api-key: "]))
    def test_no_near_miss_of_a_key_opens_anything(self, running: Running, data: st.DataObject, scheme: str) -> None:
        any_byte = st.characters(min_codepoint=0x21, max_codepoint=0xFF)
        for key, path in (("KEY_A", "/v1/videos/x"), ("ADMIN_TOKEN", "/admin/keys")):
            secret = data.draw(edited(running.ctx[key], any_byte))
            answer = request(running, f"GET {path}", (scheme + secret).encode("latin-1"))
            assert answer.status in (400, 401)  # 400 where it is not even a header
            is_polite(answer)

    @drawn
    @given(secret=st.binary(max_size=600).filter(lambda secret: not re.search(rb"[\x00-\x1f\x7f]", secret)))
    def test_no_bytes_at_random_do_either(self, running: Running, secret: bytes) -> None:
        assert request(running, "GET /v1/videos/x", b"Authorization: Bearer " + secret).status == 401
        assert request(running, "GET /admin/keys", b"x-api-key: " + secret).status == 401

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize(
        "path", ["/admin/keys", "/admin/tokens/import", "/admin/nothing", "/v1/nothing", "/v1/videos/x"]
    )
    def test_what_is_there_is_not_told_to_strangers(self, running: Running, method: str, path: str) -> None:
        keys = (None, "KEY_REVOKED", "KEY_EXPIRED", "UPSTREAM_TOKEN", *(["KEY_A"] if "admin" in path else []))
        assert {running.ask(method, path, key=key).status for key in keys} == {401}


class TestLinks:
    @drawn
    @given(data=st.data())
    def test_no_near_miss_of_a_signed_link_opens_a_file(self, running: Running, data: st.DataObject) -> None:
        """A number with a nought before it is the same number."""
        parts = re.split(r"([?&=/.])", running.ctx["SIGNED_A"])
        at = data.draw(st.sampled_from([at for at, part in enumerate(parts) if re.fullmatch(r"[\w-]+", part)]))
        other = data.draw(edited(parts[at], st.text(URL_SAFE, min_size=1, max_size=3)))
        assume(other.lstrip("0") != parts[at])
        answer = running.ask("GET", "".join([*parts[:at], other, *parts[at + 1 :]]), key=None)
        assert answer.status in (400, 403, 404)
        is_polite(answer)

    def test_the_link_itself_does(self, running: Running) -> None:
        assert running.ask("GET", running.ctx["SIGNED_A"], key=None).status == 200


class TestPaths:
    @drawn
    @given(st.sampled_from(METHODS), st.sampled_from(ROOMS), st.lists(st.sampled_from(PIECES), min_size=1, max_size=5))
    def test_no_path_leads_astray(self, running: Running, method: str, room: str, pieces: list[str]) -> None:
        key = "ADMIN_TOKEN" if room.startswith("/admin") else "KEY_A"
        answer = request(running, f"{method} {room}{''.join(pieces)}", bearer(running, key))
        assert answer.status >= 400
        is_polite(answer)


class TestHeaders:
    @drawn
    @given(
        target=st.sampled_from([*TARGETS, ""]),
        name=st.sampled_from(NAMES),
        value=st.lists(st.sampled_from(VALUES).map(str.encode) | st.binary(min_size=1, max_size=3), max_size=6),
    )
    def test_no_header_breaks_anything(self, running: Running, target: str, name: str, value: list[bytes]) -> None:
        assume(not re.search(rb"[\x00\r\n]", b"".join(value)))
        sent = [
            name.encode() + b": " + b"".join(value),
            bearer(running, "ADMIN_TOKEN" if "admin" in target else "KEY_A"),
        ]
        body = BODY.encode() if target.startswith("POST") else b""
        if body:
            sent += [b"Content-Length: %d" % len(body), *[b"Content-Type: application/json"] * (name != "Content-Type")]
        answer = request(running, target or f"GET {running.ctx['SIGNED_A']}", *sent, body=body)
        assert answer.status < 500
        if target:  # the file itself has no envelope
            is_polite(answer)

    @pytest.mark.parametrize("encodings", ["gzip", "GZIP", "br", "zstd", "deflate, gzip", "identity, gzip", "x", ""])
    def test_an_encoded_body_is_refused_whatever_else_is_said_of_it(self, running: Running, encodings: str) -> None:
        sent = [b"Content-Type: application/json", b"Content-Length: 2", bearer(running)]
        twice = [b"Content-Encoding: identity", b"Content-Encoding: " + encodings.encode()]
        for more in (twice, twice[1:]):
            assert request(running, f"POST {GENERATIONS}", *sent, *more, body=b"{}").status == 415


class TestBrokenRequests:
    @drawn
    @given(data=st.data())
    def test_whatever_comes_is_answered_or_closed(self, running: Running, data: st.DataObject) -> None:
        head = [f"POST {GENERATIONS} HTTP/1.1", f"Host: {MARK}", "Connection: close", f"Content-Length: {len(BODY)}"]
        whole = "\r\n".join([*head, "", BODY])
        for _ in range(data.draw(st.integers(1, 3))):
            before, blank, body = whole.partition("\r\n\r\n")
            if not before:
                break  # an edit has put the end of the head first: nothing is left to edit
            whole = data.draw(edited(before, st.sampled_from(BITS))) + blank + body
        answer = running.say(whole.encode("latin-1") + bytes(len(BODY)))  # so that no body is waited for
        assert not re.search(rb"^HTTP/1\.[01] 5(?!01)", answer)
        assert MARK.encode() not in answer

    @pytest.mark.parametrize("connection", ["close", "keep-alive"])
    def test_a_body_whose_end_is_not_agreed_upon_is_not_read(self, running: Running, connection: str) -> None:
        """HTTP/1.0 has no chunks: a proxy of that age takes them for the next request."""
        head = [f"POST {GENERATIONS} HTTP/1.0", f"Connection: {connection}", "Transfer-Encoding: chunked"]
        chunks = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n"
        answer = running.say("\r\n".join([*head, "Content-Type: application/json", "", chunks]).encode())
        assert answer.count(b"HTTP/1.") == 1
        assert parse(answer).code == "bad_request"

    @pytest.mark.parametrize("expected", [MARK, "100-continue, " + MARK, "\udcff", "", "200-ok"])
    @pytest.mark.parametrize("target", TARGETS)
    def test_what_nobody_can_expect_is_refused(self, running: Running, target: str, expected: str) -> None:
        answer = request(running, target, b"Expect: " + expected.encode("utf-8", "surrogateescape"), bearer(running))
        assert answer.status == 417
        is_polite(answer)


class TestBodies:
    @drawn
    @given(body=st.dictionaries(WORDS, JSON, max_size=7) | JSON)
    def test_no_json_breaks_anything(self, running: Running, body: Any) -> None:
        answer = running.ask("POST", GENERATIONS, body=json.dumps(body).encode())
        assert answer.status == 400
        is_polite(answer)
        for mistake in answer.json.get("detail", []):
            assert not isinstance(mistake["input"], str) or len(mistake["input"]) <= 100

    @drawn
    @given(body=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f'{{"prompt": "{text}"'.encode()))
    def test_neither_does_what_is_none(self, running: Running, body: bytes) -> None:
        answer = running.ask("POST", GENERATIONS, body=body)
        assert answer.status == 400
        is_polite(answer)


class TestAddresses:
    """Each spelling of an address inside, by each way it can come: the URL, a redirect, an answer of the DNS."""

    @drawn
    @given(address=inside.filter(lambda address: str(address) != ADDRESS), data=st.data())
    def test_no_spelling_of_a_denied_address_is_reached(
        self, running: Running, address: IPv4Address, data: st.DataObject
    ) -> None:
        spelling = data.draw(st.sampled_from(spellings(address)))
        status = data.draw(st.sampled_from([301, 302, 303, 307, 308]))
        redirect = {"path": "/r", "status": status, "headers": {"Location": f"http://{spelling}/"}}
        running.fixture(dns={"in.fx.test": [[ADDRESS, str(address)]]}, http=[redirect])
        for url in (f"http://{spelling}/a.png", f"http://{running.ctx['FX']}/r", "http://in.fx.test/a.png"):
            answer = running.generate(url)
            assert (answer.status, answer.code) == (400, "invalid_image_url")
        assert {call.partition(":")[0] for call in running.connects()} <= {ADDRESS}
