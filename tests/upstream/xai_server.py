"""A stand-in for xAI's REST API on loopback, with a ledger of every call: the witness of what a gateway really did.

In a test:

    async with XaiServer(seconds=0.2) as server:
        server.script("submit", Reply(429, {"code": "resource-exhausted", "error": "slow down"}), token="xai-1")
        ... base URL: server.base_url, calls: server.ledger

As a process of its own, which may be scripted over HTTP (`POST /_/script`, `GET /_/ledger`):

    python -m tests.upstream.xai_server --port 9001 --seconds 2 --ledger calls.jsonl

It prints one line when it is ready; the ledger has one JSON object a line, written when the call ends.
"""

import argparse
import asyncio
import hashlib
import signal
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO
from uuid import uuid4

from aiohttp import web

from tests.upstream.xai_script import NAMED, Call, Exchange, Serve, Step, mp4

KINDS = ("submit", "poll", "result", "key")
TICKS_PER_SECOND = 500_000_000  # of video: $0.05


@dataclass(slots=True)
class Job:
    id: str
    token: str
    body: dict[str, Any]
    made_at: float
    ends_at: float | None  # None: when `finish` says so
    fetched: int = 0


class XaiServer:
    """The server. `seconds` is how long a job takes (None: until `finish`), `result` the finished video's bytes.

    `name` is the host of its URLs, where that is not the address it listens on.
    """

    def __init__(
        self,
        *,
        seconds: float | None = 0.0,
        result: bytes | None = None,
        host: str = "127.0.0.1",
        name: str | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        ledger_file: Path | None = None,
    ) -> None:
        self.seconds = seconds
        self.result = mp4(4096) if result is None else result
        self.ledger: list[Call] = []
        self.jobs: dict[str, Job] = {}
        self.peaks: dict[str, int] = defaultdict(int)  # most unfinished jobs at a time, by token
        self.teams: dict[str, str] = {}  # by token; a token that is not here has a team of its own
        self._peers: set[object] = set()
        self._unfinished: dict[str, list[Job]] = defaultdict(list)
        self._scripts: dict[tuple[str, str | None], deque[Step]] = defaultdict(deque)
        self._standing: dict[tuple[str, str | None], Step] = {}
        self._host, self._name, self._port, self._tls = host, name or host, port, tls
        self._ledger_path = ledger_file
        self._ledger_file: TextIO | None = None
        self._closing = asyncio.Event()
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._name}:{self._port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def connections(self) -> int:
        """How many connections the calls have come over."""
        return len(self._peers)

    def script(self, kind: str, *steps: Step, token: str | None = None) -> None:
        """Let the next calls of `kind` (of `token`, or of any) end in these steps, one each; then as asked again."""
        assert kind in KINDS
        self._scripts[kind, token].extend(steps)

    def always(self, kind: str, step: Step, token: str | None = None) -> None:
        """Let every call of `kind` end in this step, where no script says otherwise."""
        assert kind in KINDS
        self._standing[kind, token] = step

    def finish(self, request_id: str | None = None) -> None:
        """End a job now, or all of them."""
        for job in [self.jobs[request_id]] if request_id else list(self.jobs.values()):
            job.ends_at = time.monotonic()

    def calls(self, kind: str, token: str | None = None) -> list[Call]:
        return [call for call in self.ledger if call.kind == kind and token in (None, call.token)]

    async def called(self, kind: str, times: int = 1, within: float = 10.0) -> Call:
        """Wait until calls of `kind` have come this many times; return the last of them."""
        async with asyncio.timeout(within):
            while len(self.calls(kind)) < times:
                await self._news.wait()
        return self.calls(kind)[times - 1]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/videos/generations", self._submit)
        app.router.add_get("/v1/videos/{id}", self._poll)
        app.router.add_get("/v1/api-key", self._key)
        app.router.add_get("/media/{id}.mp4", self._media)
        app.router.add_post("/_/script", self._take_script)
        app.router.add_get("/_/ledger", self._show_ledger)
        if self._ledger_path:
            self._ledger_file = self._ledger_path.open("a", encoding="utf-8")
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls, backlog=1024)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner:
            await self._runner.cleanup()
        if self._ledger_file:
            self._ledger_file.close()

    # What the API does, where no script says otherwise.

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        async def accept(call: Call) -> web.StreamResponse:
            if not call.token:
                return _error(401, "unauthenticated", "No authorization header.")
            if request.content_type != "application/json" or not isinstance(call.body, dict):
                return _error(415, "unsupported-media-type", "Expected a JSON body.")
            return web.json_response({"request_id": self._make(call).id})

        return await self._serve("submit", request, accept)

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        async def look(call: Call) -> web.StreamResponse:
            job = self.jobs.get(request.match_info["id"])
            if not job or self._team(job.token) != self._team(call.token):
                return _error(404, "not-found", "Some requested entity was not found.")
            return self._state(job)

        return await self._serve("poll", request, look)

    async def _key(self, request: web.Request) -> web.StreamResponse:
        async def show(call: Call) -> web.StreamResponse:
            flags = dict.fromkeys(("api_key_blocked", "api_key_disabled", "team_blocked"), False)
            return web.json_response({"name": "stand-in", "team_id": self._team(call.token), **flags})

        return await self._serve("key", request, show)

    async def _media(self, request: web.Request) -> web.StreamResponse:
        async def send(_call: Call) -> web.StreamResponse:
            job = self.jobs.get(request.match_info["id"])
            if not job:
                return web.Response(status=404)
            job.fetched += 1
            return web.Response(body=self.result, content_type="video/mp4")

        return await self._serve("result", request, send)

    def _make(self, call: Call) -> Job:
        now = time.monotonic()
        job = Job(str(uuid4()), call.token, call.body, now, None if self.seconds is None else now + self.seconds)
        self.jobs[job.id] = job
        self._unfinished[call.token].append(job)
        call.request_id = job.id
        self.peaks[call.token] = max(self.peaks[call.token], self._running(call.token))
        return job

    def _state(self, job: Job) -> web.Response:
        now = time.monotonic()
        if job.ends_at is None or job.ends_at > now:
            whole = (job.ends_at or now + 1) - job.made_at
            return web.json_response(
                {"status": "pending", "progress": int(99 * (now - job.made_at) / whole)}, status=202
            )
        duration = job.body.get("duration", 8)
        return web.json_response(
            {
                "status": "done",
                "progress": 100,
                "model": job.body.get("model"),
                "video": {
                    "url": f"{self.origin}/media/{job.id}.mp4",
                    "duration": duration,
                    "respect_moderation": True,
                },
                "usage": {"cost_in_usd_ticks": duration * TICKS_PER_SECOND},
            }
        )

    def _team(self, token: str) -> str:
        return self.teams.get(token) or "team-" + hashlib.sha256(token.encode()).hexdigest()[:8]

    def _running(self, token: str) -> int:
        """Count the unfinished jobs of a token."""
        now = time.monotonic()
        running = [job for job in self._unfinished[token] if job.ends_at is None or job.ends_at > now]
        self._unfinished[token] = running
        return len(running)

    # The ledger and the scripts.

    async def _serve(
        self, kind: str, request: web.Request, as_asked: Callable[[Call], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(
            len(self.ledger) + 1,
            kind,
            request.method,
            request.path_qs,
            token,
            headers,
            time.monotonic(),
            self._running(token),
        )
        call.request_id = request.match_info.get("id")
        self.ledger.append(call)
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        self._news.set()
        self._news = asyncio.Event()
        try:
            step = self._next(kind, token)
            response = await step.carry_out(Exchange(request, call, as_asked, self._closing))
            call.status = response.status if response else None
            return response or web.Response()
        finally:
            call.ended_at = time.monotonic()
            if self._ledger_file:
                self._ledger_file.write(call.line() + "\n")
                self._ledger_file.flush()

    def _next(self, kind: str, token: str) -> Step:
        for who in (token, None):
            if steps := self._scripts.get((kind, who)):
                return steps.popleft()
        return self._standing.get((kind, token)) or self._standing.get((kind, None)) or Serve()

    async def _take_script(self, request: web.Request) -> web.Response:
        """Take `{"kind", "token"?, "steps": [{"step": "reply", "status": 429, …}], "always"?: true}`."""
        order = await request.json()
        steps = [NAMED[step.pop("step")](**step) for step in order["steps"]]
        if order.get("always"):
            self.always(order["kind"], steps[0], order.get("token"))
        else:
            self.script(order["kind"], *steps, token=order.get("token"))
        return web.Response(status=204)

    async def _show_ledger(self, _request: web.Request) -> web.Response:
        return web.Response(text="".join(call.line() + "\n" for call in self.ledger))


def _error(status: int, code: str, text: str) -> web.Response:
    return web.json_response({"code": code, "error": text}, status=status)


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A stand-in for xAI's REST API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a job takes")
    parser.add_argument("--result-bytes", type=int, default=4096)
    parser.add_argument("--result", type=Path, help="a file to serve as every job's result")
    parser.add_argument("--ledger", type=Path)
    options = parser.parse_args()
    result = options.result.read_bytes() if options.result else mp4(options.result_bytes)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with XaiServer(
        seconds=options.seconds, result=result, host=options.host, port=options.port, ledger_file=options.ledger
    ) as server:
        print(f"ready {server.base_url}", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
