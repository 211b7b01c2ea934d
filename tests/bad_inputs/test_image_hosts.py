"""What a client names as its image may be no image host at all, or a hostile one: the request fails soon and politely,
nobody else is called, and the gateway lives."""

import time
from collections.abc import Sequence

import pytest

from tests.bad_inputs.image_host import ADDRESS, BEHAVIOURS
from tests.bad_inputs.running import Answer, Running

FETCH_SECONDS = 3.0  # `fetch.timeout` of the gateway under test
TAKEN = {"countdown_redirect"}  # in moderation; too many hops are looked at below
TOO_LARGE = {"endless", "huge_length"}


def refused(running: Running, answer: Answer, called: Sequence[str]) -> None:
    """The one text for all causes, and nobody called beside the image host."""
    assert (answer.status, answer.code) == (400, "invalid_image_url")
    assert {call.partition(":")[0] for call in running.connects()} <= set(called)
    assert running.ask("GET", "/healthz", key=None).status == 200


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS.keys() - TAKEN - TOO_LARGE))
def test_a_host_that_misbehaves_costs_one_request(running: Running, behaviour: str) -> None:
    running.fixture(http=[{"path": "/x", "behaviour": behaviour}])
    began = time.monotonic()
    answer = running.generate(f"http://{running.ctx['FX']}/x")
    assert time.monotonic() - began < FETCH_SECONDS + 1
    refused(running, answer, [ADDRESS])


@pytest.mark.parametrize("behaviour", sorted(TOO_LARGE))
def test_a_host_without_end_is_cut_off_at_the_bound(running: Running, behaviour: str) -> None:
    running.fixture(http=[{"path": "/x", "behaviour": behaviour}])
    running.forget_peak()
    before = running.resident()
    answer = running.generate(f"http://{running.ctx['FX']}/x")
    assert (answer.status, answer.code) == (413, "image_too_large")
    assert running.peak() - before < 64 * 1024 * 1024


def test_a_certificate_that_nobody_vouches_for_is_refused(running: Running) -> None:
    running.fixture()
    refused(running, running.generate(f"https://{running.ctx['FX_TLS']}/good.png"), [ADDRESS])


@pytest.mark.parametrize(("scheme", "place"), [("http", "FX_TLS"), ("https", "FX")])
def test_the_wrong_protocol_for_the_port_is_refused(running: Running, scheme: str, place: str) -> None:
    host, _, port = running.ctx[place].partition(":")
    port = port or ("443" if place == "FX_TLS" else "80")
    running.fixture()
    refused(running, running.generate(f"{scheme}://{host}:{port}/good.png"), [ADDRESS])


@pytest.mark.parametrize("hops", [3, 4, 50])
def test_more_than_three_hops_are_refused(running: Running, hops: int) -> None:
    running.fixture(http=[{"path": "/hop", "behaviour": "countdown_redirect"}])
    refused(running, running.generate(f"http://{running.ctx['FX']}/hop?n={hops}"), [ADDRESS])
    assert len(running.connects()) == 4


def test_a_name_without_an_answer_holds_nobody_up(running: Running) -> None:
    running.fixture(dns={"slow.fx.test": [["TIMEOUT"]]})
    began = time.monotonic()
    refused(running, running.generate("http://slow.fx.test/good.png"), [])
    assert time.monotonic() - began < FETCH_SECONDS


@pytest.mark.parametrize("inside", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"])
class TestRebinding:
    """The name is good at the first look, and leads inside at the next."""

    def test_between_two_requests(self, running: Running, inside: str) -> None:
        port = running.ctx["FX"].partition(":")[2] or "80"
        running.fixture(dns={"turns.fx.test": [[ADDRESS], [inside]]}, http=[{"path": "/x", "status": 404}])
        for _ in range(2):
            refused(running, running.generate(f"http://turns.fx.test:{port}/x"), [ADDRESS])
        assert len(running.connects()) == 1

    def test_between_two_hops(self, running: Running, inside: str) -> None:
        port = running.ctx["FX"].partition(":")[2] or "80"
        again = {"path": "/r", "status": 302, "headers": {"Location": "/good.png"}}
        running.fixture(dns={"turns.fx.test": [[ADDRESS], [inside]]}, http=[again])
        refused(running, running.generate(f"http://turns.fx.test:{port}/r"), [ADDRESS])
        assert len(running.connects()) == 1

    def test_behind_a_good_one(self, running: Running, inside: str) -> None:
        running.fixture(dns={"two.fx.test": [[ADDRESS, inside]]})
        refused(running, running.generate("http://two.fx.test/good.png"), [])
        assert running.connects() == []
