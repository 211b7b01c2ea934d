"""The log: one line per event from wherever it comes, and no secret and no prompt in any of them."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
import structlog

from proxy.domain.secret import Secret
from proxy.logs import Redactor, setup

KEY = "gp_" + "Kq7" * 12 + "ab"
TOKEN = "xai-" + "Tv9z" * 20
PASSWORD = "p@ss/w0rd: ünder 'quotes'"
CLEARANCE = "cLr.1732-canary_77"
PROMPT = 'a canary in a coal mine, "quoted", isn\'t it'


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@dataclass
class Log:
    """A log that was set up, and what stands in it."""

    redactor: Redactor
    stream: io.StringIO

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def start(style: str = "json", level: str = "debug", *, prompts: bool = False) -> Log:
    log = Log(Redactor(prompts=prompts), io.StringIO())
    setup(style, level, log.redactor, log.stream)
    return log


@dataclass
class Credential:
    """An object that shows itself, as no credential of the gateway does."""

    password: str


def fail(text: str) -> NoReturn:
    raise RuntimeError(text)


Say = Callable[[str], object]


def by_exception(text: str, log: Callable[[str], object]) -> None:
    try:
        fail(text)
    except RuntimeError:
        log("it failed")


WAYS: dict[str, Say] = {
    "the message": lambda text: structlog.get_logger().info(f"got {text}!"),
    "a field": lambda text: structlog.get_logger().warning("event", value=text),
    "a field deep inside": lambda text: structlog.get_logger().info("event", value={"a": [("b", {text})]}),
    "the name of a field": lambda text: structlog.get_logger().info("event", value={text: 1}),
    "bytes": lambda text: structlog.get_logger().info("event", value=text.encode()),
    "an object": lambda text: structlog.get_logger().info("event", value=Credential(text)),
    "an exception": lambda text: by_exception(text, structlog.get_logger().exception),
    "the context": lambda text: (
        structlog.contextvars.bind_contextvars(context=text),
        structlog.get_logger().debug("event"),
    ),
    "a library's message": lambda text: logging.getLogger("library").error("got %s and %r", text, text),
    "a library's exception": lambda text: by_exception(text, logging.getLogger("library").exception),
}


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_comes_through(way: str, style: str) -> None:
    log = start(style)
    log.redactor.register(PASSWORD)
    log.redactor.register(CLEARANCE)
    carriers = [
        KEY,
        TOKEN,
        CLEARANCE,
        f"Authorization: Bearer {'Zq-canary.' * 3}",
        f"authorization=basic {'Zq-canary'}==",
        "Cookie: session=Zq-canary; other=1",
        "{'Set-Cookie': 'session=Zq-canary'}",
        "cf_clearance=Zq-canary",
        "socks5://user:Zq-canary@proxy.example:1080",
        "http://user:Zq/can@ary@proxy.example",
        "https://gateway.example/media/1?exp=5&sig=Zq-canary",
        "prompt='Zq-canary'",
        '"prompt": "Zq-\\"canary"',
        "'prompt': 'Zq-canary that is cut off",
    ]
    for carrier in carriers:
        WAYS[way](carrier)

    assert log.text.count("•••") >= len(carriers)
    for secret in (KEY, TOKEN, CLEARANCE, "Zq", "canary"):
        assert secret not in log.text


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("bytes", "an object")])
def test_a_registered_secret_is_masked_whatever_its_characters(way: str) -> None:
    log = start()
    log.redactor.register(PASSWORD)
    WAYS[way](f"<{PASSWORD}> and {quote(PASSWORD, safe='')}")

    assert "w0rd" not in log.text
    assert "•••" in log.text


@pytest.mark.parametrize("name", ["Authorization", "cookie", "x-api-key", "password", "secret", "clearance"])
def test_a_field_named_after_a_secret_is_masked_whole(name: str) -> None:
    log = start()
    structlog.get_logger().info("event", headers={name: "canary"}, **{name: Secret("canary")})

    assert "canary" not in log.text
    assert log.lines[0]["headers"] == {name: "•••"}


def test_what_is_no_secret_stays_as_it_is() -> None:
    log = start()
    plain = {
        "shown": "gp_AbCdEfGhI",
        "url": "socks5://user:•••@proxy.example:1080",
        "path": "/v1/videos/generations",
        "token": "tok_01jabc",
        "text": "the bearer of news asked https://host.example/a?page=2",
        "list": [1, 2.5, None, True],
    }
    structlog.get_logger().info("request", **plain)

    assert {name: log.lines[0][name] for name in plain} == plain


def test_a_longer_secret_is_not_left_half_masked_by_a_shorter_one() -> None:
    log = start()
    for secret in ("abcdefgh", "abcdefgh-and-more", "more"):
        log.redactor.register(secret)
    structlog.get_logger().info("event", value="abcdefgh-and-more", other="some more")

    assert log.lines[0]["value"] == "•••"
    assert log.lines[0]["other"] == "some •••"


def test_prompts_come_through_only_where_they_are_wanted() -> None:
    for prompts in (False, True):
        log = start(prompts=prompts)
        structlog.get_logger().info("order", prompt=PROMPT, order={"prompt": PROMPT}, shown=f"Order(prompt={PROMPT!r})")

        assert ("canary" in log.text) is prompts


def test_every_line_is_json_with_its_level_moment_and_request() -> None:
    log = start()
    structlog.contextvars.bind_contextvars(request_id="req-1")
    structlog.get_logger().info("ours\nwith a second line", number=2**70, broken="\ud800")
    logging.getLogger("library").warning("theirs")

    ours, theirs = log.lines
    assert (ours["event"], ours["level"], ours["number"]) == ("ours\nwith a second line", "info", 2**70)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("theirs", "warning", "library")
    for line in (ours, theirs):
        assert line["request_id"] == "req-1"
        assert line["timestamp"].endswith("Z")


def test_text_keeps_each_event_on_its_line_and_the_terminal_unharmed() -> None:
    log = start("text")
    structlog.get_logger().info("one\ntwo \x1b[31m", value="three\n\x1b[31m")

    assert log.text.count("\n") == 1
    assert "\x1b" not in log.text


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        setup("auto", "info", Redactor(), stream)
        structlog.get_logger().info("event")

        assert stream.getvalue().startswith("{") is is_json


def test_the_level_holds_and_libraries_never_debug() -> None:
    log = start(level="warning")
    structlog.get_logger().info("ours")
    logging.getLogger("library").info("theirs")
    assert log.text == ""

    log = start(level="debug")
    structlog.get_logger().debug("ours")
    logging.getLogger("aiosqlite").debug("executing INSERT with a prompt")
    assert [line["event"] for line in log.lines] == ["ours"]


def test_a_stream_that_fails_costs_lines_alone() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    setup("json", "info", Redactor(), Full())
    structlog.get_logger().info("lost")
    logging.getLogger("library").error("lost")


def test_a_crash_of_a_thread_or_of_the_program_is_logged_and_redacted() -> None:
    log = start()
    thread = threading.Thread(target=fail, args=(f"with {TOKEN}",))
    thread.start()
    thread.join()
    try:
        fail(f"with {KEY}")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    assert [line["level"] for line in log.lines] == ["critical", "critical"]
    assert all("RuntimeError: with •••" in line["exception"] for line in log.lines)
