"""What a program under test tells of itself, a line of JSON at a time; it ends when nobody listens any more."""

import asyncio
import os
import signal
import sys
import time

import orjson

EVERY = 0.02  # seconds between two looks of the probe


class Probe:
    """Notes how late the event loop comes to a timer, as `[moment, seconds]`; SIGUSR1 prints what it has noted."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._noted: list[tuple[float, float]] = []
        self._loop.add_signal_handler(signal.SIGUSR1, self._tell)
        self._loop.add_reader(sys.stdin, os._exit, 1)  # readable when its other end is closed
        self._again()

    def _again(self) -> None:
        self._due = self._loop.time() + EVERY
        self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._noted.append((time.monotonic(), max(0.0, self._loop.time() - self._due)))
        self._again()

    def _tell(self) -> None:
        say({"lateness": self._noted})
        self._noted = []


def say(words: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(words) + b"\n")
    sys.stdout.buffer.flush()
