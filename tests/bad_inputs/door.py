"""The control door of the gateway under test, on a port of its own: it sets what the world answers, and tells whom the
gateway called. No part of the product opens it."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.bad_inputs.image_host import ADDRESS, ImageHost

NAMES = {"fx.test": [[ADDRESS]], "fx2.test": [[ADDRESS]]}
WORST = ["127.0.0.1"]  # what a hostile resolver says of any other name


class Names:
    """A resolver. `answers` has for each name a list, one entry per look-up, the last for good.

    An entry is a list of addresses, or one word: NXDOMAIN, SERVFAIL, NODATA, TIMEOUT.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}

    async def __call__(self, name: str) -> Sequence[str]:
        answers = self.answers.get(name) or NAMES.get(name) or [WORST]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        match answer:
            case ["NXDOMAIN" | "SERVFAIL"]:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            case ["NODATA"]:
                return []
            case ["TIMEOUT"]:
                await asyncio.Event().wait()
            case _:
                pass
        return answer


class Witness:
    """Sees every connection this process makes, whoever makes it. A hook cannot be taken away again."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            self.seen.append(f"{arguments[1][0]}:{arguments[1][1]}")


class Door:
    """`POST /fx {"dns", "http"}` sets the answers and forgets the calls; `GET /connects` lists the calls."""

    def __init__(self, names: Names, host: ImageHost, witness: Witness) -> None:
        self._names = names
        self._host = host
        self._witness = witness

    async def open(self) -> tuple[web.AppRunner, int]:
        """Open the door on a free port; return what closes it, and the port."""
        app = web.Application()
        app.router.add_post("/fx", self._set)
        app.router.add_get("/connects", self._connects)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    async def _set(self, request: web.Request) -> web.Response:
        fixture = await request.json()
        self._names.answers = fixture.get("dns", {})
        self._host.rules = fixture.get("http", [])
        self._witness.seen.clear()
        return web.json_response({})

    async def _connects(self, _request: web.Request) -> web.Response:
        return web.json_response(self._witness.seen)
