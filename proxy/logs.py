"""The log: one JSON line per event, or text for people; our own events and those of the libraries alike.

Everything passes one redaction on its way out: fields, messages and formatted exceptions. A secret is known by its
value (`Redactor.register`) or by its shape.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "•••"
HEAD = 8  # characters by which a registered secret is found
SHORTEST = 4  # a shorter secret would mask half the language
HIDDEN = re.compile(
    r"(proxy[-_])?authorization|(set-)?cookie|x-api-key|(api|master|admin)_key|secret|password|clearance", re.IGNORECASE
)
SUSPECT = re.compile(r"gp_|xai-|[Bb]earer|[Bb]asic|[Cc]ookie|clearance|://|[?&]|prompt|BEARER|BASIC|COOKIE")
SHAPES = tuple(
    (re.compile(shape), mask)
    for shape, mask in (
        (r"\bgp_[0-9A-Za-z]{10,}", MASK),  # the 12 characters that may be shown are shorter
        (r"\bxai-[0-9A-Za-z]{16,}", MASK),
        (r"(?i)\b(bearer|basic)(\s+|%20)[\w.~+/=%•-]{6,}", rf"\1 {MASK}"),
        (r"(?i)\b((?:set-)?cookie2?\b['\"]?\s*[:=,]\s*)(?:b?'[^'\n]*'|b?\"[^\"\n]*\"|[^\n]+)", rf"\1{MASK}"),
        (r"(?i)(cf_clearance['\"]?\s*[:=]\s*['\"]?)[^\s;'\",]+", rf"\1{MASK}"),
        (r"(://[^\s/:@]{0,256}:)[^\s'\"<>]{1,512}@", rf"\1{MASK}@"),
        (r"(?i)([?&](?:sig|signature|key|api_key|token|secret|password)=)[^\s&'\"]+", rf"\1{MASK}"),
    )
)
PROMPT = re.compile(r"""(['"]?\bprompt['"]?\s*[=:]\s*)(?:'(?:\\+[^\\]|[^'\\])*'?|"(?:\\+[^\\]|[^"\\])*"?)""")
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


class Redactor:
    """Masks secrets in whatever is about to be logged. Prompts too, unless `prompts`."""

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts
        self._secrets: set[str] = set()
        self._lengths: dict[str, set[int]] = {}  # of the secrets that begin so
        self._short: set[str] = set()

    def register(self, secret: str) -> None:
        """Mask `secret` from now on, percent-encoded too. One of fewer than 4 characters cannot be told from a word."""
        for spelling in {secret, quote(secret, safe="")}:
            if len(spelling) >= HEAD:
                self._secrets.add(spelling)
                self._lengths.setdefault(spelling[:HEAD], set()).add(len(spelling))
            elif len(spelling) >= SHORTEST:
                self._short.add(spelling)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: self._field(name, value) for name, value in event.items()}

    def redact(self, text: str) -> str:
        """Return `text` with every secret in it masked."""
        for secret in self._found(text):
            text = text.replace(secret, MASK)
        if SUSPECT.search(text):
            for shape, mask in SHAPES:
                text = shape.sub(mask, text)
            text = text if self._prompts else PROMPT.sub(rf"\1{MASK}", text)
        for secret in self._short:
            text = text.replace(secret, MASK)
        return text

    def _found(self, text: str) -> list[str]:
        """Return the registered secrets in `text`, the longest first. The work does not grow with their number."""
        heads = self._lengths
        starts = [at for at in range(len(text) - HEAD + 1) if text[at : at + HEAD] in heads]
        there = {text[at : at + length] for at in starts for length in heads[text[at : at + HEAD]]}
        return sorted(there & self._secrets, key=len, reverse=True)

    def _field(self, name: object, value: object) -> Any:
        if isinstance(name, str) and (HIDDEN.fullmatch(name) or (name == "prompt" and not self._prompts)):
            return MASK
        return self._value(value)

    def _value(self, value: object) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.redact(value)
            case Mapping():
                return {self.redact(str(name)): self._field(name, inner) for name, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._value(inner) for inner in value]
            case _:
                return self.redact(repr(value))


class Sink:
    """The end of both ways: what structlog calls its logger, and the stream of the standard library's handler.

    A stream that fails (a full disk, a closed pipe) costs lines, never the request that wrote one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError), self._lock:
            self._stream.write(text)
            self._stream.flush()

    def flush(self) -> None:
        """`write` has done so."""

    def line(self, text: str) -> None:
        self.write(text + "\n")

    debug = info = warning = error = critical = line


def setup(style: str, level: str, redactor: Redactor, stream: TextIO | None = None) -> None:
    """Send all logging of the process through `redactor` to `stream`, by default standard error.

    `style` is "json", "text", or "auto": text on a terminal. The libraries' own debugging is left out at any level, for
    it shows the parameters of statements.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    as_text = style == "text" or (style == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [structlog.processors.format_exc_info, redactor]
    last += [escape_controls, text_renderer(terminal)] if as_text else [render_json]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    sink = Sink(stream)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    logging.getLogger("alembic").setLevel(logging.WARNING)  # app.py says it in one line
    catch_crashes()


def catch_crashes() -> None:
    """Log what would kill the process or a thread, instead of printing it past the redaction."""

    def crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            logging.getLogger("proxy").critical("crashed", exc_info=(kind, error, trace))
        else:
            sys.__excepthook__(kind, error, trace)

    def thread_crashed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            crashed(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = crashed
    threading.excepthook = thread_crashed


def text_renderer(colors: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=colors, repr_native_str=True, exception_formatter=structlog.dev.plain_traceback
    )


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep a message on its line, and the terminal its own master."""
    event["event"] = str(event.get("event", "")).translate(CONTROLS)
    return event


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate, or a number past 64 bits
        return json.dumps(event)
