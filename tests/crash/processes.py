"""Gateways in processes of their own, from the side of the test."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import IO, Any

from tests.gateway import Api, client

PATIENCE = 60.0  # seconds for a start or an end on a machine under load
KILLED = -signal.SIGKILL


class DiedAtStart(Exception):
    """The gateway ended before it listened; its log says why, if it did not kill itself."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Process:
    """One gateway. `status` is its exit code once it has ended; negative: the signal that ended it."""

    def __init__(self) -> None:
        self.ready: Future[dict[str, Any]] = Future()
        self.status: Future[int] = Future()
        self.api: Api

    @property
    def pid(self) -> int:
        return int(self.ready.result(0)["pid"])

    def send(self, number: signal.Signals) -> None:
        """Signal the gateway; one that has ended a moment ago needs none."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def ended(self, within: float = PATIENCE) -> int:
        async with asyncio.timeout(within):
            return await asyncio.shield(asyncio.wrap_future(self.status))  # who stops waiting stops no other


class Processes:
    """Starts gateways by the program `tests.crash.gateways`."""

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        assert program.stdin
        assert program.stdout
        self._orders = program.stdin
        self._known: dict[str, Process] = {}
        self._numbers = count()
        Thread(target=self._listen, args=(program.stdout,), daemon=True).start()

    @asynccontextmanager
    async def running(
        self, folder: Path, *, step: str | None = None, nth: int = 1, **options: Any
    ) -> AsyncIterator[Process]:
        """Run a gateway on `folder`, until it dies by itself at the `nth` time that it comes to `step`, or is killed at
        the end of the block. Raises `DiedAtStart`."""
        process, name = Process(), str(next(self._numbers))
        self._known[name] = process
        order = {"id": name, "folder": str(folder), "options": options, "step": step, "nth": nth}
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        try:
            async with asyncio.timeout(PATIENCE):
                url = (await asyncio.wrap_future(process.ready))["url"]
            async with client(url) as process.api:
                yield process
        finally:
            if process.ready.done() and not process.status.done():
                process.send(signal.SIGKILL)
            await process.ended()

    def _listen(self, answers: IO[str]) -> None:
        for line in answers:
            fields = json.loads(line)
            process = self._known[fields["id"]]
            if "url" in fields:
                process.ready.set_result(fields)
            else:
                if not process.ready.done():
                    process.ready.set_exception(DiedAtStart(fields["status"]))
                process.status.set_result(fields["status"])


@contextmanager
def processes() -> Iterator[Processes]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.gateways"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as program:
        yield Processes(program)
        assert program.stdin
        program.stdin.close()
